"""recli's truncated SVD against SciPy's svds (ARPACK, float64) and scikit-learn's randomized_svd at the same error.

    python benchmarks/svd.py [RATINGS ...] [--rank 100]    # beside them, 60k x 10k with a flat spectrum, 4.0M entries

Errors are of singular values, against ARPACK's, and of residuals |A v - s u| and |A^T u - s v| over the largest value:
at most 1e-4 and 1e-3. scikit-learn's iterations are doubled until it is there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds
from sklearn.utils.extmath import randomized_svd

from recli import io, kernels
from recli.config import ReadConfig
from recli.ids import Csr
from recli.linalg import truncated_svd

VALUES, RESIDUALS = 1e-4, 1e-3
REPEATS = 3


def flat() -> sp.csr_array:
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 60_000, 4_000_000), (10_000 * rng.random(4_000_000) ** 2).astype(int)
    matrix = sp.coo_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(60_000, 10_000)).tocsr()
    matrix.data = rng.integers(1, 6, matrix.nnz).astype(np.float32)
    return matrix


def read(path: str) -> sp.csr_array:
    with io.source([path]) as found:
        data, _ = io.read_interactions(found, ReadConfig())
    matrix = data.matrix
    shape = len(data.user_ids), len(data.item_ids)
    return sp.csr_array((matrix.values, matrix.indices, matrix.indptr), shape=shape)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def errors(matrix: sp.csr_array, U: np.ndarray, s: np.ndarray, V: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    A, U, V = matrix.astype(np.float64), U.astype(np.float64), V.astype(np.float64)
    residuals = [np.linalg.norm(off, axis=0).max() / exact[0] for off in (A @ V - U * s, A.T @ U - V * s)]
    return float(np.abs(s / exact - 1).max()), float(max(residuals))


def race(name: str, matrix: sp.csr_array, rank: int, backend: kernels.Kernels) -> None:
    csr = Csr(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(REPEATS):  # alternating, so that drift hits both
        seconds, found = timed(lambda: truncated_svd(csr, matrix.shape[1], rank, backend))
        ours.append(seconds)
        seconds, (_, values, _) = timed(lambda: svds(matrix.astype(np.float64), k=rank))
        theirs.append(seconds)
    exact = np.sort(values)[::-1]
    iterations, wrong = 2, (1.0, 1.0)
    while (wrong[0] > VALUES or wrong[1] > RESIDUALS) and iterations < 256:
        iterations *= 2
        seconds, (U, s, V) = timed(
            lambda n=iterations: randomized_svd(
                matrix, rank, n_iter=n, n_oversamples=20, random_state=0, power_iteration_normalizer="QR"
            )
        )
        wrong = errors(matrix, U, s, V.T, exact)
    value, residual = errors(matrix, found.U, found.s, found.V, exact)
    off = max(float(np.abs(X.T.astype(np.float64) @ X - np.eye(rank)).max()) for X in (found.U, found.V))
    best, peer = float(np.median(ours)), float(np.median(theirs))
    print(
        f"{name}, {matrix.shape[0]} x {matrix.shape[1]}, {matrix.nnz} entries: recli {best:.2f} s, svds {peer:.2f} s, "
        f"ratio {peer / best:.1f}; scikit-learn {seconds:.2f} s at {iterations} iterations; "
        f"values {value:.1e}, residuals {residual:.1e}, orthonormal {off:.1e} (noise {np.ptp(theirs) / peer:.0%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", nargs="*")
    parser.add_argument("--rank", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with kernels.load("cpu", arguments.threads) as backend:
        truncated_svd(np.eye(40, dtype=np.float32), 40, 3, backend)  # compiles
        truncated_svd(Csr(np.arange(41), np.arange(40, dtype=np.int32), np.ones(40, np.float32)), 40, 3, backend)
        for path in arguments.ratings:
            race(path, read(path), arguments.rank, backend)
        race("flat spectrum", flat(), arguments.rank, backend)


if __name__ == "__main__":
    main()
