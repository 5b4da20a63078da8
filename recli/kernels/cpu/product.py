"""Matrices, sparse or dense, times tables, and tables times each other, block by block of rows (numba, BLAS).

Blocks have fixed sizes and their results are added in order, so the number of threads never changes a bit. BLAS is held
to one thread by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.compiled import nb
from recli.ids import Csr
from recli.kernels.cpu import aligned
from recli.kernels.cpu.half_sweep import FAST
from recli.kernels.cpu.simd import WIDTH, axpy4
from recli.kernels.cpu.workers import Workers
from recli.kernels.spec import Floats

F = np.float32
ROWS = 1024  # of tables, a task: few enough that sums of float32 products keep their digits
DENSE_BYTES = 16 << 20  # of a dense matrix, a task: converted to float32 and read twice from the cache
CHUNKS = 256  # of a matrix: enough that the last ones to finish are short
ROW_WORK = 8  # entries: what a row costs by itself
WAVE = 64  # Gram matrices of blocks that wait to be added


def chunks(indptr: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Of the rows of a matrix, see SparseMatrix."""
    rows = np.arange(len(indptr))
    work = indptr + ROW_WORK * rows
    cuts = np.unique(np.searchsorted(work, np.linspace(0, work[-1], CHUNKS + 1)))
    return sorted(pairwise(cuts.tolist()), key=lambda chunk: work[chunk[0]] - work[chunk[1]])


@dataclass
class SparseMatrix:
    csr: Csr
    chunks: list[tuple[int, int]]  # of rows next to each other: from, to before; about equal work, the most first

    @cached_property
    def column_weights(self) -> Floats:
        """The sum of each column's values, up to its last column in use."""
        return np.bincount(self.csr.indices, self.csr.values).astype(np.float32)

    @cached_property
    def columns(self) -> int:
        """Up to the last one in use."""
        return int(self.csr.indices.max(initial=-1)) + 1

    def times(self, rows: Floats, run: Workers) -> Floats:
        assert self.columns <= len(rows)  # multiply_rows checks nothing
        product = aligned.empty((len(self.csr.indptr) - 1, rows.shape[1]))
        run(lambda chunk: multiply_rows(*self.csr, *chunk, rows, product), self.chunks)
        return product


@nb.njit(fastmath=FAST, nogil=True, error_model="numpy", cache=True)
def multiply_rows(indptr: Any, indices: Any, values: Any, first: Any, behind: Any, Y: Any, X: Any) -> None:
    """The rows first, ..., behind - 1 of X float32[n, rank] (OUT): those of a CSR matrix times Y float32[m, rank]; rank
    a multiple of 16. Four entries a time; a last group of fewer repeats its last row with coefficient zero.
    """
    rank = X.shape[1]
    stride = np.uint64(4 * rank)
    x_at, y_at = np.uint64(X.ctypes.data), np.uint64(Y.ctypes.data)
    for u in range(first, behind):
        row_at = x_at + np.uint64(u) * stride
        for k in range(rank):
            X[u, k] = F(0)
        start = indptr[u]
        n = indptr[u + 1] - start
        for j in range(0, n, 4):
            last = n - 1 - j
            e = start + j
            y0 = y_at + np.uint64(indices[e]) * stride
            y1 = y_at + np.uint64(indices[e + min(1, last)]) * stride
            y2 = y_at + np.uint64(indices[e + min(2, last)]) * stride
            y3 = y_at + np.uint64(indices[e + min(3, last)]) * stride
            a0 = values[e]
            a1 = values[e + 1] if last >= 1 else F(0)
            a2 = values[e + 2] if last >= 2 else F(0)
            a3 = values[e + 3] if last >= 3 else F(0)
            axpy4(y0, y1, y2, y3, row_at, rank, a0, a1, a2, a3)


@dataclass
class DenseMatrix:
    """A matrix of any real dtype, in memory or on disk, read by blocks of what is contiguous: rows or columns."""

    array: NDArray[Any]

    def __post_init__(self) -> None:
        assert self.array.ndim == 2
        assert self.array.flags.c_contiguous or self.array.flags.f_contiguous

    def times(self, rows: Floats, run: Workers) -> Floats:
        product = np.zeros((len(self.array), rows.shape[1]), F)
        stored = self.array if self.array.flags.c_contiguous else self.array.T
        size = max(1, DENSE_BYTES // max(1, 4 * stored.shape[1]))
        blocks = [slice(start, start + size) for start in range(0, len(stored), size)]
        if stored is self.array:
            run(lambda block: np.matmul(_floats(stored[block]), rows, out=product[block]), blocks)
            return product
        for wave in _split(blocks, run.threads):  # each part is as large as the product
            for part in run(lambda block: _floats(stored[block]).T @ rows[block], wave):
                product += part
        return product


def gram(left: Sequence[Floats], right: Floats, run: Workers) -> NDArray[np.float64]:
    """`spec.Kernels.gram` of tables without padding."""
    total = np.zeros((sum(rows.shape[1] for rows in left), right.shape[1]))

    def part(start: int) -> Floats:
        block = slice(start, start + ROWS)
        return np.vstack([rows[block].T @ right[block] for rows in left])

    for wave in _split(range(0, len(right), ROWS), WAVE):
        for product in run(part, wave):
            total += product
    return total


def combine(tables: Sequence[Floats], coefficients: NDArray[np.float64], run: Workers) -> Floats:
    """`spec.Kernels.combine` of tables without padding; the result is padded."""
    parts = np.split(coefficients.astype(F), np.cumsum([rows.shape[1] for rows in tables])[:-1])
    rank = coefficients.shape[1]
    result = aligned.empty((len(tables[0]), padded_width(rank)))

    def block(start: int) -> None:
        here = slice(start, start + ROWS)
        result[here, rank:] = 0
        np.matmul(tables[0][here], parts[0], out=result[here, :rank])
        for rows, part in zip(tables[1:], parts[1:], strict=True):
            result[here, :rank] += rows[here] @ part

    run(block, range(0, len(result), ROWS))
    return result


def pad(rows: Floats) -> Floats:
    """A C-order copy with zero columns up to a multiple of WIDTH (at least one vector)."""
    rank = rows.shape[1]
    padded = aligned.empty((len(rows), padded_width(rank)))
    padded[:, :rank] = rows
    padded[:, rank:] = 0
    return padded


def padded_width(rank: int) -> int:
    return max(WIDTH, -(-rank // WIDTH) * WIDTH)


def _floats(block: NDArray[Any]) -> Floats:
    return np.asarray(block, F)


def _split(tasks: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [tasks[start : start + size] for start in range(0, len(tasks), size)]
