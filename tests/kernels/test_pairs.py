"""Scores of row pairs: kernels/spec.py's number, bit for bit, on every backend, and topk's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recli.kernels import load
from recli.kernels.cpu import pairs
from recli.kernels.spec import Floats, Kernels
from tests.kernels.test_topk import score, small_floats


def assert_exact(
    kernels: Kernels, users: Floats, items: Floats, user_nums: NDArray[np.int64], item_nums: NDArray[np.int64]
) -> None:
    found = kernels.score_pairs(users, items, user_nums, item_nums)
    expected = [score(users[u], items[i]) for u, i in zip(user_nums, item_nums, strict=True)]
    assert (found.dtype, found.shape) == (np.float32, (len(user_nums),))
    np.testing.assert_array_equal(found.view(np.uint32), np.array(expected, np.float32).view(np.uint32))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "CHUNK", 7)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("rank", [0, 1, 5, 8, 15, 16, 17, 64, 130])
@pytest.mark.parametrize("n", [0, 1, 7, 50])
def test_pairs_in_any_order_and_again_get_the_defined_score(kernels: Kernels, rank: int, n: int) -> None:
    rng = np.random.default_rng(rank)
    users, items = (rng.standard_normal((rows, rank)).astype(np.float32) for rows in (9, 13))
    for array in (users, items):
        array.flags.writeable = False  # as from a file
    assert_exact(kernels, users, items, rng.integers(0, 9, n), rng.integers(0, 13, n))


@pytest.mark.parametrize("rank", [3, 16])
def test_scores_are_those_of_topk(kernels: Kernels, rank: int) -> None:
    """Bit for bit, so that what was found by other means can be rescored and merged with its lists."""
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((rows, rank)).astype(np.float32) for rows in (20, 70))
    nums, scores = kernels.topk(kernels.index_items(items), users, 9, None)
    again = kernels.score_pairs(users, items, np.repeat(np.arange(20), 9), nums.ravel().astype(np.int64))
    np.testing.assert_array_equal(again.view(np.uint32), scores.ravel().view(np.uint32))


def test_what_overflows_is_infinite_and_what_underflows_is_a_plain_zero(kernels: Kernels) -> None:
    users = np.array([[3e38, 3e38], [-1e-30, 0]], np.float32)
    items = np.array([[3e38, 0], [-3e38, 0], [1e-30, 0]], np.float32)
    found = kernels.score_pairs(users, items, np.array([0, 0, 1]), np.array([0, 1, 2]))
    np.testing.assert_array_equal(found, [np.inf, -np.inf, 0])
    assert not np.signbit(found[2])


@pytest.mark.usefixtures("small_chunks")
def test_threads_change_no_bit(fast: Kernels) -> None:
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((rows, 20)).astype(np.float32) for rows in (30, 40))
    pairs_ = rng.integers(0, 30, 500), rng.integers(0, 40, 500)
    results = []
    for threads in (1, 3):
        with load(fast.name, threads) as kernels:
            results.append(kernels.score_pairs(users, items, *pairs_).tobytes())
    assert results[0] == results[1]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_pair_gets_the_defined_score(kernels: Kernels, data: st.DataObject) -> None:
    users, items, rank = (data.draw(st.integers(1, most)) for most in (4, 4, 20))
    pairs_ = data.draw(st.lists(st.tuples(st.integers(0, users - 1), st.integers(0, items - 1)), max_size=20))
    nums = np.array(pairs_, np.int64).reshape(-1, 2).T
    assert_exact(kernels, data.draw(small_floats(users, rank)), data.draw(small_floats(items, rank)), *nums)
