"""Biases in closed form: the minimisers of their loss, and what that makes of popularity that moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors
from recli.errors import DivergedError
from recli.factorize.svd import ITEM_DAMPING, USER_DAMPING
from recli.finetune import NewData, apply
from recli.finetune.levels import has_levels, sides_of, solve_levels
from recli.finetune.solve import fold_in_new
from recli.kernels import load
from recli.kernels.spec import Kernels
from recli.score.row_problem import settings_of
from tests.finetune.models import ITEMS, SETTINGS, USERS, dense, fitted, new_data, predictions, tuned
from tests.finetune.test_closed import form, old_weights

LEVELS = {name: settings for name, settings in SETTINGS.items() if name != "rendle, nothing unobserved"}
Doubles = NDArray[np.float64]


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 2) as kernels, threadpool_limits(1):  # small products are slower on more
        yield kernels


def known(data: NewData) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    users, items = data.touched
    return users[users < USERS], items[items < ITEMS]


def loss(factors: Factors, data: NewData, r: Doubles, stay: float, shift: Doubles, side: int) -> float:
    """Of the biases of one side, shift float64[rows]. r: [users, items], predictions before the shift."""
    config, counts = factors.provenance.config, data.counts(factors)
    new = dense(data.matrix, data.items)
    there, values = ~np.isnan(new), np.nan_to_num(new)
    r = r + (shift[:, None] if side == 0 else shift)
    n, pairs = counts[side], there.sum(axis=1 - side)
    if config["solver"] == "ials":
        rho = there.sum() / counts[1].sum()
        silence = config["alpha0"] * rho
        t = values + (silence if config["loss"] == "hu" else 0)
        present = there.any(axis=1)
        found = (there * (values * r**2 - 2 * t * r)).sum() + silence * (r[present] ** 2).sum()
        found += (stay * (config["alpha0"] * data.users + old_weights(factors, data)[side]) * shift**2).sum()
    else:
        found = (there * (r - values) ** 2).sum() + (stay * n * shift**2).sum()
    if config["solver"] == "svd":
        return float(found + (USER_DAMPING, ITEM_DAMPING)[side] * (shift**2).sum())
    return float(found + config["reg"] * ((stay * n + pairs) ** config["nu"] * shift**2).sum())


@pytest.mark.parametrize("stay", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("settings", LEVELS.values(), ids=LEVELS)
def test_biases_are_the_minimisers(settings: dict[str, Any], stay: float, cpu: Kernels) -> None:
    """Side by side: of users first, of items given those, where both move."""
    factors, data = fitted(cpu, **settings), new_data(new=(0, 0))
    parts, trained = solve_levels(form(factors, data, cpu, stay), known(data), (USERS, ITEMS), 1)
    r, sizes = predictions(factors), (USERS, ITEMS)
    for side, name in enumerate(("b_u", "b_v")):
        if side not in sides_of(settings_of(factors.provenance.config)):
            assert not len(parts[name])
            continue
        own = known(data)[side]

        def of(moves: Doubles, side: int = side, own: NDArray[np.int64] = own, r: Doubles = r) -> float:
            shift = np.zeros(sizes[side])
            shift[own] = moves
            return loss(factors, data, r, stay, shift, side)

        best = minimize(of, np.zeros(len(own)), method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-15})
        found = parts[name][:, 0].astype(float)
        assert np.abs(found).max() > 1e-3
        assert of(found) <= best.fun + 1e-6 * abs(best.fun)
        np.testing.assert_allclose(found, best.x, atol=2e-3 * np.abs(found).max())
        shift = np.zeros(sizes[side])
        shift[own] = found
        r = r + (shift[:, None] if side == 0 else shift)
    assert trained == len(parts["users"]) + len(parts["items"])
    assert parts["users"].tolist() == (known(data)[0].tolist() if len(parts["b_u"]) else [])
    assert parts["items"].tolist() == known(data)[1].tolist()


def test_rounds_settle_where_both_sides_are_minimisers(cpu: Kernels) -> None:
    factors, data = fitted(cpu, solver="als"), new_data(new=(0, 0))
    some = [
        np.concatenate([parts["b_u"], parts["b_v"]])
        for rounds in (1, 30, 31)
        for parts in [solve_levels(form(factors, data, cpu, 0.2), known(data), (USERS, ITEMS), rounds)[0]]
    ]
    np.testing.assert_allclose(some[1], some[2], atol=1e-4)
    assert np.abs(some[0] - some[1]).max() > 1e-3


def test_an_item_that_is_taken_more_rises_and_one_that_is_left_alone_falls(cpu: Kernels) -> None:
    """Among users who are there; what those who are not there are foretold says nothing."""
    factors = fitted(cpu, solver="ials")
    foretold = predictions(factors)[:30].sum(axis=0)
    order = np.argsort(foretold)
    most, least = int(order[-1]), int(order[0])
    there = np.zeros((USERS, ITEMS), bool)
    there[:30, order[:9]], there[0, most] = True, True
    matrix = new_data(new=(0, 0)).matrix._replace(
        indptr=np.append(0, np.cumsum(there.sum(axis=1))),
        indices=np.nonzero(there)[1].astype(np.int32),
        values=np.ones(there.sum(), np.float32),
    )
    delta, outcome = tuned(factors, NewData(matrix, matrix, USERS, ITEMS), cpu, adapter="bias")
    assert outcome.fit == "closed"
    moved = np.zeros(ITEMS)
    moved[delta.parts["items"]] = delta.parts["b_v"][:, 0]
    assert moved[most] < -0.01 < 0.1 < moved[least]
    assert not delta.parts["users"].size  # a level of a user orders nothing
    np.testing.assert_allclose(apply(factors, delta).b_v, moved, atol=1e-6)


def test_what_is_foretold_moves_nothing(cpu: Kernels) -> None:
    """New pairs whose weights are what the base predicts of all pairs leave it where it is."""
    factors = fitted(cpu, solver="als", reg=1e-6, rank=8)
    data = new_data(new=(0, 0))
    users = np.repeat(np.arange(USERS), np.diff(data.matrix.indptr))
    ratings = predictions(factors)[users, data.matrix.indices].astype(np.float32)
    matrix = data.matrix._replace(values=ratings)
    delta, _ = tuned(factors, NewData(matrix, matrix, USERS, ITEMS), cpu, adapter="bias")
    assert max(np.abs(delta.parts[name]).max() for name in ("b_u", "b_v")) < 1e-5


def test_a_second_delta_of_the_same_data_moves_less(cpu: Kernels) -> None:
    """It sees what the first has moved."""
    factors, data = fitted(cpu, solver="ials"), new_data(new=(0, 0), ones=True)
    first, _ = tuned(factors, data, cpu, adapter="bias")
    second, _ = tuned(apply(factors, first), data, cpu, adapter="bias")
    assert np.linalg.norm(second.parts["b_v"]) < 0.9 * np.linalg.norm(first.parts["b_v"])


def test_rows_after_biases_see_them(cpu: Kernels) -> None:
    """Rows are the minimisers of what the biases leave."""
    factors, data = fitted(cpu, solver="ials"), new_data(new=(0, 0), ones=True)
    raised = dataclasses.replace(factors, b_v=np.full(ITEMS, 0.4, np.float32))
    plain, _ = tuned(factors, data, cpu, adapter="rows")
    beside, _ = tuned(raised, data, cpu, adapter="rows")
    assert np.linalg.norm(beside.parts["P"]) < 0.9 * np.linalg.norm(plain.parts["P"])


def test_new_ids_get_biases_that_are_not_counted(cpu: Kernels) -> None:
    factors, data = fitted(cpu, solver="als"), new_data()
    delta, outcome = tuned(factors, data, cpu, adapter="bias")
    assert delta.parts["users"][-3:].tolist() == [USERS, USERS + 1, USERS + 2]
    assert outcome.trained == sum(map(len, known(data)))
    assert outcome.trained == delta.parts["b_u"].size + delta.parts["b_v"].size - 5


def test_what_overflows_is_an_error(cpu: Kernels) -> None:
    factors, data = fitted(cpu, solver="als"), new_data()
    huge = data.matrix._replace(values=data.matrix.values * np.float32(6e37))
    with pytest.raises(DivergedError, match="overflow"):
        tuned(factors, NewData(huge, huge, data.users, data.items), cpu, adapter="bias", stay=0.0)


def test_which_bases_have_a_closed_form_of_their_biases(cpu: Kernels) -> None:
    assert all(has_levels(settings_of(fitted(cpu, **settings).provenance.config)) for settings in SETTINGS.values())
    assert not has_levels(settings_of(fitted(cpu, solver="svd", normalize="none").provenance.config))


@pytest.mark.parametrize("name", ["als", "svd, bias"])
def test_new_ids_have_in_the_model_the_biases_that_were_solved(name: str, cpu: Kernels) -> None:
    factors, data = fitted(cpu, **SETTINGS[name]), new_data()
    delta, _ = tuned(factors, data, cpu, adapter="bias")
    found = form(factors, data, cpu)
    fold_in_new(found, (USERS, ITEMS), data)
    solve_levels(found, known(data), (USERS, ITEMS), 1)
    model = apply(factors, delta)
    np.testing.assert_allclose(model.b_u, found.biases(0), atol=1e-5)
    np.testing.assert_allclose(model.b_v, found.biases(1), atol=1e-5)
