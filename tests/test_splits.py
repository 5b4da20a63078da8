"""Parts of interactions: disjoint, together the whole, and without a look into the future."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recli.errors import DataError
from recli.ids import Csr, row_numbers
from recli.splits import SPLITS, apart, hold_out, split
from tests.kernels.problems import csr

Pairs = dict[tuple[int, int], float]
LENGTHS = st.lists(st.integers(0, 9), min_size=3, max_size=12).filter(
    lambda lengths: sum(length > 1 for length in lengths) > 1
)
SHARES = st.floats(0.05, 0.9)
SEEDS = st.integers(0, 2**32)


def pairs(matrix: Csr) -> Pairs:
    users = row_numbers(matrix.indptr).tolist()
    return dict(zip(zip(users, matrix.indices.tolist(), strict=True), matrix.values.tolist(), strict=True))


def whole_and_times(lengths: list[int], moments: int) -> tuple[Csr, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    whole = csr(np.random.default_rng(0), lengths, 9)
    return whole, np.random.default_rng(1).integers(0, moments, len(whole.indices))


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, how=st.sampled_from(SPLITS), share=SHARES, seed=SEEDS, moments=st.integers(5, 50))
def test_parts_are_disjoint_and_together_the_whole(
    lengths: list[int], how: str, share: float, seed: int, moments: int
) -> None:
    whole, times = whole_and_times(lengths, moments)
    try:
        parts = split(whole, how, share, seed, times)
    except DataError:  # of so few pairs there may be none for one side
        return
    shown = [pairs(part) for part in parts if part is not None]
    assert sum(map(len, shown)) == len(whole.indices)
    assert {pair: value for part in shown for pair, value in part.items()} == pairs(whole)
    assert all(len(part.indptr) == len(whole.indptr) and part.indptr.dtype == np.int64 for part in parts if part)
    again = split(whole, how, share, seed, times)
    assert [pairs(part) for part in again if part is not None] == shown


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, share=SHARES, moments=st.integers(5, 50))
def test_nothing_learned_is_later_than_anything_judged(lengths: list[int], share: float, moments: int) -> None:
    whole, times = whole_and_times(lengths, moments)
    when = dict(zip(pairs(whole), times.tolist(), strict=True))
    try:
        parts = split(whole, "time", share, 0, times)
    except DataError:
        return
    learned, judged = ([when[pair] for pair in pairs(part)] for part in (parts.train, parts.test))
    assert max(learned) < min(judged)
    assert len(judged) <= share * len(whole.indices) + 1


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, share=SHARES, moments=st.integers(5, 50))
def test_a_users_last_pairs_are_judged(lengths: list[int], share: float, moments: int) -> None:
    whole, times = whole_and_times(lengths, moments)
    when = dict(zip(pairs(whole), times.tolist(), strict=True))
    parts = split(whole, "last", share, 0, times)
    for user, length in enumerate(lengths):
        learned, judged = (
            [when[pair] for pair in pairs(part) if pair[0] == user] for part in (parts.train, parts.test)
        )
        expected = 0 if length < 2 else min(max(round(share * length), 1), length - 1)
        assert len(judged) == expected
        if judged:
            assert max(learned) <= min(judged)


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, share=SHARES, seed=SEEDS)
def test_held_out_users_are_not_learned_from_at_all(lengths: list[int], share: float, seed: int) -> None:
    whole = csr(np.random.default_rng(0), lengths, 9)
    try:
        parts = split(whole, "users", share, seed)
    except DataError:
        return
    assert parts.fold_in is not None
    learned, known, judged = (np.flatnonzero(np.diff(part.indptr)) for part in (parts.train, parts.fold_in, parts.test))
    assert not set(learned) & set(known)
    assert set(judged) == set(known)  # each of them has something to look at, and something to be judged by
    assert len(judged) == round(share * sum(length > 1 for length in lengths))


def test_about_the_share_asked_for_is_held_out() -> None:
    whole = csr(np.random.default_rng(0), [50] * 200, 60)
    times = np.arange(10_000)
    for how in ("random", "last", "time"):
        assert len(split(whole, how, 0.1, 3, times).test.indices) == pytest.approx(1000, rel=0.1)
    parts = split(whole, "users", 0.1, 3)
    assert len(parts.test.indices) == 20 * 10
    assert parts.fold_in is not None
    assert len(parts.fold_in.indices) == 20 * 40


def test_seeds_give_other_parts() -> None:
    whole = csr(np.random.default_rng(0), [20] * 30, 60)
    for how in ("random", "users"):
        assert pairs(split(whole, how, 0.3, 1).test) != pairs(split(whole, how, 0.3, 2).test)


def test_a_side_without_pairs_is_an_error_that_says_so() -> None:
    whole = csr(np.random.default_rng(0), [3, 4], 9)
    with pytest.raises(DataError, match=r"--split time, --test-share 0\.2: of 7 pairs there are 7 to learn from and 0"):
        split(whole, "time", 0.2, 0, np.zeros(7, np.int64))
    bare = csr(np.random.default_rng(0), [1, 1], 9)
    with pytest.raises(DataError, match="of 2 pairs there are 2 to learn from and 0 to judge by"):
        split(bare, "last", 0.5, 0, np.arange(2))
    assert len(hold_out(bare, 0.9, 0)[1].indices) == 0


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, share=SHARES, seed=SEEDS, moments=st.integers(1, 5))
def test_the_last_of_each_user_are_those_of_a_sort_of_all_pairs(
    lengths: list[int], share: float, seed: int, moments: int
) -> None:
    whole, times = whole_and_times(lengths, moments)
    test, known = apart(whole, "last", share, seed, times)
    assert not known.any()
    user = row_numbers(whole.indptr)
    order = np.lexsort((times, user))  # stable: of equal times, the later in the matrix is later
    for row, length in enumerate(np.diff(whole.indptr).tolist()):
        wanted = min(max(round(share * length), 1), length - 1) if length else 0
        theirs = order[whole.indptr[row] : whole.indptr[row + 1]]
        assert set(np.flatnonzero(test & (user == row)).tolist()) == set(theirs[length - wanted :].tolist())


def test_items_from_a_number_on_keep_a_pair_and_nothing_else_changes() -> None:
    rng = np.random.default_rng(0)
    there = rng.random((60, 30)) < np.where(np.arange(30) < 15, 0.3, 0.03)
    indptr = np.append(0, np.cumsum(there.sum(axis=1))).astype(np.int64)
    matrix = Csr(indptr, np.nonzero(there)[1].astype(np.int32), np.ones(there.sum(), np.float32))
    plain, asked = hold_out(matrix, 0.5, 1), hold_out(matrix, 0.5, 1, 15)

    def pairs(part: Csr) -> set[tuple[int, int]]:
        return set(zip(np.repeat(np.arange(60), np.diff(part.indptr)).tolist(), part.indices.tolist(), strict=True))

    bare = set(np.flatnonzero(there.any(axis=0)).tolist()) - set(plain[0].indices.tolist())
    assert any(item >= 15 for item in bare)  # else there is nothing to see
    assert set(asked[0].indices.tolist()) >= {item for item in bare if item >= 15}
    assert pairs(asked[1]) == {(user, item) for user, item in pairs(plain[1]) if item < 15 or item not in bare}
    assert pairs(asked[0]) | pairs(asked[1]) == pairs(matrix)
