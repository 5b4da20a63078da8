"""Closed forms: moves are the minimisers of what closed.py's docstring defines, found here by float64 evaluations of
the objective alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors
from recli.config import FinetuneConfig
from recli.errors import DivergedError
from recli.finetune import NewData, closed
from recli.finetune.closed import ClosedForm, principal, usable
from recli.finetune.solve import form_of
from recli.ids import take_rows
from recli.kernels import load
from recli.kernels.reference import ReferenceKernels
from recli.kernels.spec import Kernels
from recli.score.fold_in import folded_rows
from recli.score.row_problem import settings_of
from tests.finetune.models import ITEMS, SETTINGS, USERS, dense, fitted, new_data

Doubles = NDArray[np.float64]


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 2) as kernels, threadpool_limits(1):  # small products are slower on more
        yield kernels


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many steps as exact rows take."""
    monkeypatch.setattr(closed, "STEPS", 64)
    monkeypatch.setattr(closed, "TOLERANCE", 0.0)


def form(factors: Factors, data: NewData, kernels: Kernels, stay: float | None = None) -> ClosedForm:
    settings = settings_of(factors.provenance.config)
    return form_of(factors, data, settings, FinetuneConfig(stay=stay), kernels)


def old_weights(factors: Factors, data: NewData) -> list[Doubles]:
    """Of each user's and each item's old pairs: of ials, sums of weights."""
    seen = factors.seen
    assert seen is not None
    values = np.ones(len(seen.indices)) if factors.seen_values is None else factors.seen_values.astype(float)
    if factors.provenance.config["solver"] != "ials":
        values = np.ones(len(seen.indices))
    table = np.zeros((data.users, data.items))
    np.add.at(table, (np.repeat(np.arange(len(seen.indptr) - 1), np.diff(seen.indptr)), seen.indices), values)
    return [table.sum(axis=1), table.sum(axis=0)]


class Objective:
    """Of one side's rows: sum_new [w s^2 - 2 t s] + d^T A d, A = (alpha0 + stay n c) Y^T Y + regularization I. tables:
    those that a form has now, start: those that it began with; with a column for biases where the solver has them.
    """

    def __init__(
        self,
        factors: Factors,
        data: NewData,
        side: int,
        stay: float,
        start: list[NDArray[np.float32]],
        tables: list[NDArray[np.float32]],
    ) -> None:
        config = factors.provenance.config
        solver, others = config["solver"], tables[1 - side].astype(float)
        new, counts = dense(data.matrix, data.items), data.counts(factors)
        self.rows, self.new = start[side].astype(float), new.T if side else new
        there, values = ~np.isnan(self.new), np.nan_to_num(self.new)
        levels = [np.zeros(n) for n in (data.users, data.items)]
        levels[0][:USERS], levels[1][:ITEMS] = factors.b_u, factors.b_v
        self.Y = np.column_stack([others[:, :-1], np.ones(len(others))]) if solver == "als" else others
        squares = (self.Y**2).sum(axis=1)
        pairs = counts[1 - side] + there.sum(axis=0)
        c = (pairs @ squares) / pairs.sum() / squares.sum()
        alpha0 = config["alpha0"] if solver == "ials" else 0.0
        self.curvature = (1.0 if solver == "svd" else alpha0) + stay * old_weights(factors, data)[side] * c
        if not alpha0 and solver != "svd":
            self.curvature = np.maximum(self.curvature, 0.01 * c)
        if solver == "svd":
            self.reg = np.full(len(self.new), 1e-6 * squares.mean())
        else:
            self.reg = config["reg"] * (stay * counts[side] + there.sum(axis=1) + alpha0 * len(others)) ** config["nu"]
        if solver == "ials":
            self.w, self.t = values, values + (alpha0 if config["loss"] == "hu" else 0)
        else:
            theirs = others[:, -1] if solver == "als" else levels[1 - side]
            own = 0 if solver == "als" else levels[side][:, None]
            self.w, self.t = np.full_like(values, solver == "als"), values - float(factors.b) - theirs - own
        self.there = there
        self.gram = self.Y.T @ self.Y

    def of(self, row: int) -> Callable[[Doubles], float]:
        y = self.Y[self.there[row]]
        w, t = self.w[row][self.there[row]], self.t[row][self.there[row]]

        def objective(d: Doubles) -> float:
            s = y @ (self.rows[row] + d)
            A = self.curvature[row] * self.gram + self.reg[row] * np.eye(len(d))
            return float((w * s**2 - 2 * t * s).sum() + d @ A @ d)

        return objective

    def minimiser(self, row: int, basis: Doubles | None = None) -> Doubles:
        """Of a quadratic, whose derivatives its values at few points give."""
        width = self.rows.shape[1]
        basis = np.eye(width) if basis is None else basis
        f = self.of(row)
        e = basis
        zero = f(np.zeros(width))
        gradient = np.array([(f(a) - f(-a)) / 2 for a in e])
        hessian = np.array([[(f(a + b) - f(a - b) - f(b - a) + f(-a - b)) / 4 for b in e] for a in e])
        found = np.linalg.solve(hessian, -gradient)
        assert f(found @ basis) <= zero + 1e-9 * abs(zero)
        return np.asarray(found, float)


def expected(objective: Objective, nums: NDArray[np.int64], basis: Doubles | None = None) -> Doubles:
    return np.array([objective.minimiser(row, basis) for row in nums])


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_moves_are_the_minimisers(settings: dict[str, Any], device: str, cpu: Kernels) -> None:
    """Of users; then of items, given the users that have moved; new ones among both; whole, and in a basis."""
    kernels: Kernels = cpu if device == "cpu" else ReferenceKernels()
    factors, data, stay = fitted(cpu, **settings), new_data(), 0.3
    found = form(factors, data, kernels, stay)
    start = [table.copy() for table in found.tables]
    for side in (0, 1):
        objective = Objective(factors, data, side, stay, start, found.tables)
        nums = data.touched[side]
        wanted = expected(objective, nums)
        moves = found.moves(side, nums)
        assert np.abs(wanted).max() > 0.01
        assert moves.shape == (len(nums), start[side].shape[1])
        assert moves.dtype == np.float32
        np.testing.assert_allclose(moves, wanted, atol=2e-4 * np.abs(wanted).max())
        some = nums[::2]  # each row's problem is its own
        np.testing.assert_allclose(found.moves(side, some), wanted[::2], atol=2e-4 * np.abs(wanted).max())
        basis = np.linalg.qr(np.random.default_rng(side).standard_normal((start[side].shape[1], 2)))[0].T
        basis = np.ascontiguousarray(basis, np.float32)
        within = expected(objective, nums, basis.astype(float))
        coefficients = found.moves(side, nums, basis)
        assert coefficients.shape == (len(nums), 2)
        np.testing.assert_allclose(coefficients, within, atol=2e-4 * np.abs(within).max())
        found.move(side, nums, moves)
        np.testing.assert_array_equal(found.tables[side][nums], start[side][nums] + moves)
        untouched = np.setdiff1d(np.arange(len(start[side])), nums)
        np.testing.assert_array_equal(found.tables[side][untouched], start[side][untouched])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_few_steps_are_close_to_the_minimisers(settings: dict[str, Any], cpu: Kernels) -> None:
    """As the program takes them: nearly all of the objective's fall."""
    factors, data, stay = fitted(cpu, **settings), new_data(), 0.05
    found = form(factors, data, cpu)
    objective = Objective(factors, data, 0, stay, found.tables, found.tables)
    nums = data.touched[0]
    for row, move in zip(nums, found.moves(0, nums).astype(float), strict=True):
        f, best = objective.of(row), objective.minimiser(row)
        assert f(move) - f(best) <= 0.05 * (f(0 * best) - f(best)) + 1e-9


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", ["rendle", "rendle, weights, nu", "hu"])
@pytest.mark.parametrize("stay", [0.0, 0.05, 3.0])
def test_new_ids_are_folded_in_as_score_does(name: str, stay: float, cpu: Kernels) -> None:
    """They have no old pairs, so that `stay` says nothing of them."""
    factors, data = fitted(cpu, **SETTINGS[name]), new_data(new=(3, 0))
    new = np.arange(USERS, USERS + 3)
    wanted = folded_rows(factors, take_rows(data.matrix, new, values=True), cpu)
    np.testing.assert_allclose(form(factors, data, cpu, stay).moves(0, new), wanted, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("side", [0, 1])
def test_the_more_old_pairs_count_the_less_rows_move(settings: dict[str, Any], side: int, cpu: Kernels) -> None:
    factors, data = fitted(cpu, **settings), new_data(new=(0, 0))
    nums = data.touched[side]
    nums = nums[data.counts(factors)[side][nums] > 0]
    lengths = []
    for stay in (0.0, 0.05, 1.0, 100.0, 1e7):
        found = form(factors, data, cpu, stay)
        moves = found.moves(side, nums).astype(float)
        Y = found.tables[1 - side].astype(float)
        Y[:, -1] = 1 if found.biased else Y[:, -1]
        lengths.append(np.linalg.norm(moves @ Y.T))  # in what scores see
    assert all(after < before for before, after in itertools.pairwise(lengths))
    assert lengths[-1] < 1e-4 * lengths[0]


def test_new_pairs_without_attributes_may_leave_out_the_last_users(cpu: Kernels) -> None:
    """The matrix ends with the last user who has pairs; users behind it are there for their attributes."""
    factors, data = fitted(cpu, solver="ials"), new_data()
    longer = NewData(data.matrix, data.every, data.users + 4, data.items)
    for side in (0, 1):
        nums = data.touched[side]
        moves = form(factors, longer, cpu).moves(side, nums)
        np.testing.assert_allclose(moves, form(factors, data, cpu).moves(side, nums), atol=2e-2)


def test_no_rows_have_no_moves(cpu: Kernels) -> None:
    found = form(fitted(cpu, solver="ials"), new_data(), cpu)
    none = np.zeros(0, np.int64)
    assert found.moves(0, none).shape == (0, 5)
    assert found.moves(1, none, np.eye(5, dtype=np.float32)[:2]).shape == (0, 2)


def test_what_overflows_is_an_error(cpu: Kernels) -> None:
    factors, data = fitted(cpu, solver="ials"), new_data()
    data = NewData(data.matrix._replace(values=data.matrix.values * np.float32(5e37)), data.every, 63, 42)
    with pytest.raises(DivergedError, match="overflows float32"):
        form(factors, data, cpu).moves(0, data.touched[0])


def test_principal_directions_are_those_of_the_singular_value_decomposition() -> None:
    rng = np.random.default_rng(0)
    moves = (rng.standard_normal((50, 6)) * [5, 4, 3, 2, 1, 0.5]).astype(np.float32)
    found = principal(moves, 3)
    vectors = np.linalg.svd(moves.astype(float))[2][:3]
    assert found.shape == (3, 6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.abs((found * vectors).sum(axis=1)), 1, atol=1e-5)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-6)


def test_which_bases_have_a_closed_form(cpu: Kernels) -> None:
    assert all(usable(settings_of(fitted(cpu, **settings).provenance.config)) for settings in SETTINGS.values())
    degree = fitted(cpu, solver="svd", normalize="degree")
    assert not usable(settings_of(degree.provenance.config))
    assert not usable(settings_of(fitted(cpu, solver="pop").provenance.config))
