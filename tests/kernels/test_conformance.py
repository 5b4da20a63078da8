"""Every backend computes what kernels/spec.py says about tables and half-sweeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recli.ids import transpose
from recli.kernels import halves, load
from recli.kernels.cpu import backend
from recli.kernels.spec import Floats, Kernels
from tests.kernels.problems import Problem, problem

RANKS = (1, 3, 16, 17, 64, 130)
TOLERANCE = 1e-4  # of the largest entry of solve fixed^T: spec.py's promise


def assert_solved(of: Problem, product: NDArray[np.float64], relaxation: float = 1.0) -> None:
    """product is X Y^T for the exact rows, relaxed."""
    moved = of.X + relaxation * (of.exact() - of.X)
    moved[np.diff(of.matrix.indptr) == 0] = 0
    expected = moved @ of.Y.astype(float).T
    np.testing.assert_allclose(product, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max(initial=1e-30))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(
    ("alpha0", "shift", "relaxation"), [(0.1, 0.0, 1.0), (0.3, 0.3, 1.4), (0.0, 0.0, 0.5), (0.0, 1.0, 1.9)]
)
def test_enough_steps_solve_every_row(
    kernels: Kernels, rank: int, alpha0: float, shift: float, relaxation: float
) -> None:
    of = problem(rank, alpha0=alpha0, shift=shift)
    product, X, _, stats = of.sweep(kernels, relaxation=relaxation)
    assert_solved(of, product, relaxation)
    assert stats.data == pytest.approx(of.data(of.X), rel=1e-5)
    assert stats.penalty_before == pytest.approx(of.penalty(of.X), rel=1e-5)
    assert stats.penalty_after == pytest.approx(of.penalty(X), rel=1e-5)
    assert not X[np.diff(of.matrix.indptr) == 0].any()


@pytest.mark.parametrize(
    ("lengths", "columns"),
    [([], 3), ([0, 0], 5), ([0, 0], 0), ([1], 1), ([0], 1), ([7], 7), ([1, 0, 1], 1), ([200, 1], 200)],
    ids=str,
)
def test_degenerate_shapes_are_solved_too(kernels: Kernels, lengths: list[int], columns: int) -> None:
    of = problem(5, lengths, columns, shift=0.1)
    product, X, Y, stats = of.sweep(kernels)
    assert (X.shape, Y.shape) == (of.X.shape, of.Y.shape)
    assert_solved(of, product)
    assert stats == pytest.approx((of.data(of.X), of.penalty(of.X), of.penalty(X)), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("scale", [0, 1e-12, 1e-6, 1e3])
def test_weights_of_any_size_are_solved(kernels: Kernels, scale: float) -> None:
    of = problem(7)
    of = replace(of, X=0 * of.X, matrix=of.matrix._replace(values=of.matrix.values * np.float32(scale)))
    product = of.sweep(kernels)[0]
    assert_solved(of, product)


def test_zero_weights_amid_others_count_as_stored(kernels: Kernels) -> None:
    of = problem(6, shift=0.4, alpha0=0.4)
    values = np.where(np.arange(len(of.matrix.values)) % 3, of.matrix.values, np.float32(0))
    of = replace(of, matrix=of.matrix._replace(values=values))
    product, _, _, stats = of.sweep(kernels)
    assert_solved(of, product)
    assert stats.data == pytest.approx(of.data(of.X), rel=1e-5)


def test_columns_of_very_different_scales_are_solved(kernels: Kernels) -> None:
    of = problem(20, alpha0=1.0)
    of = replace(of, Y=of.Y * np.logspace(-3, 1.5, 20).astype(np.float32))
    product = of.sweep(kernels)[0]
    assert_solved(of, product)


def test_both_tables_come_back_in_one_orthonormal_basis(kernels: Kernels) -> None:
    of = problem(17)
    _, _, Y, _ = of.sweep(kernels)
    np.testing.assert_allclose(Y @ Y.T, of.Y @ of.Y.T, atol=1e-5)


def test_alternating_sweeps_agree_with_the_reference(fast: Kernels) -> None:
    """What is lost in one half-sweep (a basis, a padding, a row) shows in the next."""
    of = problem(19)
    products = []
    with load("reference", 1) as reference:
        for kernels in (fast, reference):
            X, Y = kernels.table(of.X), kernels.table(of.Y)
            matrices = of.matrix, transpose(of.matrix, len(of.Y))
            by_row, by_column = (kernels.matrix(csr) for csr in matrices)
            targets = [csr.values + np.float32(0.2) for csr in matrices]
            for _ in range(3):
                for matrix, solve, fixed in ((by_row, X, Y), (by_column, Y, X)):
                    reg = np.full(len(kernels.host(solve)), 0.3, np.float32)
                    kernels.half_sweep(
                        matrix,
                        solve,
                        fixed,
                        targets=targets[solve is Y],
                        alpha0=0.2,
                        regularization=reg,
                        steps=40,
                        relaxation=1.2,
                    )
            products.append(kernels.host(X) @ kernels.host(Y).T)
    np.testing.assert_allclose(products[0], products[1], rtol=0, atol=TOLERANCE * np.abs(products[1]).max())


def test_no_steps_move_nothing_but_empty_rows(fast: Kernels) -> None:
    of = problem(18)
    product, X, _, stats = of.sweep(fast, steps=0, relaxation=1.4)
    stored = np.diff(of.matrix.indptr) > 0
    np.testing.assert_allclose(product[stored], (of.X @ of.Y.T)[stored], atol=1e-5)
    assert not X[~stored].any()
    assert stats.penalty_after == pytest.approx(of.penalty(of.X * stored[:, None]), rel=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_relaxation_stretches_the_move_that_the_steps_make(fast: Kernels, steps: int) -> None:
    of = problem(24)
    start = of.X.astype(float) @ of.Y.astype(float).T
    start[np.diff(of.matrix.indptr) == 0] = 0
    plain, relaxed = (of.sweep(fast, steps=steps, relaxation=omega)[0] for omega in (1.0, 1.7))
    assert np.abs(plain - start).max() > 0.1
    np.testing.assert_allclose(relaxed, start + 1.7 * (plain - start), atol=1e-5)


def test_as_many_steps_as_a_row_has_entries_and_one_more_are_exact(fast: Kernels) -> None:
    """A diagonal plus n rank-one terms has n + 1 different eigenvalues: conjugate gradients need no more steps."""
    of = problem(64, [1, 2, 3] * 5, alpha0=1e-3, shift=0.5)
    assert_solved(of, of.sweep(fast, steps=4)[0])
    errors = [np.abs(of.sweep(fast, steps=steps)[0] - of.exact() @ of.Y.T).max() for steps in (1, 2, 4)]
    assert errors == sorted(errors, reverse=True)


def test_a_tolerance_ends_a_row_once_its_residual_is_so_small(fast: Kernels) -> None:
    of = problem(64, [3, 20, 90] * 5, columns=120, alpha0=1e-3, shift=0.5)
    exact = of.exact() @ of.Y.T
    one, two, many = (of.sweep(fast, steps=steps)[0] for steps in (1, 2, 40))
    # a residual that has not grown has reached 1, one that is not zero has not reached the smallest number
    np.testing.assert_array_equal(of.sweep(fast, steps=40, tolerance=1.0)[0], one)
    np.testing.assert_array_equal(of.sweep(fast, steps=2, tolerance=1e-30)[0], two)
    errors = [np.abs(of.sweep(fast, steps=40, tolerance=share)[0] - exact).max() for share in (0.5, 1e-2, 1e-4, 1e-8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 2e-3 < np.abs(one - exact).max()
    assert np.abs(many - exact).max() <= errors[-1]


@pytest.mark.parametrize("rank", [2, 7, 66])
def test_frozen_columns_stay_and_the_others_solve_what_they_leave(kernels: Kernels, rank: int) -> None:
    """A column of ones, as carries the other side's biases: the same as to take its part off the targets."""
    of = problem(rank, alpha0=0.0)
    X = of.X.copy()
    X[:, 1] = 1
    expected, targets = X.copy(), of.targets()
    free = [k for k in range(rank) if k != 1]
    for u in range(len(X)):
        entries = slice(of.matrix.indptr[u], of.matrix.indptr[u + 1])
        y, w = of.Y[of.matrix.indices[entries]].astype(float), of.matrix.values[entries].astype(float)
        A = (y[:, free] * w[:, None]).T @ y[:, free] + of.regularization[u] * np.eye(rank - 1)
        expected[u, free] = np.linalg.solve(A, y[:, free].T @ (targets[entries] - w * y[:, 1])) if len(w) else 0
    _, found, Y, stats = replace(of, X=X).sweep(kernels, frozen=(1,))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(Y, of.Y)
    assert stats.penalty_before == pytest.approx(of.penalty(X[:, free]), rel=1e-5)
    assert stats.penalty_after == pytest.approx(of.penalty(found[:, free]), rel=1e-5)
    assert stats.data == pytest.approx(of.data(X), rel=1e-5)


def test_half_precision_moves_a_rough_solution_by_less_than_it_is_off(
    fast: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a large table count as float16 in a sweep of few steps, and as they are in one of many."""
    of = problem(40, list(range(60)) * 2 + [150], 150, alpha0=0.1)
    whole, thorough = of.sweep(fast, steps=7), of.sweep(fast, steps=40)
    monkeypatch.setattr(halves, "WHOLE_BYTES", 0)
    rounded, again = of.sweep(fast, steps=7), of.sweep(fast, steps=40)
    difference = np.abs(rounded[0] - whole[0]).max() / np.abs(whole[0]).max()
    assert 1e-6 < difference < 2e-3
    assert rounded[3].data == pytest.approx(whole[3].data, rel=1e-3)
    np.testing.assert_array_equal(again[0], thorough[0])


@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_half_precision_has_no_scale(fast: Kernels, monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    """Rows that float16 cannot hold as they are give the same scores, with what is weighed scaled along."""
    monkeypatch.setattr(halves, "WHOLE_BYTES", 0)
    of = problem(40, alpha0=0.1)
    scaled = replace(
        of,
        X=of.X / np.float32(size),
        Y=of.Y * np.float32(size),
        regularization=(of.regularization * size**2).astype(np.float32),
    )
    np.testing.assert_allclose(scaled.sweep(fast, steps=4)[0], of.sweep(fast, steps=4)[0], atol=2e-3)


def test_threads_and_buffers_change_no_bit(fast: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and chunks made small, so that every thread has some."""
    of = problem(21, list(range(60)) * 2 + [150], 150)
    monkeypatch.setattr(backend, "BLOCK", 16)
    results = []
    for threads, cached in ((1, backend.CACHED_BYTES), (2, backend.CACHED_BYTES), (5, backend.CACHED_BYTES), (2, 1)):
        monkeypatch.setattr(backend, "CACHED_BYTES", cached)  # 1 byte: rows of more than four entries are not kept
        with load(fast.name, threads) as kernels:
            _, X, Y, stats = of.sweep(kernels, steps=3, relaxation=1.3)
            results.append((X.tobytes(), Y.tobytes(), stats))
    assert all(result == results[0] for result in results)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rank=st.sampled_from(RANKS),
    steps=st.integers(1, 4),
    relaxation=st.sampled_from([0.1, 1.0, 1.4, 1.9, 1.99]),
    weight=st.sampled_from([1e-3, 1.0, 30.0]),
    alpha0=st.sampled_from([0.0, 0.01, 1.0]),
    shifted=st.booleans(),
)
def test_a_half_sweep_never_raises_the_objective(
    fast: Kernels, seed: int, rank: int, steps: int, relaxation: float, weight: float, alpha0: float, shifted: bool
) -> None:
    of = problem(rank, seed=seed, alpha0=alpha0, shift=alpha0 * shifted)
    of = replace(of, matrix=of.matrix._replace(values=of.matrix.values * np.float32(weight)))
    _, X, Y, stats = of.sweep(fast, steps=steps, relaxation=relaxation)
    after = replace(of, Y=Y)
    slack = 1e-5 * (stats.data + of.constant() + stats.penalty_before)
    assert after.data(X) + after.penalty(X) <= stats.data + stats.penalty_before + slack


@pytest.mark.parametrize("what", ["X", "Y", "gram", "weights", "regularization"])
def test_overflow_shows_in_the_terms(kernels: Kernels, what: str) -> None:
    """No exception and no warning from within, and never a finite value for rows that are not."""
    of = problem(4, [3, 5, 2])
    broken = {
        "X": replace(of, X=of.X * np.float32(1e38)),
        "Y": replace(of, Y=of.Y * np.float32(1e38)),
        "gram": replace(of, Y=of.Y * np.float32(1e18), alpha0=1e6),
        "weights": replace(of, matrix=of.matrix._replace(values=of.matrix.values * np.float32(np.inf))),
        "regularization": replace(of, alpha0=0.0, regularization=of.regularization * np.float32(np.nan)),
    }[what]
    _, _, _, stats = broken.sweep(kernels, steps=2)
    if kernels.name != "reference" or what in ("weights", "regularization"):  # float64 has room for the others
        assert not np.isfinite(sum(stats))


@pytest.mark.parametrize("shape", [(0, 1), (1, 1), (3, 16), (5, 33)])
def test_a_table_is_a_copy_and_comes_back_as_it_went(kernels: Kernels, shape: tuple[int, int]) -> None:
    rows: Floats = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    kept = rows.copy()
    table = kernels.table(rows)
    rows += 1
    back = kernels.host(table)
    assert back.dtype == np.float32
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, kept)
    back += 1
    np.testing.assert_array_equal(kernels.host(table), kept)
