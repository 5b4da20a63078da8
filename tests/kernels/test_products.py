"""Products of matrices and tables, and of tables with each other, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from recli.ids import Csr
from recli.kernels import load
from recli.kernels.spec import Kernels
from tests.kernels.problems import csr, problem


def dense(matrix: Csr, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    whole = np.zeros((len(matrix.indptr) - 1, columns))
    whole[np.repeat(np.arange(len(whole)), np.diff(matrix.indptr)), matrix.indices] = matrix.values
    return whole


@pytest.mark.parametrize("rank", [1, 3, 16, 33])
@pytest.mark.parametrize("lengths", [[], [0, 0], [1], list(range(31)) * 3, [200, 0, 3]], ids=len)
def test_sparse_products_are_those_of_float64(kernels: Kernels, rank: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(0)
    matrix, rows = csr(rng, lengths, 200), rng.standard_normal((200, rank)).astype(np.float32)
    found = kernels.host(kernels.product(kernels.matrix(matrix), kernels.table(rows)))
    expected = dense(matrix, 200) @ rows.astype(float)
    assert found.shape == (len(lengths), rank)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8, np.uint8, np.int64, np.bool_])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(1, 1), (300, 7), (5, 400), (2500, 40)])
def test_dense_products_take_any_real_dtype_and_order(
    kernels: Kernels, dtype: type, order: str, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    matrix = np.asarray(rng.integers(0, 3, shape), dtype=dtype, order=order)  # type: ignore[call-overload]
    matrix.flags.writeable = False
    rows = rng.standard_normal((shape[1], 6)).astype(np.float32)
    found = kernels.host(kernels.product(kernels.matrix(matrix), kernels.table(rows)))
    expected = matrix.astype(float) @ rows.astype(float)
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, float(np.abs(expected).max())) * 10)


@pytest.mark.parametrize("rows", [0, 1, 2500])
def test_gram_and_combine_take_tables_side_by_side(kernels: Kernels, rows: int) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((rows, width)).astype(np.float32) for width in (3, 17, 1)]
    tables, right = [kernels.table(part) for part in parts], rng.standard_normal((rows, 5)).astype(np.float32)
    whole = np.hstack(parts).astype(float)
    np.testing.assert_allclose(kernels.gram(tables, kernels.table(right)), whole.T @ right, atol=1e-3)
    coefficients = rng.standard_normal((21, 4))
    np.testing.assert_allclose(kernels.host(kernels.combine(tables, coefficients)), whole @ coefficients, atol=1e-4)


def test_threads_change_no_bit(fast: Kernels) -> None:
    rng = np.random.default_rng(0)
    matrix, rows = csr(rng, list(rng.integers(0, 60, 3000)), 500), rng.standard_normal((500, 20)).astype(np.float32)
    results = []
    for threads in (1, 2, 5):
        with load(fast.name, threads) as kernels:
            table = kernels.product(kernels.matrix(matrix), kernels.table(rows))
            gram = kernels.gram([table], table)
            results.append(kernels.host(table).tobytes() + gram.tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("rank", [1, 5, 16, 21])
def test_products_take_tables_of_any_origin(kernels: Kernels, rank: int) -> None:
    """Those that were fetched, viewed, gained or are zeros are tables as others are."""
    rng = np.random.default_rng(0)
    matrix, rows = csr(rng, list(range(31)), 200), rng.standard_normal((200, rank)).astype(np.float32)
    handle, every = kernels.matrix(matrix), np.arange(200, dtype=np.int32)
    expected = dense(matrix, 200) @ rows.astype(float)
    gained, _ = kernels.pair_gradients(
        kernels.table(rows), kernels.table(rows), every, every, np.full(200, 2, np.float32)
    )
    for table, factor in (
        (kernels.take(rows, every.astype(np.int64)), 1),
        (kernels.view(rows), 1),
        (gained, 2),
        (kernels.zeros(200, rank), 0),
    ):
        np.testing.assert_allclose(kernels.host(kernels.product(handle, table)), factor * expected, atol=2e-4)
        np.testing.assert_array_equal(kernels.host(table), np.float32(factor) * rows)


@pytest.mark.parametrize("rank", [1, 5, 21])
def test_sweeps_take_tables_of_any_origin(kernels: Kernels, rank: int) -> None:
    of = problem(rank, shift=0.1)

    solve = kernels.take(of.X, np.arange(len(of.X)))
    fixed = kernels.take(of.Y, np.arange(len(of.Y)))
    kernels.half_sweep(
        kernels.matrix(of.matrix),
        solve,
        fixed,
        targets=of.targets(),
        alpha0=of.alpha0,
        regularization=of.regularization,
        steps=64,
        relaxation=1.0,
    )
    assert kernels.host(solve).shape == of.X.shape
    scores = kernels.host(solve).astype(float) @ kernels.host(fixed).T.astype(float)
    exact = of.exact() @ of.Y.astype(float).T
    exact[np.diff(of.matrix.indptr) == 0] = 0
    np.testing.assert_allclose(scores, exact, atol=1e-4 * np.abs(exact).max())
