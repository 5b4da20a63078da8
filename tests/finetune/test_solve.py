"""Sweeps of closed forms: what they lower, and how rows and lora are related."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors
from recli.config import FinetuneConfig
from recli.finetune import NewData, closed, solve
from recli.finetune.closed import ClosedForm
from recli.finetune.solve import extended, fold_in_new, solve_lora, solve_rows
from recli.ids import take_rows
from recli.kernels import load
from recli.kernels.reference import ReferenceKernels
from recli.kernels.spec import Kernels
from recli.score.fold_in import folded_rows
from recli.score.row_problem import RowProblem
from tests.finetune.models import ITEMS, RANK, SETTINGS, USERS, dense, fitted, new_data, sparse
from tests.finetune.test_closed import Objective, form

KNOWN = USERS, ITEMS
Nums = tuple[NDArray[np.int64], NDArray[np.int64]]


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 2) as kernels, threadpool_limits(1):  # small products are slower on more
        yield kernels


def known(data: NewData) -> Nums:
    users, items = data.touched
    return users[users < USERS], items[items < ITEMS]


def scores(found: ClosedForm, factors: Factors) -> NDArray[np.float64]:
    P, Q = (table.astype(float) for table in found.tables)
    if found.biased:
        return np.asarray(P[:, :-1] @ Q[:, :-1].T + P[:, -1:] + Q[:, -1] + float(factors.b))
    return np.asarray(P @ Q.T)


@pytest.mark.parametrize("name", ["rendle", "als"])
def test_lora_of_full_rank_is_rows(name: str) -> None:
    kernels = ReferenceKernels()
    factors, data = fitted(kernels, **SETTINGS[name]), new_data()
    free, low = (form(factors, data, kernels, 0.2) for _ in range(2))
    solve_rows(free, known(data), KNOWN, data, 2)
    width = RANK + (name == "als")
    found = solve_lora(low, known(data), KNOWN, data, FinetuneConfig(rank=width), 2)
    for side in (0, 1):
        np.testing.assert_allclose(low.tables[side], free.tables[side], atol=5e-4)
    moved = found["A_P"] @ found["B_P"]
    before = form(factors, data, kernels).tables[0][known(data)[0]]
    np.testing.assert_allclose(before + moved, low.tables[0][known(data)[0]], atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3])
def test_lora_moves_known_rows_in_its_directions_alone(rank: int, cpu: Kernels) -> None:
    factors, data = fitted(cpu, solver="ials"), new_data()
    found, start = form(factors, data, cpu), form(factors, data, cpu).tables
    parts = solve_lora(found, known(data), KNOWN, data, FinetuneConfig(rank=rank), 1)
    assert {name: part.shape for name, part in parts.items()} == {
        "A_P": (len(known(data)[0]), rank),
        "B_P": (rank, RANK),
        "A_Q": (len(known(data)[1]), rank),
        "B_Q": (rank, RANK),
    }
    for side, count in enumerate(KNOWN):
        moved = (found.tables[side] - start[side])[:count].astype(float)
        assert (np.linalg.svd(moved)[1] > 1e-5).sum() == rank
        assert np.flatnonzero(moved.any(axis=1)).tolist() == known(data)[side].tolist()
        assert found.tables[side][count:].any(axis=1).all()  # new ones are free


def test_a_sample_of_rows_tells_the_directions(monkeypatch: pytest.MonkeyPatch, cpu: Kernels) -> None:
    """Which ones is up to the seed."""
    monkeypatch.setattr(solve, "BASIS_ROWS", 6)
    factors, data = fitted(cpu, solver="ials"), new_data()
    bases = [
        solve_lora(form(factors, data, cpu), known(data), KNOWN, data, FinetuneConfig(rank=2, seed=seed), 1)["B_P"]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(bases[0], bases[1])
    assert np.abs(bases[0] - bases[2]).max() > 1e-3


def test_with_pairs_of_new_ids_alone_lora_changes_no_known_row(cpu: Kernels) -> None:
    factors, data = fitted(cpu, solver="ials"), new_data()
    keep = np.diff(data.matrix.indptr) * (np.arange(data.users) >= USERS)
    there = np.repeat(np.arange(data.users) >= USERS, np.diff(data.matrix.indptr))
    matrix = data.matrix._replace(
        indptr=np.append(0, np.cumsum(keep)), indices=data.matrix.indices[there], values=data.matrix.values[there]
    )
    none = np.zeros(0, np.int64)
    found = form(factors, few := NewData(matrix, matrix, data.users, data.items), cpu)
    parts = solve_lora(found, (none, none), KNOWN, few, FinetuneConfig(rank=2), 1)
    assert parts["A_P"].shape == parts["A_Q"].shape == (0, 2)
    assert all(np.isfinite(part).all() for part in parts.values())
    np.testing.assert_array_equal(found.tables[0][:USERS], np.asarray(factors.P[:]))
    assert found.tables[0][USERS:].any(axis=1).all()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("how", ["rows", "lora"])
def test_every_sweep_of_every_round_lowers_its_objective(settings: dict[str, Any], how: str) -> None:
    """Known rows start from where the round before has left them; all together, the new pairs end up closer."""
    kernels = ReferenceKernels()
    factors, data, stay = fitted(kernels, **settings), new_data(), 0.2
    found = form(factors, data, kernels, stay)
    start, falls = [table.copy() for table in found.tables], list[float]()
    move = found.move

    def watched(side: int, nums: NDArray[np.int64], moves: NDArray[np.float32]) -> None:
        objective = Objective(factors, data, side, stay, start, found.tables)
        before = found.tables[side].astype(float)
        some = nums[nums < KNOWN[side]]
        at = {int(num): row for row, num in enumerate(nums)}
        falls.append(
            sum(
                objective.of(num)(before[num] - start[side][num]) - objective.of(num)(moves[at[num]].astype(float))
                for num in some.tolist()
            )
        )
        move(side, nums, moves)

    found.move = watched  # type: ignore[method-assign]
    before = fit_of_new(found, factors, data)
    if how == "rows":
        solve_rows(found, known(data), KNOWN, data, 4)
    else:
        solve_lora(found, known(data), KNOWN, data, FinetuneConfig(rank=2), 4)
    assert len(falls) == 8
    assert falls[0] > 0
    assert min(falls) > -1e-5 * falls[0]
    assert sum(falls[2:4]) > sum(falls[6:])  # it settles
    assert fit_of_new(found, factors, data) < before


def fit_of_new(found: ClosedForm, factors: Factors, data: NewData) -> float:
    """The mean squared distance of new pairs' scores from 1, or from ratings."""
    new, solver = dense(data.matrix, data.items), factors.provenance.config["solver"]
    biased = solver == "svd"
    wanted = new if solver == "als" else new * 0 + 1
    s = scores(found, factors)
    if biased:
        levels = np.zeros(new.shape)
        levels[:USERS] += factors.b_u[:, None]
        levels[:, :ITEMS] += factors.b_v
        wanted, s = new, s + levels + float(factors.b)
    return float(np.nanmean((s - wanted) ** 2))


def test_new_users_with_new_items_alone_get_rows(monkeypatch: pytest.MonkeyPatch, cpu: Kernels) -> None:
    """First the new items have no rows, so that such a user has nothing to learn from but after them."""
    monkeypatch.setattr(closed, "STEPS", 64)
    factors, data = fitted(cpu, solver="ials"), new_data()
    values, there = dense(data.matrix, data.items), slice(USERS, USERS + 1)
    values[there] = np.nan
    values[there, ITEMS] = 1
    matrix = sparse(values)
    data = NewData(matrix, matrix, data.users, data.items)
    found = form(factors, data, cpu)
    fold_in_new(found, KNOWN, data)
    P, Q = found.tables
    np.testing.assert_array_equal(P[:USERS], np.asarray(factors.P[:]))
    np.testing.assert_array_equal(Q[:ITEMS], factors.item_factors())
    assert P[USERS:].any(axis=1).all()
    assert Q[ITEMS:].any(axis=1).all()
    assert P[USERS] @ Q[ITEMS] > 0
    users, items = extended(found, KNOWN)
    np.testing.assert_array_equal(users[0], P[USERS:])
    np.testing.assert_array_equal(items[0], Q[ITEMS:])
    assert not users[1].any()
    assert not items[1].any()


def test_biases_of_new_ids_come_with_their_rows_where_the_solver_fits_them(cpu: Kernels) -> None:
    factors, data = fitted(cpu, solver="als"), new_data()
    found = form(factors, data, cpu)
    fold_in_new(found, KNOWN, data)
    users, items = extended(found, KNOWN)
    assert users[0].shape == (3, RANK)
    assert items[0].shape == (2, RANK)
    np.testing.assert_array_equal(users[1], found.tables[0][USERS:, -1])
    assert users[1].all()
    assert items[1].all()


@pytest.mark.parametrize("how", ["rows", "lora"])
def test_new_users_with_new_items_alone_get_rows_in_one_round(how: str, cpu: Kernels) -> None:
    factors, data = fitted(cpu, solver="ials"), new_data()
    new = dense(data.matrix, data.items)
    new[USERS] = np.nan
    new[USERS, ITEMS] = 1
    matrix = sparse(new)
    data = NewData(matrix, matrix, data.users, data.items)
    found = form(factors, data, cpu)
    if how == "rows":
        solve_rows(found, known(data), KNOWN, data, 1)
    else:
        solve_lora(found, known(data), KNOWN, data, FinetuneConfig(rank=2), 1)
    assert all(table[count:].any(axis=1).all() for table, count in zip(found.tables, KNOWN, strict=True))


def test_new_users_of_a_normalised_svd_get_the_levels_that_score_gives_them(cpu: Kernels) -> None:
    factors, data = fitted(cpu, **SETTINGS["svd, bias"]), new_data(new=(3, 0))
    found = form(factors, data, cpu)
    fold_in_new(found, KNOWN, data)
    history = take_rows(data.matrix, np.arange(USERS, USERS + 3), values=True)
    problem = RowProblem(factors)
    np.testing.assert_allclose(found.biases(0)[USERS:], problem.levels(history), atol=1e-5)
    assert np.abs(found.biases(0)[USERS:]).min() > 0
    np.testing.assert_array_equal(found.biases(0)[:USERS], factors.b_u)
    wanted = folded_rows(factors, history, cpu)[:, :RANK]
    np.testing.assert_allclose(found.tables[0][USERS:], wanted, atol=2e-2 * np.abs(wanted).max())
