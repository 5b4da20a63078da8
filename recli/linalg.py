"""The largest singular values and vectors of a matrix, sparse or dense, by block Krylov iteration on a kernel backend.

With B = A^T A (A A^T where A is wide) the space span{X, B X, B^2 X, ...} of a random block X holds the leading singular
vectors to a precision that improves exponentially with the number of its blocks, whatever the gaps (Musco & Musco 2015,
"Randomized Block Krylov Methods for Stronger and Faster Approximate Singular Value Decomposition"). Its basis is built
by block Lanczos (Golub & Underwood 1977, "The block Lanczos method for computing eigenvalues") with full
reorthogonalisation; blocks are much narrower than the rank, since a space of given size holds the more the higher the
powers of B in it. Rayleigh-Ritz on the basis costs nothing but its small matrix, and says how far each pair has come.
Tables are float32 on the device; small matrices are float64 on the host, on one thread, so that their bits are the same
for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recli.errors import DivergedError
from recli.ids import Csr, transpose
from recli.kernels.spec import Floats, Kernels

BLOCK = 32
# What a triplet must reach: with r = A^T u - s v (A v - s u = 0 by construction), |r| <= RESIDUAL s1, a little less
# than is promised, and |r| <= CLOSE s, since the relative error of s is about (|r| / s)^2.
PROMISED, RESIDUAL, CLOSE = 1e-3, 8e-4, 5e-3
NOISE = 1e-7  # of products with B, as a share of its largest eigenvalue
WIDEST = 16  # bases in units of the rank, and 1024 more; noise, the hardest of matrices, takes 12 of rank 64
MOST_PASSES = 8  # of orthogonalisation; two do, unless the basis holds all that B makes of it but for rounding errors
DEPENDENT = 1e-7  # eigenvalues of a Gram matrix, as a share of its largest, that are rounding errors
VANISHED = 1e-5  # singular values below this share of the largest are rounding errors

Small = NDArray[np.float64]
OnCheck: TypeAlias = Callable[[int, int], None]


class Svd(NamedTuple):
    """U float32[m, r], s float64[r] falling, V float32[n, r]: the largest entry of each column of V is positive.

    residual: the largest |A^T u - s v| / s1, measured.
    """

    U: Floats
    s: Small
    V: Floats
    residual: float


def truncated_svd(
    matrix: Csr | NDArray[Any],
    columns: int,
    rank: int,
    kernels: Kernels,
    *,
    energy: float = np.inf,
    seed: int = 0,
    on_check: OnCheck = lambda converged, wanted: None,
) -> Svd:
    """The `rank` largest singular triplets of a matrix with that many columns (dense: any real dtype, C- or
    F-contiguous); fewer where their squares add up to `energy` before, and no zero ones, so r may be 0.

    Singular values down to a hundredth of the largest to a relative 1e-4, vectors orthonormal to 1e-5. on_check: told
    now and then how many triplets have converged, and of how many. Raises DivergedError where float32 overflows.
    """
    rows = len(matrix) if isinstance(matrix, np.ndarray) else len(matrix.indptr) - 1
    other = matrix.T if isinstance(matrix, np.ndarray) else transpose(matrix, columns)
    ahead, back = kernels.matrix(matrix), kernels.matrix(other)
    wide = rows < columns
    if wide:
        ahead, back = back, ahead
    size = min(rows, columns)
    with threadpool_limits(1, "blas"):
        V = _Krylov(ahead, back, size, kernels, seed).grow_until_converged(min(rank, size), energy, on_check)
        U, s, V, residual = _refine(ahead, back, V, kernels)
    if not residual <= PROMISED:
        raise DivergedError(
            f"singular vectors did not converge: |A^T u - s v| / s1 is {residual:.1e}: use a smaller --rank"
        )
    kept = int(np.searchsorted(np.cumsum(s**2), energy)) + 1
    U, s, V = U[:, :kept], s[:kept], V[:, :kept]
    U, V = (V, U) if wide else (U, V)
    signs = np.where(V[np.abs(V).argmax(axis=0), np.arange(len(s))] < 0, np.float32(-1), np.float32(1))
    return Svd(U * signs, s, V * signs, residual)


class _Krylov:
    """An orthonormal basis, block by block, and projected = basis^T B basis."""

    def __init__(self, ahead: Any, back: Any, size: int, kernels: Kernels, seed: int) -> None:
        self._ahead, self._back, self._size, self._kernels = ahead, back, size, kernels
        self._rng = np.random.default_rng(seed)
        self._basis: list[Any] = []
        self._projected = np.zeros((0, 0))
        # Starting from B X rather than X leaves the leading directions in few columns, so that rounding errors of large
        # numbers stay out of the small ones. B counts in units of about its largest eigenvalue, whose square may
        # overflow.
        start = self._orthonormal(self._random(min(BLOCK, size)))
        block = kernels.product(back, kernels.product(ahead, start))
        largest = np.abs(kernels.gram([start], block)).max()
        if not np.isfinite(largest):
            raise DivergedError("squares of singular values overflow float32: divide the values by a constant")
        self._unit = 2.0 ** np.ceil(np.log2(largest or 1))
        self._next = self._orthonormal(kernels.combine([block], np.eye(min(BLOCK, size)) / self._unit))
        self._beyond = np.zeros((0, 0))  # the Gram matrix of what B times the last block has outside of the basis

    def grow_until_converged(self, rank: int, energy: float, on_check: OnCheck) -> Any:
        """The leading Ritz vectors, a table [size, wanted]."""
        check_at, before = rank + BLOCK, (0, 0.0)
        while True:
            while len(self._projected) < min(check_at, self._size):
                self._grow()
            width = len(self._projected)
            values, vectors = np.linalg.eigh(self._projected)
            values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
            wanted = min(rank, int(np.searchsorted(np.cumsum(values), energy / self._unit)) + 1)
            if wanted <= width:
                s, y = np.sqrt(values[:wanted]), vectors[-len(self._beyond) :, :wanted]
                residuals = np.sqrt(np.maximum(np.einsum("kr,kr->r", y, self._beyond @ y), 0))  # |B v - s^2 v|
                limits = np.where(
                    values[:wanted] > NOISE * values[0], np.minimum(RESIDUAL * s[0], CLOSE * s) * s, NOISE * values[0]
                )
                converged = residuals <= limits
                on_check(int(np.count_nonzero(converged)), wanted)
                if converged.all() or width >= min(self._size, WIDEST * wanted + 1024):
                    return self._kernels.combine(self._basis, vectors[:, :wanted])
                now = width, float(np.log(np.max(residuals / limits)))
                check_at, before = width + _columns_to_go(before, now), now
            else:
                check_at = width + width // 4 + BLOCK

    def _grow(self) -> None:
        """B times the last block has parts in that and the one before, and begins the next."""
        kernels, known = self._kernels, len(self._projected)
        self._basis.append(self._next)
        block = kernels.product(self._back, kernels.product(self._ahead, self._next))
        inside = kernels.gram(self._basis[-2:], block) / self._unit
        width = known + inside.shape[1]
        grown = np.zeros((width, width))
        grown[:known, :known] = self._projected
        grown[-len(inside) :, known:] = inside
        grown[known:, -len(inside) :] = inside.T
        grown[known:, known:] = (inside[-(width - known) :] + inside[-(width - known) :].T) / 2
        self._projected = grown
        block = kernels.combine([*self._basis[-2:], block], _subtracting(inside, 1 / self._unit))
        self._beyond = kernels.gram([block], block)
        if width < self._size:
            self._next = self._orthonormal(block)

    def _random(self, width: int) -> Any:
        return self._kernels.table(self._rng.standard_normal((self._size, width), np.float32))

    def _orthonormal(self, block: Any) -> Any:
        """The block made orthonormal in itself and to the basis, filled up with random columns in the place of those
        that depend on others but for rounding errors: they widen the space too.

        By eigenvalues of Gram matrices with unit diagonal (SVQB: Stathopoulos & Wu 2002, "A Block Orthogonalization
        Procedure with Constant Synchronization Requirements").
        """
        kernels, width = self._kernels, min(BLOCK, self._size - len(self._projected))
        for attempt in range(MOST_PASSES):
            if attempt and self._basis:
                block = kernels.combine([*self._basis, block], _subtracting(kernels.gram(self._basis, block)))
            squares = kernels.gram([block], block)
            whitening = _whitening(squares, keep_order=attempt > 0)[:, :width]
            fresh = width - whitening.shape[1]
            if fresh:
                parts = np.pad(whitening, (0, fresh))
                parts[-fresh:, -fresh:] = np.eye(fresh) / np.sqrt(self._size)
                block = kernels.combine([block, self._random(fresh)], parts)
                continue
            block = kernels.combine([block], whitening)
            if attempt and float(np.linalg.eigvalsh(squares)[0]) > 0.5:
                break
        return block


def _subtracting(inside: Small, scale: float = 1.0) -> Small:
    """Coefficients of a basis and of a block that leave the rest of scale * block, which has `inside` in the basis."""
    return np.vstack([-inside, scale * np.eye(inside.shape[1])])


def _whitening(squares: Small, *, keep_order: bool) -> Small:
    """W with W^T squares W = I, without columns that are zero or depend on others: leading directions first, or as
    close to the identity as can be.
    """
    there = np.flatnonzero(np.diag(squares) > 0)
    scale = 1 / np.sqrt(np.diag(squares)[there])
    values, vectors = np.linalg.eigh(squares[np.ix_(there, there)] * np.outer(scale, scale))
    first = int(np.searchsorted(values, DEPENDENT * values.max(initial=0)))
    whitening = np.zeros((len(squares), len(there) - first))
    whitening[there] = scale[:, None] * vectors[:, first:] / np.sqrt(values[first:])
    return whitening @ vectors.T if keep_order and not first else whitening[:, ::-1]


def _columns_to_go(before: tuple[int, float], now: tuple[int, float]) -> int:
    """How much wider the basis should be at the next check: most of the way to convergence as the last two checks, of
    (width, log of the excess), foretell it.
    """
    (width, excess), (width_now, excess_now) = before, now
    furthest = max(BLOCK, width_now // 4)
    if not width or excess_now >= excess:
        return furthest
    foretold = excess_now * (width_now - width) / (excess - excess_now)
    return int(np.clip(0.7 * foretold, BLOCK, furthest))


def _refine(ahead: Any, back: Any, V: Any, kernels: Kernels) -> tuple[Floats, Small, Floats, float]:
    """Rayleigh-Ritz with A itself, which is more precise than with B; U, s, V, and the residual as measured."""
    W = kernels.product(ahead, V)
    values, vectors = np.linalg.eigh(kernels.gram([W], W))
    s, vectors = np.sqrt(np.maximum(values[::-1], 0)), vectors[:, ::-1]
    kept = int(np.count_nonzero(s > VANISHED * s[0]))
    if not kept:
        return kernels.host(W)[:, :0], s[:0], kernels.host(V)[:, :0], 0.0
    s, vectors = s[:kept], vectors[:, :kept]
    U, V = kernels.combine([W], vectors / s), kernels.combine([V], vectors)
    off = kernels.combine([kernels.product(back, U), V], np.vstack([np.eye(kept), np.diag(-s)]))
    residual = float(np.sqrt(np.diag(kernels.gram([off], off)).max()) / s[0])
    return kernels.host(U), s, kernels.host(V), residual


def procrustes(rotated: NDArray[np.floating], rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """The orthonormal matrix that brings rotated [n, r] nearest to rows [n, r]: float64[r, r]. It undoes what a
    half-sweep may do to its tables (Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem").
    """
    left, _, right = np.linalg.svd(rotated.T.astype(np.float64) @ rows)
    return np.asarray(left @ right, np.float64)
