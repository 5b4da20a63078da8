"""Recall, NDCG and coverage of any contestant's model on the test part, by one and the same code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.config import ScoreConfig
from recli.ids import Csr, take_rows
from recli.kernels.spec import Kernels
from recli.metrics import RankingQuality, Truth, per_user
from recli.score import Audience, Catalogue, RowProblem, fold_in, recommend

SHOWN = ("recall", "ndcg", "coverage")
COMPARED = ("recall", "ndcg")  # user by user
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Exam:
    """users: int64[n], numbers in the model, -1 for those that it cannot know, who get the most popular items; truth:
    theirs, nobody's empty. history: [n, items], what is known of users whom the model has not learned from, or None.
    """

    users: NDArray[np.int64]
    truth: Truth
    history: Csr | None = None

    @classmethod
    def of(cls, test: Csr, history: Csr | None = None) -> Exam:
        """Of the test part of a split."""
        users = np.flatnonzero(np.diff(test.indptr))
        truth = take_rows(test, users)
        theirs = None if history is None else take_rows(history, users, values=True)
        return cls(users, Truth(truth, np.diff(truth.indptr)), theirs)


def examine(
    model: Factors, exam: Exam, ks: Sequence[int], kernels: Kernels
) -> tuple[dict[str, float], dict[str, Doubles]]:
    """metric@k -> value, for each k of ks, at most the number of items; and for those of COMPARED each user's: float64
    [n].

    Users without rows are folded in by recli where it knows how, from their history; another library's model brings
    rows of its own for them.
    """
    audience = Audience(exam.users, history=exam.history)
    if exam.history is not None and model.P.shape[1] and model.provenance.config.get("solver"):
        learned = RowProblem(model).learned(exam.history, weighted=False)
        audience = fold_in(Audience(exam.users, history=learned), model, kernels)
    judges = {k: RankingQuality(k, model.item_counts, len(model.user_ids)) for k in ks}
    each: dict[str, list[Doubles]] = {f"{name}@{k}": [] for name in COMPARED for k in ks}
    for block in recommend(model, audience, Catalogue(), ScoreConfig(k=max(ks)), kernels):
        truth = exam.truth.rows(np.arange(block.start, block.start + len(block.items)))
        for k, judge in judges.items():
            judge.add(block.items[:, :k], truth)
            values = per_user(block.items[:, :k], truth)
            for name in COMPARED:
                each[f"{name}@{k}"].append(values[name])
    metrics = {f"{name}@{k}": judge.result()[f"{name}@{k}"] for k, judge in judges.items() for name in SHOWN}
    return metrics, {name: np.concatenate(parts) for name, parts in each.items()}
