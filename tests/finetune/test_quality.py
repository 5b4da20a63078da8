"""How adapters are judged: on new pairs, on old ones, and as probabilities; against brute force."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors, Provenance
from recli.config import FinetuneConfig
from recli.finetune import Logloss, NewData, exam_of_new, exam_of_old, labelled, metric_of, quality, unknown_pairs
from recli.finetune.base import Base, Side
from recli.finetune.learner import FrozenRows, Learner, TrainedBiases
from recli.finetune.tables import Tables
from recli.ids import Csr
from recli.kernels import load
from recli.kernels.spec import Kernels
from recli.splits import hold_out
from tests.finetune.models import ITEMS, SETTINGS, USERS, csr, dense, fitted, new_data, predictions


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 2) as kernels, threadpool_limits(1):  # small products are slower on more
        yield kernels


def parted(data: NewData) -> tuple[NewData, Csr]:
    train, held = hold_out(data.every, 0.4, 0)
    return NewData(train, data.every, data.users, data.items), held


def base_of(factors: Factors) -> Base:
    none = np.zeros((0, factors.P.shape[1]), np.float32)
    nobody = np.zeros(0, np.int64)
    users = Side(np.asarray(factors.P[:]), none, factors.b_u, nobody)
    return Base(users, Side(factors.item_factors(), none, factors.b_v, nobody), float(factors.b))


def tables(factors: Factors) -> Tables:
    P, Q = np.asarray(factors.P[:]), factors.item_factors()
    return Tables(P, Q, factors.b_u, factors.b_v, np.float32(factors.b))


def learner_of(factors: Factors, kernels: Kernels) -> Learner:
    base = base_of(factors)
    rows = FrozenRows(base.users, kernels), FrozenRows(base.items, kernels)
    return Learner(*rows, TrainedBiases(base, kernels, None), {})


def lists(scores: NDArray[np.float64], had: NDArray[np.bool_], k: int) -> list[list[int]]:
    return [
        [item for item in np.argsort(-row, kind="stable").tolist() if not out[item]][:k]
        for row, out in zip(scores, had, strict=True)
    ]


@pytest.mark.parametrize("name", ["rendle", "als"])
@pytest.mark.parametrize("seen", [True, False])
def test_new_pairs_are_judged_among_what_a_user_has_not(name: str, seen: bool, cpu: Kernels) -> None:
    factors = fitted(cpu, seen=seen, **SETTINGS[name])
    data, held = parted(new_data(new=(0, 0)))
    exam = exam_of_new(data, held, factors, "recall@5", 0, cpu)
    wanted = ~np.isnan(dense(held, ITEMS))
    had = ~np.isnan(dense(data.matrix, ITEMS))
    if factors.seen is not None:
        had |= ~np.isnan(dense(factors.seen._replace(values=np.ones(len(factors.seen.indices), np.float32)), ITEMS))
    found = lists(predictions(factors), had, 5)
    recalls = [
        np.mean([item in found[user] for item in np.flatnonzero(wanted[user])])
        for user in range(USERS)
        if wanted[user].any()
    ]
    assert exam.users.tolist() == np.flatnonzero(wanted.any(axis=1)).tolist()
    assert exam.of_tables(tables(factors)) == pytest.approx(np.mean(recalls))
    assert exam.of_learner(learner_of(factors, cpu), ITEMS, cpu) == pytest.approx(np.mean(recalls))
    assert 0 < np.mean(recalls) < 1


@pytest.mark.parametrize("seen", [True, False])
def test_pairs_that_lists_leave_out_are_not_asked_for(seen: bool, cpu: Kernels) -> None:
    factors = fitted(cpu, solver="ials", seen=seen)
    data, held = parted(new_data())
    rng = np.random.default_rng(1)
    pairs = {user: {int(item): 2.0 for item in rng.choice(ITEMS, 20, replace=False)} for user in range(USERS + 1)}
    asked = csr(pairs, data.users)
    had = ~np.isnan(dense(data.matrix, data.items))
    if factors.seen is not None:
        ones = np.ones(len(factors.seen.indices), np.float32)
        had[:USERS, :ITEMS] |= ~np.isnan(dense(factors.seen._replace(values=ones), ITEMS))
    expected = dense(asked, data.items)
    expected[had] = np.nan
    found = unknown_pairs(asked, data, factors)
    np.testing.assert_array_equal(dense(found, data.items), expected)
    assert 0 < len(found.indices) < len(asked.indices)
    assert len(unknown_pairs(data.matrix, data, factors).indices) == 0
    if not seen:
        assert len(unknown_pairs(held, data, factors).indices) == len(held.indices)


def test_ratings_are_judged_by_their_error(cpu: Kernels) -> None:
    factors = fitted(cpu, solver="als")
    data, held = parted(new_data(new=(0, 0)))
    exam = exam_of_new(data, held, factors, "rmse", 0, cpu)
    error = np.sqrt(np.nanmean((predictions(factors) - dense(held, ITEMS)) ** 2))
    assert exam.of_tables(tables(factors)) == pytest.approx(-error, rel=1e-5)
    assert exam.of_learner(learner_of(factors, cpu), ITEMS, cpu) == pytest.approx(-error, rel=1e-5)


def test_users_that_the_base_does_not_know_are_judged_too(cpu: Kernels) -> None:
    factors = fitted(cpu, solver="ials")
    data, held = parted(new_data())
    exam = exam_of_new(data, held, factors, "ndcg@10", 0, cpu)
    assert (exam.users >= USERS).any()
    longer = Tables(
        np.vstack([factors.P[:], np.ones((3, 5), np.float32)]),
        np.vstack([factors.item_factors(), np.ones((2, 5), np.float32)]),
        np.zeros(63, np.float32),
        np.zeros(42, np.float32),
        np.float32(0),
    )
    assert 0 < exam.of_tables(longer) < 1


@pytest.mark.parametrize("given", [True, False])
def test_what_was_learned_before_is_judged_with_nothing_left_out(given: bool, cpu: Kernels) -> None:
    factors = fitted(cpu, solver="ials", seen=not given)
    old = csr({user: {user % ITEMS: 1.0, (7 * user + 3) % ITEMS: 1.0} for user in range(0, USERS, 2)}, USERS)
    exam = exam_of_old(factors, old if given else None, ITEMS, 0, cpu)
    assert exam is not None
    pairs = old if given else factors.seen
    assert pairs is not None
    had = ~np.isnan(dense(pairs._replace(values=np.ones(len(pairs.indices), np.float32)), ITEMS))
    found = lists(predictions(factors), np.zeros_like(had), 20)
    shares = [
        sum(item in found[user] for item in np.flatnonzero(had[user])) / min(20, had[user].sum())
        for user in np.flatnonzero(had.any(axis=1))
    ]
    assert exam.of_tables(tables(factors)) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("given", [True, False])
def test_old_ratings_are_judged_by_their_error(given: bool, cpu: Kernels) -> None:
    factors = fitted(cpu, solver="als")
    old = csr({user: {user % ITEMS: 3.0, (7 * user + 3) % ITEMS: 1.0} for user in range(0, USERS, 2)}, USERS)
    exam = exam_of_old(factors, old if given else None, ITEMS, 0, cpu)
    pairs = old if given else factors.seen
    assert exam is not None
    assert pairs is not None
    error = np.sqrt(np.nanmean((predictions(factors) - dense(pairs, ITEMS)) ** 2))
    assert exam.validation.metric == "rmse"
    assert exam.of_tables(tables(factors)) == pytest.approx(-error, rel=1e-5)
    ones = replace(factors, seen_values=None)
    exam = exam_of_old(ones, None, ITEMS, 0, cpu)
    assert exam is not None
    assert exam.validation.metric == quality.FORGETTING


def test_without_old_pairs_nothing_is_judged_of_before(cpu: Kernels) -> None:
    factors = fitted(cpu, solver="ials", seen=False)
    assert exam_of_old(factors, None, ITEMS, 0, cpu) is None
    assert exam_of_old(factors, csr({}, USERS), ITEMS, 0, cpu) is None


def test_a_sample_of_users_is_judged(monkeypatch: pytest.MonkeyPatch, cpu: Kernels) -> None:
    monkeypatch.setattr(quality, "MOST_USERS", 7)
    factors = fitted(cpu, solver="ials")
    exams = [exam_of_old(factors, None, ITEMS, seed, cpu) for seed in (0, 0, 1)]
    drawn = [exam.users.tolist() for exam in exams if exam is not None]
    assert len(drawn[0]) == 7
    assert drawn[0] == sorted(set(drawn[0]))
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("settings", "solver", "expected"),
    [
        ({}, "ials", "ndcg@10"),
        ({}, "als", "rmse"),
        ({}, "imported", "ndcg@10"),
        ({"adapter": "head"}, "als", "logloss"),
        ({"metric": "recall@20"}, "als", "recall@20"),
        ({"metric": "rmse", "adapter": "head"}, "ials", "rmse"),
    ],
)
def test_the_metric(settings: dict[str, str], solver: str, expected: str, cpu: Kernels) -> None:
    factors = fitted(cpu, solver="ials")
    factors = replace(factors, provenance=Provenance(config={"solver": solver}))
    assert metric_of(FinetuneConfig(**settings), factors) == expected  # type: ignore[arg-type]


def judged(labels: NDArray[np.float32]) -> Logloss:
    nums = np.zeros(len(labels), np.int64)
    return Logloss(nums, nums, labels)


def test_logloss_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal(50).astype(np.float32) * 3, rng.integers(0, 2, 50).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(float)))
    wanted = np.mean(np.where(labels == 1, np.log(p), np.log(1 - p)))
    assert judged(labels).of_logits(logits) == pytest.approx(wanted)
    certain = np.array([1e4, -1e4], np.float32)
    assert judged(np.array([1, 0], np.float32)).of_logits(certain) == 0
    assert judged(np.array([0, 1], np.float32)).of_logits(certain) == pytest.approx(-1e4)


@pytest.mark.parametrize("n", [1, 7, 10, 103])
def test_calibration_is_the_gap_between_what_was_said_and_what_was(n: int) -> None:
    """Ten bins, the first ones with one pair more where they cannot be alike."""
    rng = np.random.default_rng(n)
    logits, labels = rng.standard_normal(n).astype(np.float32), rng.integers(0, 2, n).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(float)))
    order, at, total = np.argsort(p, kind="stable"), 0, 0.0
    for part in range(10):
        size = n // 10 + (part < n % 10)
        bin_ = order[at : at + size]
        total += abs(p[bin_].sum() - labels[bin_].sum())
        at += size
    assert judged(labels).calibration(logits) == pytest.approx(total / n)


def test_what_is_calibrated_has_no_gap_and_what_is_not_has_one() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(100_000)
    labels = (rng.random(len(p)) < p).astype(np.float32)
    logits = np.log(p / (1 - p)).astype(np.float32)
    assert judged(labels).calibration(logits) < 0.01
    assert judged(labels).calibration(3 * logits) > 0.08
    assert judged(labels[:0]).calibration(logits[:0]) == 0


def test_a_learner_is_judged_by_its_scores(cpu: Kernels) -> None:
    factors = fitted(cpu, solver="als")
    users, items = np.array([5, 1, 5]), np.array([0, 39, 2])
    labels = np.array([1, 0, 1], np.float32)
    found = Logloss(users, items, labels)
    scores = predictions(factors)[users, items].astype(np.float32)
    assert found.of_learner(learner_of(factors, cpu), cpu) == pytest.approx(found.of_logits(scores), rel=1e-5)


def test_held_out_labels_are_judged_as_they_are(cpu: Kernels) -> None:
    held = csr({0: {1: 1.0, 2: 0.0}, 3: {0: 1.0}}, 5)
    found = labelled(held, 0, held, 10, 0)
    assert (found.users.tolist(), found.items.tolist()) == ([0, 0, 3], [1, 2, 0])
    assert found.labels.tolist() == [1, 0, 1]


def test_negatives_are_drawn_from_what_the_users_have_not() -> None:
    rng = np.random.default_rng(0)
    pairs = {user: {int(item): 1.0 for item in rng.choice(30, 12, replace=False)} for user in range(40)}
    every = csr(pairs, 40)
    _, held = hold_out(every, 0.3, 0)
    found = labelled(held, 20, every, 30, 1)
    own = len(held.indices)
    assert found.labels[:own].tolist() == [1] * own
    assert not found.labels[own:].any()
    assert 0.5 * 20 * own < len(found.labels) - own < 0.7 * 20 * own  # 18 of 30 are left
    assert all(
        int(item) not in pairs[int(user)] for user, item in zip(found.users[own:], found.items[own:], strict=True)
    )
    assert len(np.unique(found.items[own:])) == 30
    again = labelled(held, 20, every, 30, 1)
    np.testing.assert_array_equal(found.items, again.items)
    assert len(labelled(held, 20, every, 30, 2).items) != len(found.items)
