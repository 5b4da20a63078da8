"""bilinear and scale: a matrix between users and items, p^T M q."""

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
from recli.finetune.bilinear import BilinearRows, ScaledRows, apply_bilinear, bilinear_learner, scale_learner
from recli.finetune.tables import Tables
from recli.kernels import load
from recli.kernels.spec import Kernels
from tests.finetune.test_learner import NUMS, RANK, base_of, randomised
from tests.finetune.test_loop import BASE, found, planted, scores_of
from tests.finetune.test_rows import assert_same, tables_of, tables_of_learner

F = np.float32
LEARNERS = {"bilinear": bilinear_learner, "scale": scale_learner}


@pytest.fixture(scope="module", params=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 1) as backend:
        yield backend


def matrix_of(values: Arrays) -> NDArray[np.float64]:
    """M, as the formulas have it."""
    if "m" in values:
        return np.diag(1 + values["m"][0].astype(float))
    return np.eye(RANK) + values["A"].astype(float) @ values["B"].astype(float).T


def scores(of: Tables) -> NDArray[np.float64]:
    return np.asarray(of.P.astype(float) @ of.Q.T + of.b_u[:, None] + of.b_v + float(of.b))


@pytest.mark.parametrize("rank", [1, 2, RANK])
@pytest.mark.parametrize("adapter", LEARNERS)
def test_a_matrix_is_between_users_and_items(adapter: str, rank: int, kernels: Kernels) -> None:
    """In training and in the model that is made of what is stored, for known ids and new ones."""
    base = base_of()
    learner = LEARNERS[adapter](base, NUMS, FinetuneConfig(adapter=adapter, rank=rank), kernels)
    before = tables_of(base)
    assert_same(tables_of_learner(learner, kernels), before, 0)  # it starts at the base, bit for bit
    values = {name: randomised(one, kernels, seed) for seed, (name, one) in enumerate(learner.parameters.items())}
    applied, trained = apply_bilinear(learner.arrays(kernels), before), tables_of_learner(learner, kernels)
    assert_same(applied, trained, 1e-5)
    assert_same(before, tables_of(base), 0)
    M = matrix_of(values)
    assert np.abs(M - np.eye(RANK)).max() > 0.5
    wanted = before.P.astype(float) @ M @ before.Q.T + before.b_u[:, None] + before.b_v + float(before.b)
    np.testing.assert_allclose(scores(applied), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(applied.P, before.P)  # items have it, so that users folded in later meet it
    for name in ("b_u", "b_v", "b"):
        np.testing.assert_array_equal(getattr(applied, name), getattr(before, name))


def test_parameters_are_as_many_as_the_matrix_has(kernels: Kernels) -> None:
    learner = bilinear_learner(base_of(), NUMS, FinetuneConfig(rank=2), kernels)
    state = learner.state(kernels)
    assert {name: array.shape for name, array in state.items()} == {"A": (RANK, 2), "B": (RANK, 2)}
    assert learner.size == 4 * RANK
    assert learner.arrays(kernels).keys() == {"A", "B"}  # it is of no rows: nothing says which
    assert not state["A"].any()
    np.testing.assert_allclose(state["B"].astype(float).T @ state["B"], np.eye(2), atol=1e-6)
    seeds = [bilinear_learner(base_of(), NUMS, FinetuneConfig(rank=2, seed=s), kernels).state(kernels) for s in (0, 1)]
    np.testing.assert_array_equal(seeds[0]["B"], state["B"])
    assert np.abs(seeds[1]["B"] - state["B"]).max() > 0.1
    scale = scale_learner(base_of(), NUMS, FinetuneConfig(rank=2), kernels)
    assert scale.size == RANK
    np.testing.assert_array_equal(scale.arrays(kernels)["m"], np.zeros((1, RANK), F))


def test_rows_of_a_batch_come_in_its_order(kernels: Kernels) -> None:
    base, batch = base_of(), np.array([7, 0, 5])
    rng = np.random.default_rng(0)
    bilinear, scaled = BilinearRows(base, 2, rng, kernels), ScaledRows(base, kernels)
    values: Arrays = {"A": randomised(bilinear.left, kernels, 1), "B": randomised(bilinear.right, kernels, 2)}
    rows = base.items.all_rows()[batch].astype(float)
    np.testing.assert_allclose(kernels.host(bilinear.take(batch)), rows @ matrix_of(values).T, rtol=1e-5, atol=1e-5)
    m = randomised(scaled.parameter, kernels, 3)
    np.testing.assert_allclose(kernels.host(scaled.take(batch)), rows * (1 + m), rtol=1e-5, atol=1e-6)


def test_the_first_gradients_reach_one_factor_alone(kernels: Kernels) -> None:
    """That of A is the sum of gain (q B)^T; that of B is zero as long as A is."""
    base, batch = base_of(), np.array([7, 0, 5])
    rows = BilinearRows(base, 2, np.random.default_rng(0), kernels)
    rows.take(batch)
    gain = np.random.default_rng(1).standard_normal((3, RANK)).astype(F)
    left, right = rows.gradients(batch, kernels.table(gain))
    assert (left.parameter, right.parameter, left.nums, right.nums) == (rows.left, rows.right, None, None)
    q, B = base.items.all_rows()[batch].astype(float), kernels.host(rows.right.table).astype(float)
    np.testing.assert_allclose(kernels.host(left.table), gain.T @ (q @ B), rtol=1e-4, atol=1e-5)
    assert not kernels.host(right.table).any()


def test_a_rank_above_the_base_s_is_refused(kernels: Kernels) -> None:
    with pytest.raises(DataError, match="--rank 6: the model has rank 5: give at most that"):
        bilinear_learner(base_of(), NUMS, FinetuneConfig(rank=RANK + 1), kernels)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"m": np.zeros(RANK, F)}, "array m: expected float32[1, 5], found float32[5]"),
        ({"m": np.zeros((1, RANK + 1), F)}, "array m: expected float32[1, 5], found float32[1, 6]"),
        ({"m": np.zeros((1, RANK))}, "array m: expected float32[1, 5], found float64[1, 5]"),
        ({"m": np.full((1, RANK), np.nan, F)}, "array m: expected finite numbers"),
        ({"A": np.zeros((2, RANK), F)}, "array A: expected float32[5, 5], found float32[2, 5]"),
        ({"A": np.zeros(RANK, F)}, "array A: expected float32[5, -1], found float32[5]"),
        ({"A": np.zeros((RANK, 3), F)}, "array B: expected float32[5, 3], found float32[5, 2]"),
        ({"B": np.zeros((RANK, 2))}, "array B: expected float32[5, 2], found float64[5, 2]"),
        ({"B": np.full((RANK, 2), np.inf, F)}, "array B: expected finite numbers"),
    ],
)
def test_parts_that_do_not_fit_are_refused(arrays: dict[str, NDArray[Any]], message: str) -> None:
    known: Arrays = {"A": np.zeros((RANK, 2), F), "B": np.zeros((RANK, 2), F)}
    assert_same(apply_bilinear(known, tables_of(base_of())), tables_of(base_of()), 0)
    with pytest.raises(DataError, match=re.escape(message)):
        apply_bilinear({**known, **arrays}, tables_of(base_of()))


def test_bilinear_finds_the_matrix_between_users_and_items(kernels: Kernels) -> None:
    rank = BASE[0].shape[1]
    M = np.eye(rank) + 2 * planted(rank, 2) @ planted(2, rank)
    state = found(kernels, "bilinear", scores_of(BASE[0] @ M, BASE[1]), epochs=100).state()
    np.testing.assert_allclose(np.eye(rank) + state["A"].astype(float) @ state["B"].T, M, atol=0.01)


def test_scale_finds_the_diagonal(kernels: Kernels) -> None:
    m = np.array([0.3, 1.0, 1.6, -0.2])
    run = found(kernels, "scale", scores_of(BASE[0] * m, BASE[1]))
    np.testing.assert_allclose(1 + run.state()["m"][0], m, atol=0.01)
