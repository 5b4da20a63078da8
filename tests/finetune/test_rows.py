"""rows, full and bias: what is trained is added to the base's numbers, of chosen ids alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recli.checks import Arrays
from recli.config import FinetuneConfig
from recli.errors import DataError
from recli.finetune.base import Base
from recli.finetune.data import Nums
from recli.finetune.learner import Learner
from recli.finetune.rows import FreeRows, apply_rows, bias_learner, rows_learner
from recli.finetune.tables import Tables, added, checked_nums
from recli.kernels import load
from recli.kernels.spec import Kernels
from tests.finetune.test_learner import ITEMS, NEW, NUMS, RANK, USERS, base_of, randomised
from tests.finetune.test_loop import BASE, EVERY, found, planted, scores_of

F = np.float32
ALL = np.arange(USERS + NEW), np.arange(ITEMS + NEW)
NONE = np.zeros(0, np.int64)


@pytest.fixture(scope="module", params=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 1) as backend:
        yield backend


def unbiased() -> Base:
    of = base_of()
    sides = [type(side)(side.rows, side.added, 0 * side.biases, side.touched) for side in (of.users, of.items)]
    return Base(sides[0], sides[1], 0.0)


def tables_of(base: Base) -> Tables:
    """As the delta of an adapter finds them."""
    users, items = base.users, base.items
    return Tables(users.all_rows(), items.all_rows(), users.biases, items.biases, F(base.level))


def tables_of_learner(learner: Learner, kernels: Kernels) -> Tables:
    """As training has them."""
    b_u, b_v, b = learner.biases.take(*ALL)
    P, Q = (kernels.host(side.take(nums)) for side, nums in zip((learner.users, learner.items), ALL, strict=True))
    return Tables(P, Q, b_u, b_v, F(b))


def assert_same(one: Tables, other: Tables, tolerance: float = 1e-6) -> None:
    for name in ("P", "Q", "b_u", "b_v", "b"):
        array = getattr(other, name)
        np.testing.assert_allclose(getattr(one, name), array, rtol=tolerance, atol=tolerance, err_msg=name)
        assert getattr(one, name).dtype == F


@pytest.mark.parametrize("nums", [NUMS, ALL, (NONE, NUMS[1]), (NUMS[0], NONE)], ids=["some", "all", "items", "users"])
@pytest.mark.parametrize("make", [rows_learner, bias_learner])
@pytest.mark.parametrize("base", [base_of(), unbiased()], ids=["biased", "unbiased"])
def test_what_is_stored_makes_of_the_base_what_training_had(
    base: Base, make: Any, nums: Nums, kernels: Kernels
) -> None:
    learner = make(base, nums, FinetuneConfig(), kernels)
    assert_same(tables_of_learner(learner, kernels), tables_of(base), 0)  # it starts at the base, bit for bit
    for seed, parameter in enumerate(learner.parameters.values()):
        randomised(parameter, kernels, seed)
    before = tables_of(base)
    applied = apply_rows(learner.arrays(kernels), before)
    assert_same(applied, tables_of_learner(learner, kernels))
    assert_same(before, tables_of(base), 0)
    rows = make is rows_learner
    for name, side in (("P", 0), ("Q", 1), ("b_u", 0), ("b_v", 1)):
        moved = np.flatnonzero(np.atleast_2d((getattr(applied, name) != getattr(before, name)).T).any(axis=0))
        trained = rows if name in "PQ" else (not rows or base.biased)
        np.testing.assert_array_equal(moved, nums[side] if trained else NONE)
    assert (applied.b != before.b) == (not rows or base.biased)


def test_parameters_are_those_of_the_chosen_rows(kernels: Kernels) -> None:
    biases = {"b_u": (4, 1), "b_v": (3, 1), "b": (1, 1)}
    rows = {"P": (4, RANK), "Q": (3, RANK)}
    for make, base, shapes in (
        (rows_learner, base_of(), rows | biases),
        (rows_learner, unbiased(), rows),
        (bias_learner, base_of(), biases),
        (bias_learner, unbiased(), biases),  # which then starts from zero
    ):
        learner = make(base, NUMS, FinetuneConfig(), kernels)
        arrays = learner.arrays(kernels)
        assert {name: array.shape for name, array in learner.state(kernels).items()} == shapes
        assert arrays.keys() == shapes.keys() | {"users", "items"}
        assert learner.size == sum(rows * columns for rows, columns in shapes.values())
        for name, nums in zip(("users", "items"), NUMS, strict=True):
            np.testing.assert_array_equal(arrays[name], nums)


def test_free_rows_of_a_batch_come_in_its_order(kernels: Kernels) -> None:
    side = base_of().users
    rows = FreeRows(side, NUMS[0], kernels)
    change = randomised(rows.parameter, kernels)
    batch = np.array([8, 0, 2, 7, 1])  # of NUMS: 3, -, 1, -, 0
    wanted = side.all_rows()[batch]
    wanted[[0, 2, 4]] += change[[3, 1, 0]]
    np.testing.assert_allclose(kernels.host(rows.take(batch)), wanted, rtol=1e-6, atol=1e-6)
    gain = np.random.default_rng(0).standard_normal((5, RANK)).astype(F)
    (gradient,) = rows.gradients(batch, kernels.table(gain))
    assert gradient.parameter is rows.parameter
    assert gradient.nums is not None
    assert gradient.nums.tolist() == [3, 1, 0]
    np.testing.assert_array_equal(kernels.host(gradient.table), gain[[0, 2, 4]])


@given(st.data())
def test_deltas_of_rows_are_added_one_by_one(data: st.DataObject) -> None:
    base = tables_of(base_of())
    nums = [np.array(sorted(data.draw(st.sets(st.integers(0, n - 1)))), np.int64) for n in (USERS + NEW, ITEMS + NEW)]
    rng = np.random.default_rng(0)
    shapes = {"P": (len(nums[0]), RANK), "Q": (len(nums[1]), RANK), "b_u": (len(nums[0]), 1), "b_v": (len(nums[1]), 1)}
    arrays: Arrays = {name: rng.standard_normal(shape).astype(F) for name, shape in (shapes | {"b": (1, 1)}).items()}
    expected = {name: np.array(getattr(base, name)) for name in arrays}
    for name, side in (("P", 0), ("Q", 1), ("b_u", 0), ("b_v", 1)):
        for place, num in enumerate(nums[side].tolist()):
            expected[name][num] += arrays[name][place] if name in "PQ" else arrays[name][place, 0]
    expected["b"] += arrays["b"][0, 0]
    assert_same(apply_rows({**arrays, "users": nums[0], "items": nums[1]}, base), Tables(**expected))


def parts(**changes: NDArray[Any]) -> Arrays:
    one = {"b_u": np.zeros((1, 1), F), "b_v": np.zeros((2, 1), F), "b": np.zeros((1, 1), F)}
    rows = {"P": np.zeros((1, RANK), F), "Q": np.zeros((2, RANK), F)}
    return {"users": np.array([0]), "items": np.array([0, 3]), **rows, **one, **changes}


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("users", np.array([9]), "array users: expected ascending numbers below 9"),
        ("users", np.array([0.0]), "array users: expected int64 numbers, found float64[1]"),
        ("users", np.array([0, 1]), "array P: expected float32[2, 5], found float32[1, 5]"),
        ("items", np.array([3, 0]), "array items: expected ascending numbers below 8"),
        ("P", np.zeros((1, RANK)), "array P: expected float32[1, 5], found float64[1, 5]"),
        ("P", np.zeros(RANK, F), "array P: expected float32[1, 5], found float32[5]"),
        ("Q", np.zeros((1, RANK), F), "array Q: expected float32[2, 5], found float32[1, 5]"),
        ("b_u", np.zeros(1, F), "array b_u: expected float32[1, 1], found float32[1]"),
        ("b_u", np.full((1, 1), np.inf, F), "array b_u: expected finite numbers"),
        ("b_v", np.zeros((1, 1), F), "array b_v: expected float32[2, 1], found float32[1, 1]"),
        ("b_v", np.full((2, 1), np.nan, F), "array b_v: expected finite numbers"),
        ("b", np.zeros((1, 2), F), "array b: expected float32[1, 1], found float32[1, 2]"),
        ("b", np.full((1, 1), np.nan, F), "array b: expected finite numbers"),
    ],
)
def test_parts_that_do_not_fit_are_refused(name: str, array: NDArray[Any], message: str) -> None:
    apply_rows(parts(), tables_of(base_of()))
    with pytest.raises(DataError, match=re.escape(message)):
        apply_rows(parts(**{name: array}), tables_of(base_of()))


def test_rows_are_added_to_a_copy() -> None:
    rows = np.ones((3, 2), F)
    np.testing.assert_array_equal(added(rows, np.array([2]), np.full((1, 2), 4, F)), [[1, 1], [1, 1], [5, 5]])
    assert rows.tolist() == [[1, 1]] * 3
    assert checked_nums("users", NONE, 0) is NONE


def test_bias_finds_the_levels_of_users_and_items(kernels: Kernels) -> None:
    shift = planted(len(BASE[0]), 1) + planted(len(BASE[1])) + 1.5
    run = found(kernels, "bias", scores_of(*BASE) + shift)
    b_u, b_v, b = run.learner.biases.take(*EVERY)
    np.testing.assert_allclose(b_u[:, None] + b_v + b, shift, atol=0.02)
