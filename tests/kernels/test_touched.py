"""What training a few rows at a time needs, against float64 NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recli.kernels import load
from recli.kernels.cpu.pool import Pool
from recli.kernels.spec import Kernels, Rule

RANKS = (1, 3, 16, 17, 130)
F = np.float32


def rows(n: int, rank: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, rank)).astype(F)


@pytest.mark.parametrize("rank", RANKS)
def test_rows_are_taken_with_their_changes(kernels: Kernels, rank: int) -> None:
    X, D = rows(20, rank), rows(4, rank, 1)
    nums, at = np.array([3, -1, 19, 3, 0, -1]), np.array([0, 1, -1, 3, -1, -1])
    expected = np.where(nums[:, None] < 0, 0, X[nums]) + np.where(at[:, None] < 0, 0, D[at])
    for source in (X, kernels.table(X), kernels.view(X)):
        taken = kernels.take(source, nums, kernels.table(D), at)
        np.testing.assert_allclose(kernels.host(taken), expected, rtol=1e-6)
        plain = kernels.host(kernels.take(source, nums))
        np.testing.assert_array_equal(plain, np.where(nums[:, None] < 0, 0, X[nums]).astype(F))


@pytest.mark.parametrize("rank", RANKS)
def test_rows_and_products_are_added(kernels: Kernels, rank: int) -> None:
    X, Y, A = rows(9, rank), rows(5, rank, 1), rows(9, 4, 2)
    C = np.random.default_rng(3).standard_normal((4, rank))
    nums = np.array([4, -1, 0, 0, 1, 2, -1, 3, 4])
    table = kernels.take(X, np.arange(9))
    kernels.add_rows(table, kernels.table(Y), nums, -0.5)
    kernels.add_product(table, kernels.table(A), C)
    expected = X - 0.5 * np.where(nums[:, None] < 0, 0, Y[nums]) + A @ C
    np.testing.assert_allclose(kernels.host(table), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("pairs", [0, 1, 700])
def test_dots_and_gradients_of_pairs(kernels: Kernels, rank: int, pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    X, Y = rows(30, rank), rows(11, rank, 1)
    user_at, item_at = (rng.integers(n, size=pairs).astype(np.int32) for n in (30, 11))
    slopes = rng.standard_normal(pairs).astype(F)
    users, items = kernels.take(X, np.arange(30)), kernels.table(Y)
    x, y = X.astype(float), Y.astype(float)
    dots = np.einsum("nr,nr->n", x[user_at], y[item_at])
    scale = 1e-5 * max(1.0, float(np.abs(x).max() * np.abs(y).max()) * rank)
    np.testing.assert_allclose(kernels.pair_dots(users, items, user_at, item_at), dots, atol=scale)
    gains = np.zeros((30, rank)), np.zeros((11, rank))
    np.add.at(gains[0], user_at, slopes[:, None] * y[item_at])
    np.add.at(gains[1], item_at, slopes[:, None] * x[user_at])
    for found, expected in zip(kernels.pair_gradients(users, items, user_at, item_at, slopes), gains, strict=True):
        np.testing.assert_allclose(kernels.host(found), expected, atol=1e-4 * max(1.0, np.abs(expected).max()))


RULES = {
    "sgd": Rule("sgd", 0.1),
    "momentum": Rule("sgd", 0.1, 0.9, l2=0.3),
    "momentum, l1": Rule("sgd", 0.1, 0.8, l1=0.4),
    "sgd, l1": Rule("sgd", 0.1, l1=0.4),
    "adagrad": Rule("adagrad", 0.05, l1=0.4),
    "adam": Rule("adam", 0.01, 0.9, 0.999, step=3, scale=0.5),
    "adam, large epsilon": Rule("adam", 0.01, 0.9, 0.99, epsilon=0.1, step=2),
    "adagrad, large epsilon": Rule("adagrad", 0.05, epsilon=0.1),
    "adamw": Rule("adam", 0.01, 0.9, 0.999, decay=0.2, l1=0.1, l2=0.1, step=1),
}


def stepped(rule: Rule, p: Any, moments: list[Any], g: Any) -> tuple[Any, list[Any]]:
    """One row's step in float64, as spec.Rule says."""
    g = rule.scale * g + rule.l2 * p
    p = p * (1 - rule.rate * rule.decay)
    if rule.kind == "sgd":
        if moments:
            moments = [rule.beta1 * moments[0] + g]
        p = p - rule.rate * (moments[0] if moments else g)
    elif rule.kind == "adagrad":
        moments = [moments[0] + g * g]
        p = p - rule.rate * g / (np.sqrt(moments[0]) + rule.epsilon)
    else:
        moments = [rule.beta1 * moments[0] + (1 - rule.beta1) * g, rule.beta2 * moments[1] + (1 - rule.beta2) * g * g]
        first, second = moments[0] / (1 - rule.beta1**rule.step), moments[1] / (1 - rule.beta2**rule.step)
        p = p - rule.rate * first / (np.sqrt(second) + rule.epsilon)
    shrink = rule.rate * rule.l1 / (1 - rule.beta1 if rule.kind == "sgd" else 1)
    return np.sign(p) * np.maximum(np.abs(p) - shrink, 0), moments


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("some", [True, False])
def test_steps_follow_their_rule_on_the_rows_of_a_batch_alone(
    kernels: Kernels, name: str, rank: int, some: bool
) -> None:
    rule = RULES[name]
    p, start = rows(7, rank), [np.abs(rows(7, rank, 2 + n)) for n in range(rule.moments)]
    nums = np.array([5, 0, 2]) if some else None
    at = np.arange(7) if nums is None else nums
    g = rows(len(at), rank, 1)
    parameter, moments = kernels.table(p), [kernels.table(m) for m in start]
    kernels.step(rule, parameter, moments, nums, kernels.take(g, np.arange(len(g))))
    expected, kept = stepped(rule, p[at].astype(float), [m[at].astype(float) for m in start], g.astype(float))
    for table, before, after in zip((parameter, *moments), (p, *start), (expected, *kept), strict=True):
        found = kernels.host(table)
        np.testing.assert_allclose(found[at], after, rtol=2e-5, atol=2e-6)
        others = np.setdiff1d(np.arange(7), at)
        np.testing.assert_array_equal(found[others], before[others])


def test_a_proximal_step_stops_at_zero(kernels: Kernels) -> None:
    parameter = kernels.table(np.array([[0.05, -0.05, 2.0]], F))
    kernels.step(Rule("sgd", 1.0, l1=0.1), parameter, [], None, kernels.table(np.zeros((1, 3), F)))
    np.testing.assert_allclose(kernels.host(parameter), [[0, 0, 1.9]], rtol=1e-6)


def test_zeros_are_zero_and_can_be_stepped(kernels: Kernels) -> None:
    table = kernels.zeros(5, 3)
    assert not kernels.host(table).any()
    kernels.step(Rule("sgd", 1.0), table, [], np.array([4]), kernels.table(np.ones((1, 3), F)))
    np.testing.assert_array_equal(kernels.host(table), [[0] * 3] * 4 + [[-1] * 3])


def test_the_same_bits_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    X, Y = rows(3000, 33), rows(2000, 33, 1)
    user_at, item_at = (rng.integers(n, size=20_000).astype(np.int32) for n in (3000, 2000))
    slopes, found = rng.standard_normal(20_000).astype(F), []
    for threads in (1, 2, 3):
        with load("cpu", threads) as kernels:
            users, items = kernels.take(X, np.arange(3000)), kernels.take(Y, np.arange(2000))
            dots = kernels.pair_dots(users, items, user_at, item_at)
            gains = kernels.pair_gradients(users, items, user_at, item_at, slopes)
            parameter, moments = kernels.table(X), [kernels.zeros(3000, 33) for _ in range(2)]
            kernels.step(RULES["adamw"], parameter, moments, None, gains[0])
            found.append([dots, *(kernels.host(one) for one in (*gains, parameter, *moments))])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_pool_lends_no_memory_that_is_in_use(steps: list[tuple[int, int, bool]]) -> None:
    pool, held = Pool(), list[tuple[Any, int]]()
    for number, (n, rank, back) in enumerate(steps):
        if back and held:
            array, value = held.pop(number % len(held))
            assert (array == value).all()
            pool.give_back(array)
        else:
            array = pool.empty(n, rank)
            assert array.shape == (n, rank)
            array[:] = number
            held.append((array, number))
    for array, value in held:
        assert (array == value).all()
