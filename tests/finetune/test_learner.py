"""What adapters are put together from: the base's rows with new ones behind them, biases, and states."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recli.finetune.base import Base, BaseRows, Side
from recli.finetune.learner import FrozenRows, Learner, Some, TrainedBiases, gradient_of
from recli.finetune.optimizer import Parameter
from recli.kernels import load
from recli.kernels.spec import Floats, Kernels

F = np.float32
USERS, ITEMS, NEW, RANK = 7, 6, 2, 5
NUMS = np.array([1, 2, 5, 8]), np.array([0, 3, 7])  # known ones and new ones


@pytest.fixture(scope="module", params=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 1) as backend:
        yield backend


def side(known: int, new: int = NEW, seed: int = 0) -> Side:
    rng = np.random.default_rng([seed, known])
    rows, added = (rng.standard_normal((n, RANK)).astype(F) for n in (known, new))
    return Side(rows, added, rng.standard_normal(known + new).astype(F), np.arange(known + new))


def base_of(new: int = NEW) -> Base:
    return Base(side(USERS, new), side(ITEMS, new), 0.75)


def randomised(parameter: Parameter, kernels: Kernels, seed: int = 0) -> Floats:
    """Gives it random numbers; these."""
    values = np.random.default_rng([seed, *parameter.shape]).standard_normal(parameter.shape).astype(F)
    parameter.table = kernels.table(values)
    return values


@given(new=st.integers(0, 3), data=st.data())
def test_rows_are_the_known_ones_then_new_ones_and_changes_on_top(
    kernels: Kernels, new: int, data: st.DataObject
) -> None:
    of = side(USERS, new)
    nums = np.array(data.draw(st.lists(st.integers(0, USERS + new - 1), max_size=8)), np.int64)
    places = st.lists(st.integers(-1, 3), min_size=len(nums), max_size=len(nums))
    at = np.array(data.draw(places), np.int64)
    changes = np.random.default_rng(1).standard_normal((4, RANK)).astype(F)
    every = of.all_rows()
    np.testing.assert_array_equal(every, [*of.rows, *of.added])
    rows = BaseRows(of, kernels)
    np.testing.assert_array_equal(kernels.host(rows.take(nums)), every[nums])
    wanted = every[nums] + np.where(at[:, None] < 0, 0, changes[at])
    found = kernels.host(rows.take(nums, kernels.table(changes), at))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_rows_of_the_base_are_read_and_never_written(kernels: Kernels) -> None:
    of = side(USERS)
    for array in (of.rows, of.added, of.biases):
        array.flags.writeable = False
    taken = BaseRows(of, kernels).take(np.array([0, 8]))
    kernels.add_rows(taken, kernels.table(np.ones((2, RANK), F)), np.arange(2))
    np.testing.assert_array_equal(kernels.host(BaseRows(of, kernels).take(np.array([0, 8]))), of.all_rows()[[0, 8]])


def test_a_base_says_what_it_consists_of() -> None:
    of = base_of()
    assert (len(of.users), len(of.items), of.rank) == (USERS + NEW, ITEMS + NEW, RANK)
    assert of.parameters == (USERS + ITEMS) * RANK + USERS + ITEMS + 1
    bare = Base(*(dataclasses.replace(one, biases=0 * one.biases) for one in (of.users, of.items)), 0.0)
    assert bare.parameters == (USERS + ITEMS) * RANK
    assert not bare.biased
    assert dataclasses.replace(bare, level=0.1).biased
    assert dataclasses.replace(bare, items=of.items).biased
    assert dataclasses.replace(bare, users=of.users).biased
    assert dataclasses.replace(bare, users=of.users).parameters == (USERS + ITEMS) * RANK + USERS
    assert side(USERS, 0).all_rows().shape == (USERS, RANK)


def test_frozen_rows_are_the_base_s_and_have_no_gradients(kernels: Kernels) -> None:
    of, nums = side(USERS), np.array([8, 0, 3])
    rows = FrozenRows(of, kernels)
    np.testing.assert_array_equal(kernels.host(rows.take(nums)), of.all_rows()[nums])
    assert rows.gradients(nums, kernels.zeros(3, RANK)) == ()


def test_some_numbers_have_a_place_and_others_none() -> None:
    some = Some(side(USERS), np.array([1, 4, 8]))
    assert some.at(np.array([8, 0, 1, 4, 4, 7])).tolist() == [2, -1, 0, 1, 1, -1]
    assert Some(side(USERS), np.zeros(0, np.int64)).at(np.arange(3)).tolist() == [-1] * 3


@pytest.mark.parametrize("at", [[2, 0], [-1, 2, -1, 0], [-1, -1], []])
def test_gradients_are_those_of_rows_that_have_a_parameter(at: list[int], kernels: Kernels) -> None:
    parameter = Parameter.zeros(3, RANK, kernels)
    gain = np.random.default_rng(0).standard_normal((len(at), RANK)).astype(F)
    found = gradient_of(parameter, np.array(at, np.int64), kernels.table(gain), kernels)
    assert found.parameter is parameter
    assert found.nums is not None
    assert found.nums.tolist() == [place for place in at if place >= 0]
    np.testing.assert_array_equal(kernels.host(found.table), gain[np.array(at, np.int64) >= 0])


def biases_of(base: Base, kernels: Kernels) -> tuple[TrainedBiases, dict[str, Floats]]:
    biases = TrainedBiases(base, kernels, NUMS)
    return biases, {name: randomised(parameter, kernels) for name, parameter in biases.parameters.items()}


def test_biases_are_the_base_s_and_what_was_trained(kernels: Kernels) -> None:
    of = base_of()
    users, items = np.array([8, 0, 5, 1]), np.array([7, 1, 3])
    for trained in (None, NUMS):  # which start at zero
        b_u, b_v, b = TrainedBiases(of, kernels, trained).take(users, items)
        np.testing.assert_array_equal(b_u, of.users.biases[users])
        np.testing.assert_array_equal(b_v, of.items.biases[items])
        assert b == 0.75
    biases, values = biases_of(of, kernels)
    assert {name: value.shape for name, value in values.items()} == {"b_u": (4, 1), "b_v": (3, 1), "b": (1, 1)}
    wanted = [of.users.biases.copy(), of.items.biases.copy()]
    for known, nums, name in zip(wanted, NUMS, ("b_u", "b_v"), strict=True):
        known[nums] += values[name][:, 0]
    b_u, b_v, b = biases.take(users, items)
    np.testing.assert_allclose(b_u, wanted[0][users], rtol=1e-6)
    np.testing.assert_allclose(b_v, wanted[1][items], rtol=1e-6)
    assert b == pytest.approx(0.75 + float(values["b"][0, 0]))
    assert (b_u.dtype, b_v.dtype) == (F, F)


def test_gradients_of_biases_are_the_sums_of_their_pairs(kernels: Kernels) -> None:
    biases, _ = biases_of(base_of(), kernels)
    users, items = np.array([0, 1, 5, 8]), np.array([1, 3])
    gains = np.array([0.5, -1, 2, 4], F), np.array([3, -7], F)
    found = biases.gradients(users, items, (*gains, 11.0))
    names = {id(parameter): name for name, parameter in biases.parameters.items()}
    by_name = {names[id(one.parameter)]: one for one in found}
    assert [names[id(one.parameter)] for one in found] == ["b_u", "b_v", "b"]
    expected: dict[str, tuple[list[int] | None, list[float]]] = {
        "b_u": ([0, 2, 3], [-1, 2, 4]),
        "b_v": ([1], [-7]),
        "b": (None, [11]),
    }
    for name, (nums, sums) in expected.items():
        at = by_name[name].nums
        assert (None if at is None else at.tolist()) == nums
        assert kernels.host(by_name[name].table).tolist() == [[value] for value in sums]
    frozen = TrainedBiases(base_of(), kernels, None)
    assert frozen.gradients(users, items, (*gains, 11.0)) == []
    assert frozen.parameters == {}


def learner_of(kernels: Kernels, seed: int = 0) -> Learner:
    of, rng = base_of(), np.random.default_rng(seed)
    parameters = {
        name: Parameter.of(rng.standard_normal(shape).astype(F), kernels)
        for name, shape in (("A", (4, 2)), ("B", (2, 3)))
    }
    constants: dict[str, NDArray[np.int64]] = {"users": np.arange(3)}
    sides = FrozenRows(of.users, kernels), FrozenRows(of.items, kernels)
    return Learner(*sides, TrainedBiases(of, kernels, None), parameters, constants)


def test_a_learner_is_put_back_into_a_state(kernels: Kernels) -> None:
    learner, other = learner_of(kernels, 0), learner_of(kernels, 1)
    assert learner.size == 14
    state = learner.state(kernels)
    kept = {name: array.copy() for name, array in state.items()}
    other.restore(state, kernels)
    for name, array in other.state(kernels).items():
        assert array.tobytes() == kept[name].tobytes()
    for parameter in (*other.parameters.values(), *learner.parameters.values()):
        randomised(parameter, kernels)
        kernels.add_rows(parameter.table, kernels.table(np.ones(parameter.shape, F)), np.arange(parameter.shape[0]))
    for name, array in state.items():  # which is a copy, both ways
        assert array.tobytes() == kept[name].tobytes()
    other.restore({**state, "losses": np.zeros(3)}, kernels)  # as from a checkpoint
    kernels.add_rows(other.parameters["A"].table, kernels.table(np.ones((4, 2), F)), np.arange(4))
    assert state["A"].tobytes() == kept["A"].tobytes()
    arrays = learner.arrays(kernels)
    assert arrays.keys() == {"A", "B", "users"}
    assert arrays["users"].tolist() == [0, 1, 2]
