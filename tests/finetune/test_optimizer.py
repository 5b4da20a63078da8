"""Learning rates over time, clipping, what stays untouched, and the minima that each optimizer ends in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recli.config import FinetuneConfig
from recli.finetune.optimizer import BETAS, DECAY_OF_ADAMW, RATES, Gradient, Optimizer, Parameter
from recli.kernels import load
from recli.kernels.reference import ReferenceKernels
from recli.kernels.spec import Floats, Kernels

F = np.float32
STEADY: dict[str, Any] = {"schedule": "constant", "warm_up": 0.0}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1},
    "momentum": {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.02},
    "adagrad": {"optimizer": "adagrad", "learning_rate": 0.5},
    "adam": {"optimizer": "adam", "learning_rate": 0.02},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.02},
}


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 1) as kernels:
        yield kernels


def optimizer_of(steps: int, kernels: Kernels | None = None, **settings: Any) -> Optimizer:
    return Optimizer(FinetuneConfig(**settings), steps, kernels or ReferenceKernels())


def rates(steps: int, **settings: Any) -> list[float]:
    optimizer, found = optimizer_of(steps, **settings), []
    for done in range(steps):
        optimizer.done = done
        found.append(optimizer.rate)
    return found


def test_rates_rise_in_the_warm_up_and_fall_as_scheduled() -> None:
    warm: dict[str, Any] = {"learning_rate": 0.8, "warm_up": 0.2}
    rising = [0.4, 0.8]  # of ten steps two
    assert rates(10, schedule="constant", **warm) == pytest.approx(rising + 8 * [0.8])
    assert rates(10, schedule="linear", **warm) == pytest.approx(rising + [0.8 * left / 8 for left in range(8, 0, -1)])
    cosine = [0.4 * (1 + np.cos(np.pi * done / 8)) for done in range(8)]
    assert cosine[4] == pytest.approx(0.4)
    assert rates(10, schedule="cosine", **warm) == pytest.approx(rising + cosine)


def test_rates_without_a_warm_up_start_at_the_highest() -> None:
    assert rates(4, schedule="linear", learning_rate=1.0, warm_up=0.0) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(4, schedule="linear", learning_rate=1.0, warm_up=1.0) == pytest.approx([0.25, 0.5, 0.75, 1])
    assert rates(1, learning_rate=1.0) == pytest.approx([1])
    assert optimizer_of(0, learning_rate=1.0).rate == pytest.approx(1)  # there is nothing to train


@pytest.mark.parametrize("name", RATES)
def test_where_no_rate_is_given_there_is_one_for_each_optimizer(name: str) -> None:
    assert rates(3, optimizer=name, **STEADY) == [RATES[name]] * 3
    assert rates(3, optimizer=name, learning_rate=0.7, **STEADY) == [0.7] * 3


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@given(st.integers(1, 60), st.floats(0, 1))
def test_rates_reach_the_highest_and_never_rise_after_the_warm_up(schedule: str, steps: int, warm_up: float) -> None:
    found = np.array(rates(steps, schedule=schedule, learning_rate=1.0, warm_up=warm_up))
    warm = int(warm_up * steps)  # whole steps
    assert found.min() > 0
    assert found.max() == 1
    assert (np.diff(found[:warm]) > 0).all()
    assert (np.diff(found[warm:]) <= 0).all()


def one_step(settings: dict[str, Any], gradients: list[Floats], kernels: Kernels) -> list[Floats]:
    """By how much parameters at one move."""
    optimizer = optimizer_of(1, kernels, **settings)
    parameters = [Parameter.of(np.ones_like(one), kernels) for one in gradients]
    optimizer.prepare(parameters)
    optimizer.step([Gradient(p, None, kernels.table(g)) for p, g in zip(parameters, gradients, strict=True)])
    assert optimizer.done == 1
    return [kernels.host(parameter.table) - 1 for parameter in parameters]


def test_the_gradients_of_all_parameters_are_clipped_together(cpu: Kernels) -> None:
    """Of length 13 as a whole, 5 and 12 apart."""
    gradients = [np.array([[3, 0], [0, 4]], F), np.array([[12]], F)]
    plain = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.5, **STEADY}
    for clip, scale in ((None, 1), (13.5, 1), (13.0, 1), (6.5, 0.5), (0.13, 0.01)):
        moves = one_step({**plain, "clip": clip}, gradients, cpu)
        for move, gradient in zip(moves, gradients, strict=True):
            np.testing.assert_allclose(move, -0.5 * scale * gradient, rtol=1e-4, atol=1e-7)
    for move in one_step({**plain, "clip": 1.0}, [np.zeros((2, 2), F)], cpu):
        assert not move.any()


def test_what_pulls_towards_nothing_is_not_clipped(cpu: Kernels) -> None:
    plain = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.5, **STEADY}
    (move,) = one_step({**plain, "clip": 1.0, "l2": 0.25}, [np.array([[10.0]], F)], cpu)
    np.testing.assert_allclose(move, -0.5 * (1 + 0.25), rtol=1e-6)


def test_adamw_decays_and_adam_does_not(cpu: Kernels) -> None:
    none = [np.zeros((2, 3), F)]
    for name, given_, expected in (
        ("adam", 0.0, 0.0),
        ("adam", 0.2, 0.2),
        ("adamw", 0.0, DECAY_OF_ADAMW),
        ("adamw", 0.2, 0.2),
        ("sgd", 0.0, 0.0),
    ):
        (move,) = one_step({"optimizer": name, "decay": given_, "learning_rate": 0.5, **STEADY}, none, cpu)
        np.testing.assert_allclose(move, -0.5 * expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("name", "moments"), [("sgd", 0), ("momentum", 1), ("adagrad", 1), ("adam", 2), ("adamw", 2)])
def test_parameters_have_the_moments_of_their_optimizer(name: str, moments: int, cpu: Kernels) -> None:
    parameters = [Parameter.zeros(3, 2, cpu), Parameter.of(np.ones((1, 5), F), cpu)]
    optimizer_of(1, cpu, **OPTIMIZERS[name]).prepare(parameters)
    for parameter in parameters:
        assert [cpu.host(moment).shape for moment in parameter.moments] == [parameter.shape] * moments
        assert not any(cpu.host(moment).any() for moment in parameter.moments)
    assert [parameter.size for parameter in parameters] == [6, 5]


def test_adam_corrects_its_moments_for_the_steps_taken(cpu: Kernels) -> None:
    """Under equal gradients every step is as long as the rate, from the first one on."""
    optimizer, parameter = (
        optimizer_of(9, cpu, optimizer="adam", learning_rate=0.01, **STEADY),
        Parameter.zeros(1, 2, cpu),
    )
    optimizer.prepare([parameter])
    for step in range(1, 6):
        optimizer.step([Gradient(parameter, None, cpu.table(np.array([[5, -1e-3]], F)))])
        np.testing.assert_allclose(cpu.host(parameter.table), [[-0.01 * step, 0.01 * step]], rtol=1e-4)
    assert BETAS == (0.9, 0.999)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_that_no_batch_touches_stay_bit_for_bit(name: str, cpu: Kernels) -> None:
    """Nothing pulls at them either, and those of earlier batches do not roll on."""
    start = np.random.default_rng(0).standard_normal((6, 3)).astype(F)
    optimizer, parameter = optimizer_of(9, cpu, **OPTIMIZERS[name], l1=0.1, l2=0.1, decay=0.3), Parameter.of(start, cpu)
    other = Parameter.of(start, cpu)
    optimizer.prepare([parameter, other])

    def state() -> list[Floats]:
        return [cpu.host(table) for table in (parameter.table, *parameter.moments)]

    for nums in ([1, 4], [4], [0, 4]):
        before = state()
        optimizer.step([Gradient(parameter, np.array(nums), cpu.table(np.ones((len(nums), 3), F)))])
        others = np.setdiff1d(np.arange(6), nums)
        for table, known in zip(state(), before, strict=True):
            assert table[others].tobytes() == known[others].tobytes()
            assert (table[nums] != known[nums]).all()
    np.testing.assert_array_equal(cpu.host(parameter.table)[[2, 3, 5]], start[[2, 3, 5]])
    np.testing.assert_array_equal(cpu.host(other.table), start)


TARGET = np.array([[2.0, -0.5, 0.1], [-3.0, 0.0, 1.0]])
CURVES = np.array([[1.0, 2.0, 4.0], [0.5, 1.0, 3.0]])


def minimum(settings: dict[str, Any], kernels: Kernels, steps: int = 1500) -> NDArray[np.float64]:
    """Where the sum of curve (x - target)^2 / 2 is left, starting from ones."""
    optimizer, parameter = optimizer_of(steps, kernels, **settings), Parameter.of(np.ones(TARGET.shape, F), kernels)
    optimizer.prepare([parameter])
    for _ in range(steps):
        gradient = CURVES * (kernels.host(parameter.table) - TARGET)
        optimizer.step([Gradient(parameter, None, kernels.table(gradient.astype(F)))])
    return kernels.host(parameter.table).astype(float)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_ends_in_the_minimum(name: str, schedule: str, cpu: Kernels) -> None:
    decay = {"decay": 1e-9} if name == "adamw" else {}  # which moves the minimum
    found = minimum({**OPTIMIZERS[name], **decay, "schedule": schedule}, cpu)
    np.testing.assert_allclose(found, TARGET, atol=2e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_l2_ends_in_the_minimum_with_a_squared_penalty(name: str, cpu: Kernels) -> None:
    decay = {"decay": 1e-9} if name == "adamw" else {}
    found = minimum({**OPTIMIZERS[name], **decay, "l2": 0.7}, cpu)
    np.testing.assert_allclose(found, CURVES * TARGET / (CURVES + 0.7), atol=2e-3)


def test_of_plain_steps_decay_is_the_same_as_l2(cpu: Kernels) -> None:
    found = minimum({**OPTIMIZERS["sgd"], "decay": 0.7}, cpu)
    np.testing.assert_allclose(found, CURVES * TARGET / (CURVES + 0.7), atol=2e-3)


@pytest.mark.parametrize("name", ["sgd", "momentum"])
@pytest.mark.parametrize("l1", [0.3, 1.2])
def test_l1_ends_in_the_soft_threshold(l1: float, name: str, cpu: Kernels) -> None:
    """Small targets are exactly zero, the others less by l1 over their curve, with a momentum of 0.9, too."""
    found = minimum({**OPTIMIZERS[name], "l1": l1}, cpu)
    expected = np.sign(TARGET) * np.maximum(np.abs(TARGET) - l1 / CURVES, 0)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_array_equal(found == 0, expected == 0)
    assert 0 < (found == 0).sum() < found.size


def test_a_momentum_that_forgets_nothing_has_an_l1(cpu: Kernels) -> None:
    (move,) = one_step(
        {"optimizer": "sgd", "momentum": 1.0, "learning_rate": 0.5, "l1": 0.2, **STEADY}, [np.zeros((1, 2), F)], cpu
    )
    np.testing.assert_allclose(move, -0.1, rtol=1e-6)


@pytest.mark.parametrize("name", ["adagrad", "adam", "adamw"])
def test_l1_makes_exact_zeros_under_every_optimizer(name: str, cpu: Kernels) -> None:
    found, weaker = (minimum({**OPTIMIZERS[name], "l1": l1}, cpu) for l1 in (0.5, 0.0))
    assert found[1, 1] == 0 != weaker[1, 1]
    assert np.abs(found).sum() < np.abs(weaker).sum()
