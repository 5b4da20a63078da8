"""Ranking quality of top-K lists over a full catalogue, block by block.

Means over users with at least one truth item. With `hits` the truth items among a user's K, n the number of truth items
(those that the model does not know included) and rank starting at 1:

    recall         hits / n, as the LightGCN line of papers
    recall_capped  hits / min(K, n), as Liang et al. 2018, "Variational Autoencoders for Collaborative Filtering"
    ndcg           sum_hits 1/log2(rank + 1) / sum_{j <= min(K, n)} 1/log2(j + 1)
    map            sum_hits precision@rank / min(K, n)
    hit_rate       1 if there is a hit
    mrr            1 / rank of the first hit, 0 without one
    coverage       share of the catalogue that occurs in any list
    novelty        mean over recommended items of -log2(share of users that have the item), self-information in Zhou
                   et al. 2010; an item that nobody has counts as one user's
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recli.ids import Csr, row_numbers, take_rows

PER_USER = ("recall", "recall_capped", "ndcg", "map", "hit_rate", "mrr")


@dataclass(frozen=True)
class Truth:
    """What users should get. items: CSR, the truth items that the model knows, a row a user; sizes: int64[n], all of
    them.
    """

    items: Csr
    sizes: NDArray[np.int64]

    def rows(self, positions: NDArray[np.int64]) -> Truth:
        """The rows at these positions; -1 gives an empty one."""
        sizes = np.zeros(len(positions), np.int64)
        there = positions >= 0
        sizes[there] = self.sizes[positions[there]]
        return Truth(take_rows(self.items, positions), sizes)


def per_user(items: NDArray[np.int32], truth: Truth) -> dict[str, NDArray[np.float64]]:
    """The metrics of PER_USER for each row: float64[n].

    items: int32[n, K], -1 where a list has ended. truth: the same users', each with at least one item.
    """
    n, k = items.shape
    known, sizes = truth.items, truth.sizes
    width = int(max(known.indices.max(initial=-1), items.max(initial=-1))) + 1
    wanted = row_numbers(known.indptr) * width + known.indices
    hit = np.isin(np.arange(n)[:, None] * width + items, wanted) & (items >= 0)
    hits = hit.sum(axis=1)
    rank = np.arange(1, k + 1)
    discount = 1 / np.log2(rank + 1)
    capped = np.minimum(k, sizes)
    first = np.where(hits > 0, hit.argmax(axis=1) + 1, np.inf)
    return {
        "recall": hits / sizes,
        "recall_capped": hits / capped,
        "ndcg": hit @ discount / np.cumsum(discount)[capped - 1],
        "map": (np.cumsum(hit, axis=1) / rank * hit).sum(axis=1) / capped,
        "hit_rate": (hits > 0).astype(np.float64),
        "mrr": 1 / first,
    }


@dataclass
class RankingQuality:
    """Adds up over blocks of users. item_counts: int64[I], the numbers of users of each item; model_users: of all."""

    k: int
    item_counts: NDArray[np.int64]
    model_users: int
    users: int = 0
    _sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PER_USER, 0.0))
    _novelty: float = 0.0
    _listed: int = 0
    _covered: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._covered = np.zeros(len(self.item_counts), bool)

    def add(self, items: NDArray[np.int32], truth: Truth) -> None:
        """Lists int32[n, K] and their users' truth; users without truth count for coverage and novelty only."""
        listed = items[items >= 0]
        self._covered[listed] = True
        self._listed += len(listed)
        self._novelty -= float(np.log2(np.maximum(self.item_counts[listed], 1) / self.model_users).sum())
        judged = np.flatnonzero(truth.sizes)
        self.users += len(judged)
        for name, values in per_user(items[judged], truth.rows(judged)).items():
            self._sums[name] += float(values.sum())

    def result(self) -> dict[str, float]:
        """Metric@K -> mean."""
        means = {f"{name}@{self.k}": total / max(1, self.users) for name, total in self._sums.items()}
        means[f"coverage@{self.k}"] = float(self._covered.mean()) if len(self._covered) else 0.0
        means[f"novelty@{self.k}"] = self._novelty / max(1, self._listed)
        return means


@dataclass
class RatingErrors:
    """Root mean squared and mean absolute error of predicted ratings, added up over blocks of pairs."""

    pairs: int = 0
    _squared: float = 0.0
    _absolute: float = 0.0

    def add(self, predicted: NDArray[np.float32], ratings: NDArray[np.float32]) -> None:
        errors = predicted.astype(np.float64) - ratings
        self.pairs += len(errors)
        self._squared += float(errors @ errors)
        self._absolute += float(np.abs(errors).sum())

    def result(self) -> dict[str, float]:
        """rmse and mae; at least one pair must have been added."""
        return {"rmse": float(np.sqrt(self._squared / self.pairs)), "mae": self._absolute / self.pairs}
