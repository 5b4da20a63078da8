"""Lists in two stages: something quick nominates, something better decides among the candidates. Of models that keep
their items' exact rows beside codes, codes nominate and exact rows decide, of which only those of candidates are read
from the file. With a head, which is no dot product, the model below it nominates.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.ids import Csr
from recli.kernels.spec import Floats, Kernels, Nums

NOMINATED, AT_LEAST = 4, 50  # candidates: so many times k, and so many more


class Nominating(Protocol):
    def top(self, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]: ...


class Head(Protocol):
    """What scores pairs by a function of its own."""

    def scores(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> Floats:
        """Of pairs of the model's numbers, -1 for what it does not know: float32[n]."""
        ...


class RescoredRanking:
    """The exact scores of what codes nominate. An item that they rank below all candidates is missed."""

    def __init__(self, kernels: Kernels, factors: Factors, nominating: Nominating) -> None:
        self._kernels, self._factors, self._nominating = kernels, factors, nominating

    def top(self, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        """As `Kernels.topk`, in the model's item numbers."""
        items, _ = self._nominating.top(users, candidates(k, len(self._factors.item_ids)), excluded)
        there = items >= 0
        numbers, at = np.unique(items[there], return_inverse=True)
        rows, who = self._factors.item_rows(numbers), np.nonzero(there)[0]
        scores = self._kernels.score_pairs(users, rows, who.astype(np.int64), at.astype(np.int64))
        return reordered(items, scores, k)


def reranked(
    nominating: Nominating, head: Head, nums: NDArray[np.int64], users: Floats, k: int, excluded: Csr | None, count: int
) -> tuple[Nums, Floats]:
    """The k best by a head of what the model nominates, for users of these numbers and rows; count: of items."""
    items, _ = nominating.top(users, candidates(k, count), excluded)
    there = items >= 0
    return reordered(items, head.scores(nums[np.nonzero(there)[0]], items[there].astype(np.int64)), k)


def candidates(k: int, count: int) -> int:
    return min(NOMINATED * k + AT_LEAST, count)


def reordered(items: Nums, scores: Floats, k: int) -> tuple[Nums, Floats]:
    """The k best of each row of items int32[n, m], -1 for none, by the scores of those that are there."""
    there = items >= 0
    table = np.full(items.shape, -np.inf, np.float32)
    table[there] = scores
    order = np.lexsort((np.where(there, items, np.iinfo(np.int32).max), -table), axis=1)[:, :k]
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(table, order, axis=1)
