"""Interactions that drift: how many, whose and when, and that what was planted moves as far as was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recli.bench import synthetic as made
from recli.bench.drift import LATE, NEW_ITEMS, NEW_USERS, Drifting, drifting
from recli.bench.synthetic import Size
from recli.config import FactorizeConfig
from recli.factorize import Data, Watch
from recli.factorize.ials import fit_ials
from recli.ids import to_csr
from recli.kernels import load


@pytest.mark.parametrize("drift", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("size", [Size(300, 80, 2000), Size(50, 400, 1), Size(1000, 8, 1000), Size(40, 64, 320)])
def test_there_are_exactly_as_many_distinct_pairs_as_asked_for_in_the_order_of_time(size: Size, drift: float) -> None:
    users, items, times = drifting(size, 0, drift=drift)
    assert [array.dtype.name for array in (users, items, times)] == ["int32", "int32", "float32"]
    assert len(users) == len(items) == len(times) == size.pairs
    assert 0 <= users.min() <= users.max() < size.users
    assert 0 <= items.min() <= items.max() < size.items
    assert len(np.unique(users.astype(np.int64) * size.items + items)) == size.pairs
    assert times[0] >= 0
    assert times[-1] < 1
    assert (np.diff(times) >= 0).all()


def test_the_same_seed_gives_the_same_pairs_and_another_gives_others() -> None:
    first, again, other = (drifting(Size(300, 80, 2000), seed) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


def test_neither_threads_nor_batches_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    size = Size(400, 200, 8000)
    whole = drifting(size, 7)
    monkeypatch.setattr(made, "BATCH", 100)
    assert all(same(whole, drifting(size, 7, threads)) for threads in (1, 3))


def same(first: Drifting, second: Drifting) -> bool:
    return all((x == y).all() for x, y in zip(first, second, strict=True))


@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_users_and_items_keep_coming(drift: float) -> None:
    size = Size(4000, 1000, 80_000)
    users, items, times = drifting(size, 0, drift=drift)
    assert np.mean(firsts(users, times, size.users) >= LATE) == pytest.approx(NEW_USERS, abs=0.005)
    assert np.mean(firsts(items, times, size.items) >= LATE) == pytest.approx(
        NEW_ITEMS, abs=0.03
    )  # and what nobody had
    assert np.mean(firsts(items, times, size.items) < 0.1) > 0.6


def firsts(numbers: NDArray[np.int32], times: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """When each comes: float32[count], 1 for those that never do."""
    found = np.ones(count, np.float32)
    np.minimum.at(found, numbers, times)
    return found


def test_users_have_pairs_all_over_their_time_some_in_bursts() -> None:
    users, _, times = drifting(Size(2000, 1000, 80_000), 0)
    order = np.lexsort((times, users))
    gaps, within = np.diff(times[order]), np.diff(users[order]) == 0
    assert np.median(gaps[within]) < 0.002  # 40 pairs each: 0.02 were they even
    spans = [np.ptp(times[users == user]) for user in range(200)]
    assert np.median(spans) > 0.4


def test_what_is_planted_moves_as_far_as_asked_for() -> None:
    """A model of early pairs ranks late ones, of users and items that it knows, as well as early ones that it has not
    seen, if nothing moves, and worse the more it does.
    """
    losses = [np.subtract(*early_and_late(Size(4000, 2000, 60_000), drift)) for drift in (0.0, 1.0, 2.0)]
    assert abs(losses[0]) < 0.03
    assert losses[1] > 0.05
    assert losses[2] > losses[1] + 0.05


def test_popularity_moves_with_drift_alone() -> None:
    correlations = []
    for drift in (0.0, 1.0):
        _, items, times = drifting(Size(4000, 500, 60_000), 0, drift=drift)
        known = np.bincount(items[times < 0.1], minlength=500) > 0
        early, late = (np.bincount(items[at], minlength=500)[known] for at in (times < 0.3, times >= 0.7))
        correlations.append(np.corrcoef(early, late)[0, 1])
    assert correlations[0] > 0.9
    assert correlations[1] < correlations[0] - 0.1


def early_and_late(size: Size, drift: float) -> tuple[float, float]:
    """Mean place of held-out pairs among what a user has not had, 1 the best: of the first half of the time, and of the
    last fifth.
    """
    users, items, times = drifting(size, 0, drift=drift)
    early = times < 0.5
    held = early & (np.random.default_rng(0).random(size.pairs) < 0.2)
    at = early & ~held
    matrix, _ = to_csr(users[at], items[at], np.ones(at.sum(), np.float32), size.users, size.items, "last")
    with load("cpu", 1) as kernels:
        fit = fit_ials(Data(matrix=matrix, items=size.items), FactorizeConfig(rank=8), kernels, Watch())
    scores = fit.P @ fit.Q.T
    scores[users[at], items[at]] = -np.inf
    had = np.diff(matrix.indptr)
    places = (scores.argsort(axis=1).argsort(axis=1) - had[:, None]) / (size.items - had[:, None])
    known = (had[users] >= 10) & (np.bincount(matrix.indices, minlength=size.items)[items] >= 20)
    first, last = (float(places[users[part], items[part]].mean()) for part in (known & held, known & (times >= 0.8)))
    return first, last
