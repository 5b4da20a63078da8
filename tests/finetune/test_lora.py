"""lora: rows p + a B, a of each id in the new data, B of all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recli.checks import Arrays
from recli.config import FinetuneConfig
from recli.errors import DataError
from recli.finetune.data import Nums
from recli.finetune.learner import Learner
from recli.finetune.lora import LowRankRows, apply_lora, directions, lora_learner
from recli.kernels import load
from recli.kernels.spec import Kernels
from tests.finetune.test_learner import ITEMS, NEW, NUMS, RANK, USERS, base_of, randomised
from tests.finetune.test_rows import ALL, NONE, assert_same, tables_of, tables_of_learner

F = np.float32


@pytest.fixture(scope="module", params=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 1) as backend:
        yield backend


def learner_of(kernels: Kernels, nums: Nums = NUMS, **settings: Any) -> Learner:
    return lora_learner(base_of(), nums, FinetuneConfig(**{"adapter": "lora", "rank": 2, **settings}), kernels)


@pytest.mark.parametrize("nums", [NUMS, ALL, (NONE, NUMS[1]), (NUMS[0], NONE)], ids=["some", "all", "items", "users"])
@pytest.mark.parametrize("rank", [1, 2, RANK])
def test_what_is_stored_makes_of_the_base_what_training_had(rank: int, nums: Nums, kernels: Kernels) -> None:
    learner, base = learner_of(kernels, nums, rank=rank), base_of()
    assert_same(tables_of_learner(learner, kernels), tables_of(base), 0)  # it starts at the base, bit for bit
    values = {name: randomised(one, kernels, seed) for seed, (name, one) in enumerate(learner.parameters.items())}
    before = tables_of(base)
    applied = apply_lora(learner.arrays(kernels), before)
    assert_same(applied, tables_of_learner(learner, kernels), 1e-5)
    assert_same(before, tables_of(base), 0)
    for name, rows, known, own in zip("PQ", (applied.P, applied.Q), (before.P, before.Q), nums, strict=True):
        change = values[f"A_{name}"].astype(float) @ values[f"B_{name}"]
        np.testing.assert_allclose(rows[own] - known[own], change, rtol=1e-4, atol=1e-5)
        others = np.setdiff1d(np.arange(len(rows)), own)
        np.testing.assert_array_equal(rows[others], known[others])
        assert len(own) == 0 or np.linalg.matrix_rank(change) == min(rank, len(own))
    for name in ("b_u", "b_v", "b"):
        np.testing.assert_array_equal(getattr(applied, name), getattr(before, name))


def test_parameters_are_those_of_the_chosen_rows_and_of_the_directions(kernels: Kernels) -> None:
    learner = learner_of(kernels)
    state, arrays = learner.state(kernels), learner.arrays(kernels)
    shapes = {name: array.shape for name, array in state.items()}
    assert shapes == {"A_P": (4, 2), "B_P": (2, RANK), "A_Q": (3, 2), "B_Q": (2, RANK)}
    assert arrays.keys() == shapes.keys() | {"users", "items"}
    assert learner.size == (4 + 3 + 2 * RANK) * 2
    for name, nums in zip(("users", "items"), NUMS, strict=True):
        np.testing.assert_array_equal(arrays[name], nums)
    assert not state["A_P"].any()
    assert not state["A_Q"].any()
    again, other = learner_of(kernels).state(kernels), learner_of(kernels, seed=1).state(kernels)
    for name in ("B_P", "B_Q"):  # of users and items, and of seeds, directions of their own
        np.testing.assert_allclose(state[name] @ state[name].T, np.eye(2), atol=1e-6)
        np.testing.assert_array_equal(again[name], state[name])
        assert np.abs(other[name] - state[name]).max() > 0.1
    assert np.abs(state["B_P"] - state["B_Q"]).max() > 0.1


@pytest.mark.parametrize(("rank", "width"), [(1, 1), (1, 6), (3, 7), (5, 5), (16, 64)])
def test_directions_are_orthonormal(rank: int, width: int) -> None:
    found = directions(rank, width, np.random.default_rng(rank))
    assert found.shape == (rank, width)
    assert found.dtype == F
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found.astype(float) @ found.T, np.eye(rank), atol=1e-6)


def test_directions_prefer_none() -> None:
    """Of many drawn ones, each column of the base is in as much as any other."""
    shares = np.mean([directions(1, 4, np.random.default_rng(seed))[0] ** 2 for seed in range(2000)], axis=0)
    np.testing.assert_allclose(shares, 0.25, atol=0.02)


def test_the_first_gradients_reach_the_rows_own_numbers_alone(kernels: Kernels) -> None:
    """As they are along the directions: B is orthonormal, and A still zero."""
    rows = LowRankRows(base_of().users, NUMS[0], 2, np.random.default_rng(0), kernels)
    batch = np.array([8, 0, 2, 7, 1])  # of NUMS: 3, -, 1, -, 0
    rows.take(batch)
    gain = np.random.default_rng(1).standard_normal((5, RANK)).astype(F)
    own, shared = rows.gradients(batch, kernels.table(gain))
    assert (own.parameter, shared.parameter) == (rows.own, rows.shared)
    assert own.nums is not None
    assert (own.nums.tolist(), shared.nums) == ([3, 1, 0], None)
    B = kernels.host(rows.shared.table).astype(float)
    np.testing.assert_allclose(kernels.host(own.table), gain[[0, 2, 4]] @ B.T, rtol=1e-5, atol=1e-6)
    assert not kernels.host(shared.table).any()


def test_a_rank_above_the_base_s_is_refused(kernels: Kernels) -> None:
    with pytest.raises(DataError, match="--rank 6: the model has rank 5: give at most that"):
        learner_of(kernels, rank=6)


def parts(width: int = RANK, **changes: NDArray[Any]) -> Arrays:
    rng = np.random.default_rng(3)
    shapes = {"A_P": (2, 2), "B_P": (2, width), "A_Q": (1, 2), "B_Q": (2, width)}
    arrays = {name: rng.standard_normal(shape).astype(F) for name, shape in shapes.items()}
    return {"users": np.array([1, 8]), "items": np.array([4]), **arrays, **changes}


@pytest.mark.parametrize("biased", [(True, True), (True, False), (False, True)])
def test_a_last_direction_column_moves_biases(biased: tuple[bool, bool]) -> None:
    """Of a closed form, which solves them with the rows."""
    wide, before = parts(RANK + 1), tables_of(base_of())
    for name, has in zip(("B_P", "B_Q"), biased, strict=True):
        wide[name] = np.ascontiguousarray(wide[name][:, : RANK + has])
    applied = apply_lora(wide, before)
    for name, bias, nums, has in (("P", "b_u", [1, 8], biased[0]), ("Q", "b_v", [4], biased[1])):
        change = wide[f"A_{name}"].astype(float) @ wide[f"B_{name}"]
        rows, levels = getattr(before, name).astype(float), getattr(before, bias).astype(float)
        rows[nums] += change[:, :RANK]
        if has:
            levels[nums] += change[:, RANK]
        np.testing.assert_allclose(getattr(applied, name), rows, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(getattr(applied, bias), levels, rtol=1e-5, atol=1e-6)
    assert applied.b == before.b


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("users", np.array([1, USERS + NEW]), "array users: expected ascending numbers below 9"),
        ("users", np.array([1]), "array A_P: expected float32[1, 2], found float32[2, 2]"),
        ("items", np.array([-1]), "array items: expected ascending numbers below 8"),
        ("items", np.array([[4]]), "array items: expected int64 numbers, found int64[1, 1]"),
        ("A_P", np.zeros((2, 2)), "array A_P: expected float32[2, 2], found float64[2, 2]"),
        ("A_P", np.full((2, 2), np.nan, F), "array A_P: expected finite numbers"),
        ("A_P", np.zeros((2, 3), F), "array B_P: expected float32[3, 5], found float32[2, 5]"),
        ("A_Q", np.zeros(1, F), "array A_Q: expected float32[1, -1], found float32[1]"),
        ("B_Q", np.zeros((2, RANK - 1), F), "array B_Q: expected float32[2, 5], found float32[2, 4]"),
        ("B_Q", np.zeros((2, RANK + 2), F), "array B_Q: expected float32[2, 5], found float32[2, 7]"),
        ("B_Q", np.zeros((1, RANK + 1), F), "array B_Q: expected float32[2, 6], found float32[1, 6]"),
        ("B_Q", np.full((2, RANK), np.inf, F), "array B_Q: expected finite numbers"),
    ],
)
def test_parts_that_do_not_fit_are_refused(name: str, array: NDArray[Any], message: str) -> None:
    assert (USERS, ITEMS) == (7, 6)
    apply_lora(parts(), tables_of(base_of()))
    with pytest.raises(DataError, match=re.escape(message)):
        apply_lora(parts(**{name: array}), tables_of(base_of()))
