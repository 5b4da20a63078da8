"""Small problems for the kernels, and what kernels/spec.py says about them, in dense float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recli.ids import Csr
from recli.kernels.spec import Floats, Kernels, SweepStats


@dataclass(frozen=True)
class Problem:
    """One side of iALS: rows of X to be solved against Y."""

    matrix: Csr
    X: Floats
    Y: Floats
    regularization: Floats
    alpha0: float = 0.1
    shift: float = 0.0

    def dense(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The weights, and which entries are stored (of any weight), both [rows, columns]."""
        weights, stored = np.zeros((2, len(self.X), len(self.Y)))
        row = np.repeat(np.arange(len(self.X)), np.diff(self.matrix.indptr))
        weights[row, self.matrix.indices] = self.matrix.values
        stored[row, self.matrix.indices] = 1
        return weights, stored

    def exact(self) -> NDArray[np.float64]:
        """The minimising rows, by their normal equations: a row without entries is zero."""
        weights, stored = self.dense()
        Y, rows = self.Y.astype(float), []
        for w, there, reg in zip(weights, stored, self.regularization.astype(float), strict=True):
            A = Y.T @ ((self.alpha0 + w)[:, None] * Y) + reg * np.eye(Y.shape[1])
            rows.append(np.linalg.solve(A, Y.T @ (w + self.shift * there)))
        return np.array(rows).reshape(self.X.shape)

    def data(self, X: NDArray[np.floating]) -> float:
        """The objective without penalties and without its constant."""
        weights, stored = self.dense()
        s = X.astype(float) @ self.Y.astype(float).T
        on_stored = weights * s**2 - 2 * (weights + self.shift) * s
        return float((stored * on_stored).sum() + self.alpha0 * (s**2).sum())

    def constant(self) -> float:
        """With it the objective is a sum of squares."""
        return float(self.targets().astype(float).sum())

    def targets(self) -> Floats:
        return self.matrix.values + np.float32(self.shift)

    def penalty(self, X: NDArray[np.floating]) -> float:
        return float(self.regularization.astype(float) @ (X.astype(float) ** 2).sum(axis=1))

    def sweep(
        self,
        kernels: Kernels,
        *,
        steps: int = 200,
        relaxation: float = 1.0,
        frozen: tuple[int, ...] = (),
        tolerance: float = 0.0,
    ) -> tuple[NDArray[np.float64], Floats, Floats, SweepStats]:
        """X Y^T after a half-sweep, in float64; X and Y as they came back; what the kernel says it saw."""
        X, Y = kernels.table(self.X), kernels.table(self.Y)
        stats = kernels.half_sweep(
            kernels.matrix(self.matrix),
            X,
            Y,
            alpha0=self.alpha0,
            targets=self.targets(),
            regularization=self.regularization,
            steps=steps,
            relaxation=relaxation,
            tolerance=tolerance,
            frozen=frozen,
        )
        X, Y = kernels.host(X), kernels.host(Y)
        return X.astype(float) @ Y.astype(float).T, X, Y, stats


def csr(rng: np.random.Generator, lengths: list[int] | NDArray[np.int64], columns: int) -> Csr:
    """Rows of these lengths with random columns; weights from 0.1 to 2."""
    rows = [np.sort(rng.choice(columns, n, replace=False)) for n in lengths]
    indices = np.concatenate([*rows, []]).astype(np.int32)
    indptr = np.append(0, np.cumsum(np.asarray(lengths, np.int64)))
    return Csr(indptr, indices, rng.uniform(0.1, 2, len(indices)).astype(np.float32))


def problem(
    rank: int, lengths: list[int] | None = None, columns: int = 33, seed: int = 0, **changes: object
) -> Problem:
    """Rows of 0 to 12 entries, unless given; rows of about unit norm."""
    rng = np.random.default_rng(seed)
    matrix = csr(rng, list(range(13)) * 3 if lengths is None else lengths, columns)
    rows = len(matrix.indptr) - 1
    X, Y = ((rng.standard_normal((n, rank)) / np.sqrt(rank)).astype(np.float32) for n in (rows, columns))
    regularization = rng.uniform(0.05, 1, rows).astype(np.float32)
    return replace(Problem(matrix, X, Y, regularization), **changes)  # type: ignore[arg-type]
