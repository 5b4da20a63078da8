"""Nearest rows by cosine, against all cosines in float64."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recli.config import ScoreConfig
from recli.errors import BusyError, DataError, UsageError
from recli.kernels import load
from recli.kernels.reference import score
from recli.kernels.spec import Floats, Kernels, Nums
from recli.score import block_similar, similar

COUNT, RANK = 40, 6


@pytest.fixture(scope="module", params=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 2) as backend:
        yield backend


def table(rng: np.random.Generator | None = None) -> Floats:
    """Read-only rows of very different lengths, some of them parallel, some zero."""
    rng = rng or np.random.default_rng(0)
    rows = rng.integers(-2, 3, (COUNT, RANK)) * 10.0 ** rng.integers(-20, 18, (COUNT, 1))
    rows[[7, 30]] = 0
    rows[21] = 3 * rows[4]
    rows = rows.astype(np.float32)
    rows.flags.writeable = False
    return rows


def lists(
    rows: Floats,
    asked: NDArray[np.int64],
    kernels: Kernels,
    candidates: Nums | None = None,
    block: int = 1 << 14,
    **settings: object,
) -> tuple[Nums, Floats]:
    at, parts = 0, []
    for start, nums, cosines in similar(rows, asked, candidates, ScoreConfig(**settings), kernels, block):  # type: ignore[arg-type]
        assert start == at
        at += len(nums)
        parts.append((nums, cosines))
    nums, cosines = (np.concatenate(part) for part in zip(*parts, strict=True))
    return nums, cosines


def true_cosines(rows: Floats) -> NDArray[np.float64]:
    exact = rows.astype(float)
    norms = np.linalg.norm(exact, axis=1)
    return np.divide(
        exact @ exact.T, np.outer(norms, norms), where=np.outer(norms, norms) > 0, out=np.zeros((COUNT,) * 2)
    )


@pytest.mark.parametrize("k", [1, 5, COUNT - 1])
@pytest.mark.parametrize("block", [1, 7, 1 << 14])
def test_neighbours_are_the_largest_cosines_with_ties_by_number(kernels: Kernels, k: int, block: int) -> None:
    rows = table()
    nums, cosines = lists(rows, np.arange(COUNT), kernels, k=k, block=block)
    truth = true_cosines(rows)
    np.testing.assert_allclose(cosines, np.take_along_axis(truth, nums.astype(int), axis=1), rtol=0, atol=2e-7)
    unit = (rows / np.maximum(np.sqrt((rows.astype(float) ** 2).sum(axis=1, keepdims=True)), 1e-300)).astype(np.float32)
    for row in range(COUNT):  # and bit for bit what the docstring defines
        defined = score(np.broadcast_to(unit[row], unit.shape), unit)
        others = np.delete(np.arange(COUNT), row)
        best = others[np.lexsort((others, -defined[others]))][:k]
        np.testing.assert_array_equal(nums[row], best)
        np.testing.assert_array_equal(cosines[row], defined[best])


def test_a_row_is_no_neighbour_of_its_own_but_its_double_is(kernels: Kernels) -> None:
    nums, cosines = lists(table(), np.array([4, 21]), kernels, k=COUNT - 1)
    assert nums[:, 0].tolist() == [21, 4]
    np.testing.assert_allclose(cosines[:, 0], 1, rtol=2e-7)
    assert 4 not in nums[0]
    assert 21 not in nums[1]


def test_a_zero_row_has_cosine_zero_to_everything(kernels: Kernels) -> None:
    nums, cosines = lists(table(), np.array([7]), kernels, k=8)
    assert nums.tolist() == [[0, 1, 2, 3, 4, 5, 6, 8]]
    assert not cosines.any()


def test_only_candidates_are_neighbours_whoever_asks(kernels: Kernels) -> None:
    rows, candidates = table(), np.array([3, 4, 7, 21, 39], np.int32)
    nums, cosines = lists(rows, np.arange(COUNT), kernels, candidates, k=5)
    everyone = lists(rows, np.arange(COUNT), kernels, k=COUNT - 1)
    for row in range(COUNT):
        among = np.isin(everyone[0][row], candidates)
        count = int(among.sum())
        assert count == 5 - (row in candidates)
        np.testing.assert_array_equal(nums[row, :count], everyone[0][row][among])
        np.testing.assert_array_equal(cosines[row, :count], everyone[1][row][among])
        assert (nums[row, count:] == -1).all()


def test_lists_end_where_cosines_fall_below_the_least(kernels: Kernels) -> None:
    everyone = lists(table(), np.arange(COUNT), kernels, k=9)
    nums, _ = lists(table(), np.arange(COUNT), kernels, k=9, min_score=0.5)
    np.testing.assert_array_equal(nums, np.where(everyone[1] >= 0.5, everyone[0], -1))
    assert (nums < 0).any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), block=st.integers(1, 9))
def test_neither_blocks_nor_company_change_a_bit(kernels: Kernels, seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    rows, asked = table(rng), rng.permutation(COUNT)[: 1 + seed % COUNT]
    everyone = lists(rows, np.arange(COUNT), kernels, k=4)
    for found, expected in zip(lists(rows, asked, kernels, k=4, block=block), everyone, strict=True):
        assert found.tobytes() == expected[asked].tobytes()


def test_what_cannot_be_is_refused_at_once(kernels: Kernels) -> None:
    with pytest.raises(DataError, match=r"rank 0 \(solver pop\): it has no factors to compare"):
        similar(np.zeros((3, 0), np.float32), np.arange(3), None, ScoreConfig(k=1), kernels)
    with pytest.raises(UsageError, match="-k 40: there are 39 others in the model: give at most -k 39"):
        similar(table(), np.arange(3), None, ScoreConfig(k=COUNT), kernels)
    (alone,) = similar(np.ones((1, 2), np.float32), np.arange(1), None, ScoreConfig(k=1), kernels)
    assert alone.nums.tolist() == [[-1]]


def test_blocks_shrink_with_k_and_with_the_memory_down_to_what_is_said_to_be_enough() -> None:
    shape = (100_000, 64)
    assert block_similar(shape, ScoreConfig(k=10), None) > block_similar(shape, ScoreConfig(k=1000), None) >= 1
    with pytest.raises(BusyError, match=r"finding neighbours needs at least [0-9.]+G") as caught:
        block_similar(shape, ScoreConfig(), 400_000_000)
    said = re.search(r"least ([0-9.]+)G", str(caught.value))
    assert said
    assert block_similar(shape, ScoreConfig(), int(float(said[1]) * 2**30)) >= 1
