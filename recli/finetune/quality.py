"""What an adapter does for held-out new pairs, and to what the base was good at before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.config import FinetuneConfig
from recli.factorize import Fit, Validation, no_pairs
from recli.finetune.choices import predicts_ratings
from recli.finetune.data import NewData
from recli.finetune.head import BLOCK, Head
from recli.finetune.learner import Learner
from recli.finetune.losses import sigmoid
from recli.finetune.tables import Tables
from recli.ids import Csr, row_numbers, take_rows, union_rows
from recli.kernels.spec import Floats, Kernels
from recli.splits import take_pairs

MOST_USERS = 2000  # to be ranked after each epoch
FORGETTING = "recall_capped@20"  # of the items that a user had, where there are no ratings


@dataclass(frozen=True)
class Exam:
    """users: int64[n], whose lists or ratings are judged; validation: of these users alone."""

    users: NDArray[np.int64]
    validation: Validation

    def of_tables(self, tables: Tables) -> float:
        return self._of(tables.P[self.users], tables.Q, tables.b_u[self.users], tables.b_v, float(tables.b))

    def of_learner(self, learner: Learner, items: int, kernels: Kernels) -> float:
        every = np.arange(items)
        P, Q = kernels.host(learner.users.take(self.users)), kernels.host(learner.items.take(every))
        return self._of(P, Q, *learner.biases.take(self.users, every))

    def _of(self, P: Floats, Q: Floats, b_u: Floats, b_v: Floats, b: float) -> float:
        return self.validation.of_fit(Fit(P=P, Q=Q, b_u=b_u, b_v=b_v, b=b))


@dataclass(frozen=True)
class Logloss:
    """Of labelled pairs: users, items int64[n], labels float32[n]; higher is better, so it is negative."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    labels: Floats

    def of_learner(self, learner: Learner, kernels: Kernels) -> float:
        scores = np.empty(len(self.users), np.float32)
        for start in range(0, len(scores), BLOCK):
            users, items = self.users[start : start + BLOCK], self.items[start : start + BLOCK]
            X, Y = learner.users.take(users), learner.items.take(items)
            at = np.arange(len(users), dtype=np.int32)
            b_u, b_v, b = learner.biases.take(users, items)
            biases = (b_u + b_v + b).astype(np.float32)
            scores[start : start + BLOCK] = (
                learner.scorer.forward(X, Y, at, at, biases)
                if isinstance(learner.scorer, Head)
                else kernels.pair_dots(X, Y, at, at) + biases
            )
        return self.of_logits(scores)

    def of_logits(self, logits: Floats) -> float:
        scores, labels = logits.astype(np.float64), self.labels
        return -float((np.logaddexp(0, scores) - labels * scores).mean())

    def calibration(self, logits: Floats) -> float:
        """The expected calibration error in ten bins of equal size (Naeini et al. 2015)."""
        p = sigmoid(logits.astype(np.float64))
        parts = np.array_split(np.argsort(p, kind="stable"), 10)
        gaps = [abs(float(p[part].mean() - self.labels[part].mean())) * len(part) for part in parts if len(part)]
        return sum(gaps) / max(1, len(p))


def exam_of_new(data: NewData, held: Csr, factors: Factors, metric: str, seed: int, kernels: Kernels) -> Exam:
    """Of held-out pairs; lists leave out what a user has otherwise."""
    users = _sample(np.flatnonzero(np.diff(held.indptr)), seed)
    had = _had(data, factors, users)
    return Exam(users, Validation(had, take_rows(held, users, values=True), metric, seed, kernels))


def unknown_pairs(held: Csr, data: NewData, factors: Factors) -> Csr:
    """Held-out pairs that lists can have: neither learned from nor in the base."""
    users = np.flatnonzero(np.diff(held.indptr))
    had, rows = _had(data, factors, users), take_rows(held, users)
    own, theirs = (row_numbers(matrix.indptr) * data.items + matrix.indices for matrix in (rows, had))
    return take_pairs(held, ~np.isin(own, theirs))


def _had(data: NewData, factors: Factors, users: NDArray[np.int64]) -> Csr:
    """What users have otherwise: CSR [n, items]."""
    had = [take_rows(data.matrix, users)]
    if factors.seen is not None:
        had.append(take_rows(factors.seen, np.where(users < len(factors.user_ids), users, -1)))
    return union_rows(had, data.items)


def exam_of_old(factors: Factors, old: Csr | None, items: int, seed: int, kernels: Kernels) -> Exam | None:
    """Of pairs that the base has seen, or of `old` ones [users, items] if they are given: which share of them the lists
    of their users hold, nothing left out, or for a base that predicts ratings, the error of these. None where there are
    none.
    """
    pairs = factors.seen if old is None else old
    if pairs is None:
        return None
    users = _sample(np.flatnonzero(np.diff(pairs.indptr)), seed)
    if not len(users):
        return None
    rated = predicts_ratings(factors) and len(pairs.values) > 0
    metric, judged = "rmse" if rated else FORGETTING, take_rows(pairs, users, values=rated)
    return Exam(users, Validation(no_pairs(len(users)), judged, metric, seed, kernels))


def _sample(users: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    if len(users) <= MOST_USERS:
        return users
    return np.sort(np.random.default_rng(seed).choice(users, MOST_USERS, replace=False))


def metric_of(config: FinetuneConfig, factors: Factors) -> str:
    if config.metric != "auto":
        return config.metric
    if config.adapter == "head":
        return "logloss"
    return "rmse" if predicts_ratings(factors) else "ndcg@10"


def labelled(held: Csr, negatives: int, had: Csr, items: int, seed: int) -> Logloss:
    """Held-out pairs with their labels, and so many negatives each, drawn from all items alike."""
    users, own = row_numbers(held.indptr), held.indices.astype(np.int64)
    if not negatives:
        return Logloss(users, own, held.values)
    drawn = np.random.default_rng(seed).integers(items, size=len(users) * negatives)
    others = np.repeat(users, negatives)
    width = items
    taken = np.isin(others * width + drawn, row_numbers(had.indptr) * width + had.indices)
    labels = np.concatenate([held.values, np.zeros(int((~taken).sum()), np.float32)])
    return Logloss(np.concatenate([users, others[~taken]]), np.concatenate([own, drawn[~taken]]), labels)
