"""The truncated SVD agrees with LAPACK and ARPACK, at any shape and on hard spectra."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from recli.errors import DivergedError
from recli.ids import Csr
from recli.kernels import load
from recli.kernels.spec import Kernels
from recli.linalg import Svd, procrustes, truncated_svd


@pytest.fixture(scope="module", params=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 2) as backend:
        yield backend


def to_csr(matrix: Any) -> Csr:
    matrix = sp.csr_array(matrix)
    matrix.sort_indices()
    return Csr(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float32))


def with_spectrum(m: int, n: int, s: NDArray[np.float64], seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((size, len(s))))[0] for size in (m, n))
    return np.asarray((U * s) @ V.T, np.float32)


def assert_is_svd(found: Svd, dense: NDArray[np.floating], rank: int) -> None:
    exact = np.linalg.svd(dense.astype(float), compute_uv=False)
    r = len(found.s)
    assert r <= rank
    np.testing.assert_allclose(found.s, exact[:r], rtol=1e-4)
    assert (exact[r:rank] < 1e-4 * exact[0]).all()  # left out: zero ones
    for basis in (found.U, found.V):
        np.testing.assert_allclose(basis.T.astype(float) @ basis, np.eye(r), atol=1e-5)
    off = dense.astype(float) @ found.V - found.U * found.s
    assert np.linalg.norm(off, axis=0).max() <= 1e-3 * exact[0]
    back = dense.T.astype(float) @ found.U - found.V * found.s
    assert np.linalg.norm(back, axis=0).max() <= 1e-3 * exact[0]
    assert (found.V[np.abs(found.V).argmax(axis=0), range(r)] > 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 50), (50, 3), (90, 70), (70, 90), (400, 130)])
@pytest.mark.parametrize("rank", [1, 5, 70, 500])
def test_any_shape_and_rank(kernels: Kernels, shape: tuple[int, int], rank: int) -> None:
    dense = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert_is_svd(truncated_svd(dense, shape[1], rank, kernels), dense, rank)


@pytest.mark.parametrize(
    "spectrum",
    [np.ones(60), np.linspace(1, 0.5, 60), 10.0 ** -np.arange(8), 0.9 ** np.arange(60), np.repeat([5, 3, 1.0], 20)],
    ids=["equal", "flat", "steep", "falling", "clusters"],
)
def test_hard_spectra(kernels: Kernels, spectrum: NDArray[np.float64]) -> None:
    dense = with_spectrum(300, 200, spectrum)
    found = truncated_svd(dense, 200, 40, kernels)
    exact = np.linalg.svd(dense.astype(float), compute_uv=False)
    large = exact[: len(found.s)] > exact[0] / 100  # smaller ones are near float32's noise
    np.testing.assert_allclose(found.s[large], exact[: len(found.s)][large], rtol=1e-4)


def test_a_sparse_matrix_agrees_with_arpack(kernels: Kernels) -> None:
    matrix = sp.random(700, 400, 0.03, random_state=np.random.default_rng(0), format="csr")
    found = truncated_svd(to_csr(matrix), 400, 30, kernels)
    exact = np.sort(sp.linalg.svds(matrix.astype(float), k=30)[1])[::-1]
    np.testing.assert_allclose(found.s, exact, rtol=1e-4)
    assert_is_svd(found, matrix.toarray(), 30)
    assert found.residual <= 1e-3


@pytest.mark.parametrize("share", [0.3, 0.95, 0.9999])
def test_energy_takes_the_smallest_rank_that_keeps_it(kernels: Kernels, share: float) -> None:
    dense = with_spectrum(200, 150, 0.85 ** np.arange(60))
    squares = np.linalg.svd(dense.astype(float), compute_uv=False) ** 2
    found = truncated_svd(dense, 150, 150, kernels, energy=share * squares.sum())
    assert len(found.s) == int(np.searchsorted(np.cumsum(squares), share * squares.sum())) + 1
    capped = truncated_svd(dense, 150, 3, kernels, energy=share * squares.sum())
    assert len(capped.s) == min(3, len(found.s))


def test_rows_and_columns_of_zeros_and_nothing_but_zeros(kernels: Kernels) -> None:
    dense = np.zeros((60, 40), np.float32)
    assert len(truncated_svd(dense, 40, 5, kernels).s) == 0
    dense[7, 3] = -2
    found = truncated_svd(dense, 40, 5, kernels)
    np.testing.assert_allclose(found.s, [2], rtol=1e-6)
    assert (found.U[7], found.V[3]) == (pytest.approx(-1), pytest.approx(1))


def test_the_transpose_has_the_same_values(kernels: Kernels) -> None:
    dense = np.random.default_rng(0).standard_normal((120, 80)).astype(np.float32)
    one, other = truncated_svd(dense, 80, 20, kernels), truncated_svd(dense.T, 120, 20, kernels)
    np.testing.assert_allclose(one.s, other.s, rtol=2e-5)


def test_a_seed_is_a_result_whatever_the_threads() -> None:
    dense = np.random.default_rng(0).standard_normal((3000, 80)).astype(np.float32)
    results = set()
    for threads in (1, 2, 5):
        with load("cpu", threads) as kernels:
            found = truncated_svd(dense, 80, 20, kernels, seed=3)
            results.add(found.U.tobytes() + found.s.tobytes() + found.V.tobytes())
    assert len(results) == 1


def test_overflow_is_an_error_with_a_remedy() -> None:
    dense = np.full((50, 40), 1e19, np.float32)
    with load("cpu", 1) as kernels, pytest.raises(DivergedError, match="overflow float32: divide the values"):
        truncated_svd(dense, 40, 3, kernels)


def test_a_rotation_is_undone() -> None:
    rng = np.random.default_rng(0)
    rows, turn = rng.standard_normal((40, 5)), np.linalg.qr(rng.standard_normal((5, 5)))[0]
    found = procrustes(rows @ turn, rows)
    np.testing.assert_allclose(found, turn.T, atol=1e-12)
    np.testing.assert_allclose(procrustes(3 * rows @ turn, rows) @ turn, np.eye(5), atol=1e-12)  # of no scale
