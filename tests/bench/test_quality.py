"""Quality on the test part, against `per_user` on lists made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from recli.artifacts import Factors, Interactions
from recli.bench.quality import Exam, examine
from recli.config import FactorizeConfig
from recli.factorize import factorize
from recli.ids import Csr, Ids, take_rows
from recli.kernels import load
from recli.kernels.spec import Kernels
from recli.metrics import Truth, per_user
from recli.splits import split
from tests.factorize.data import interactions, planted
from tests.models import bare


@pytest.fixture(scope="module")
def kernels() -> Iterator[Kernels]:
    with load("reference", 1) as backend:
        yield backend


def learned(whole: Interactions, train: Csr) -> Interactions:
    return dataclasses.replace(whole, matrix=train)


def test_metrics_are_those_of_the_lists_without_what_was_learned_from(kernels: Kernels) -> None:
    data = interactions(planted())
    parts = split(data.matrix, "random", 0.3, 0)
    model, _ = factorize(learned(data, parts.train), FactorizeConfig(rank=4), kernels)
    exam = Exam.of(parts.test)
    metrics, each = examine(model, exam, [2, 5], kernels)
    users = np.flatnonzero(np.diff(parts.test.indptr))
    scores = np.asarray(model.P)[users] @ np.asarray(model.Q).T
    for row, user in enumerate(users):
        scores[row, parts.train.indices[parts.train.indptr[user] : parts.train.indptr[user + 1]]] = -np.inf
    for k in (2, 5):
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
        truth = take_rows(parts.test, users)
        expected = per_user(best, Truth(truth, np.diff(truth.indptr)))
        for name in ("recall", "ndcg"):
            assert each[f"{name}@{k}"] == pytest.approx(expected[name])
            assert metrics[f"{name}@{k}"] == pytest.approx(expected[name].mean())
        assert metrics[f"coverage@{k}"] == len(np.unique(best)) / scores.shape[1]
    assert set(metrics) == {f"{name}@{k}" for name in ("recall", "ndcg", "coverage") for k in (2, 5)}


def test_held_out_users_are_folded_in_by_recli_from_what_is_known_of_them(kernels: Kernels) -> None:
    data = interactions(planted())
    parts = split(data.matrix, "users", 0.4, 0)
    model, _ = factorize(learned(data, parts.train), FactorizeConfig(rank=4), kernels)
    exam = Exam.of(parts.test, parts.fold_in)
    assert exam.history is not None
    assert not np.asarray(model.P)[exam.users].any()  # nobody has learned from them
    folded, _ = examine(model, exam, [3], kernels)
    without, _ = examine(model, Exam.of(parts.test), [3], kernels)
    assert folded["ndcg@3"] > without["ndcg@3"]


def test_another_librarys_rows_of_held_out_users_are_taken_as_they_are(kernels: Kernels) -> None:
    """And what is known of them is not recommended."""
    users, items = 2, 4
    P, Q = np.ones((users, 1), np.float32), np.array([[4], [3], [2], [1]], np.float32)
    nothing = np.zeros(users + 1, np.int64), np.zeros(0, np.int32)
    model: Factors = bare(
        Ids(np.arange(users)), Ids(np.arange(items)), P=P, Q=Q, seen_indptr=nothing[0], seen_indices=nothing[1]
    )
    ones = np.ones(2, np.float32)
    test = Csr(np.array([0, 1, 2]), np.array([1, 3], np.int32), ones)
    history = Csr(np.array([0, 1, 2]), np.array([0, 2], np.int32), ones)
    metrics, each = examine(model, Exam.of(test, history), [1], kernels)
    assert each["recall@1"].tolist() == [1, 0]  # item 1 is the first one's best besides 0; item 0 the other's
    assert metrics["recall@1"] == 0.5


def test_users_whom_no_model_can_know_get_the_most_popular_items(kernels: Kernels) -> None:
    model = bare(
        Ids(np.arange(2)),
        Ids(np.arange(3)),
        P=np.ones((2, 1), np.float32),
        Q=np.array([[1], [2], [3]], np.float32),
        item_counts=np.array([0, 9, 1]),
        seen_indptr=np.zeros(3, np.int64),
        seen_indices=np.zeros(0, np.int32),
    )
    truth = Truth(Csr(np.array([0, 1, 2]), np.array([2, 1], np.int32), np.ones(2, np.float32)), np.array([1, 1]))
    metrics, _ = examine(model, Exam(np.array([0, -1]), truth), [1], kernels)
    assert metrics["recall@1"] == 1
