"""Intervals of differences, against the closed form for many users."""

from __future__ import annotations

import numpy as np
import pytest

from recli.bench import compare
from recli.bench.compare import paired_difference


def test_the_interval_is_the_normal_one_where_there_are_many_users() -> None:
    rng = np.random.default_rng(0)
    ours = rng.random(4000)
    theirs = ours + rng.normal(0.02, 0.1, 4000)
    found = paired_difference(theirs, ours, 0)
    off = theirs - ours
    half = 1.96 * off.std() / np.sqrt(4000)
    assert found.mean == pytest.approx(off.mean())
    assert found.low == pytest.approx(off.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(off.mean() + half, abs=0.1 * half)


def test_pairs_stay_together() -> None:
    """Users differ by far more than contestants: unpaired, nothing could be said."""
    rng = np.random.default_rng(1)
    ours = rng.random(500)
    found = paired_difference(ours + 0.01 + rng.normal(0, 0.001, 500), ours, 0)
    assert 0.009 < found.low < found.high < 0.011


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(60):
        difference = rng.normal(0.0, 1.0, 200)
        found = paired_difference(difference, np.zeros(200), trial)
        covered += found.low <= 0 <= found.high
    assert covered >= 51  # of 60 at 95%: fewer by chance once in ten thousand times


def test_blocks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = np.random.default_rng(3).random((2, 300))
    whole = paired_difference(theirs, ours, 0)
    monkeypatch.setattr(compare, "BATCH_NUMBERS", 1000)
    assert paired_difference(theirs, ours, 0) == whole


def test_equal_ones_and_one_user_alone_have_no_width() -> None:
    assert paired_difference(np.ones(9), np.ones(9), 0) == (0, 0, 0)
    assert paired_difference(np.array([0.5]), np.array([0.25]), 0) == (0.25, 0.25, 0.25)
