"""The CPU backend: numba kernels over chunks of rows on a thread pool, single-threaded BLAS inside.

Threads are Python's: the kernels release the GIL, the main thread waits in Python (so Ctrl-C and SIGTERM act at once),
and each chunk's result is its own, so the number of threads never changes a bit of the result.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from recli.ids import Csr
from recli.kernels.cpu import aligned, touched
from recli.kernels.cpu.half_sweep import solve_rows, to_halves
from recli.kernels.cpu.item_index import ItemIndex
from recli.kernels.cpu.pairs import score_pairs
from recli.kernels.cpu.pool import Pool
from recli.kernels.cpu.product import DenseMatrix, SparseMatrix, chunks, combine, gram, pad, padded_width
from recli.kernels.cpu.topk import topk
from recli.kernels.cpu.workers import Workers
from recli.kernels.halves import half_exponent
from recli.kernels.spec import Floats, Nums, Rule, SweepStats

BLOCK = 4096  # rows of a table handled together by BLAS
# Gathered rows that a solve keeps, on each thread; beyond it, reading them from the table again is as fast.
CACHED_BYTES = 2 << 20


@dataclass
class Table:
    rows: Floats  # for products and sweeps with zero columns up to a multiple of simd.WIDTH
    rank: int
    pool: Pool | None = None  # that the rows go back to

    @property
    def filled(self) -> Floats:
        return self.rows[:, : self.rank]

    def widen(self) -> None:
        """Gives the rows the zero columns that products and sweeps take them to have, where they have none yet."""
        if self.rows.shape[1] != padded_width(self.rank):
            self.rows, self.pool = pad(self.filled), None

    def __del__(self) -> None:
        if self.pool:
            self.pool.give_back(self.rows)


class CpuKernels:
    """See `spec.Kernels`."""

    name = "cpu"

    def __init__(self, threads: int) -> None:
        self._run = Workers(threads)
        self._blas = ThreadpoolController()
        self._pool = Pool()

    def __enter__(self) -> CpuKernels:
        return self

    def __exit__(self, *exception: object) -> None:
        self._run.shutdown()

    def matrix(self, matrix: Csr | NDArray[Any]) -> SparseMatrix | DenseMatrix:
        if isinstance(matrix, np.ndarray):
            return DenseMatrix(matrix)
        return SparseMatrix(matrix, chunks(matrix.indptr))

    def table(self, rows: Floats) -> Table:
        return Table(pad(rows), rows.shape[1])

    def view(self, rows: Floats) -> Table:
        return Table(np.ascontiguousarray(rows), rows.shape[1])

    def host(self, table: Table) -> Floats:
        return table.filled.copy()

    def product(self, matrix: SparseMatrix | DenseMatrix, table: Table) -> Table:
        table.widen()
        with self._blas.limit(limits=1):
            return Table(matrix.times(table.rows, self._run), table.rank)

    def gram(self, left: Sequence[Table], right: Table) -> NDArray[np.float64]:
        with self._blas.limit(limits=1):
            return gram([table.filled for table in left], right.filled, self._run)

    def combine(self, tables: Sequence[Table], coefficients: NDArray[np.float64]) -> Table:
        with self._blas.limit(limits=1):
            return Table(combine([table.filled for table in tables], coefficients, self._run), coefficients.shape[1])

    def half_sweep(
        self,
        matrix: SparseMatrix,
        solve: Table,
        fixed: Table,
        *,
        targets: Floats,
        alpha0: float,
        regularization: Floats,
        steps: int,
        relaxation: float,
        tolerance: float = 0.0,
        frozen: tuple[int, ...] = (),
    ) -> SweepStats:
        for table in (solve, fixed):
            table.widen()
        width = fixed.rows.shape[1]
        gram_diagonal, spread = np.zeros(width, np.float32), np.zeros(width, np.float32)
        spectrum = None
        with self._blas.limit(limits=1), np.errstate(over="ignore", invalid="ignore"):  # which shows in the terms
            if alpha0:
                spectrum = self._to_eigenbasis(solve, fixed)
                if spectrum is None:
                    return SweepStats(np.nan, np.nan, np.nan)
                gram_diagonal[: fixed.rank] = alpha0 * spectrum
            else:  # no Gram matrix to precondition with: what an entry adds to the diagonal of A on average
                spread[:] = (matrix.column_weights @ fixed.rows[: len(matrix.column_weights)] ** 2) / max(
                    1, len(matrix.csr.indices)
                )
            source, scale = self._source(fixed.rows, spectrum, steps)
        indptr, indices, values_ = matrix.csr
        cap = max(4, CACHED_BYTES // (4 * width) // 4 * 4)
        local = threading.local()

        def piece(chunk: tuple[int, int]) -> tuple[float, float, float]:
            if not hasattr(local, "gathered"):
                local.gathered = aligned.empty((cap, width))
                local.scratch = aligned.empty((5, width))
            result: tuple[float, float, float] = solve_rows(
                indptr,
                indices,
                values_,
                targets,
                *chunk,
                solve.rows,
                source.ctypes.data,
                scale,
                gram_diagonal,
                regularization,
                spread,
                np.array(frozen, np.int64),
                steps,
                np.float32(tolerance),
                np.float32(relaxation),
                local.gathered,
                local.scratch,
            )
            return result

        terms = self._run(piece, matrix.chunks)
        return (
            SweepStats(*(float(sum(column)) for column in zip(*terms, strict=True))) if terms else SweepStats(0, 0, 0)
        )

    def index_items(self, items: Floats) -> ItemIndex:
        norms = np.sqrt(np.einsum("ir,ir->i", items, items, dtype=np.float64))
        order = np.argsort(-norms, kind="stable").astype(np.int32)
        return ItemIndex(pad(items[order]), norms[order], order)

    def index_arrays(self, index: ItemIndex) -> dict[str, NDArray[Any]]:
        return index.arrays

    def index_from(self, arrays: Mapping[str, NDArray[Any]]) -> ItemIndex:
        rows = arrays["rows"]
        rows = rows if rows.shape[1] == padded_width(rows.shape[1]) else pad(rows)
        return ItemIndex(rows, arrays["norms"], arrays["order"])

    def topk(self, index: ItemIndex, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        with self._blas.limit(limits=1):
            return topk(self._run, index, users, k, excluded)

    def score_pairs(
        self, users: Floats, items: Floats, user_nums: NDArray[np.int64], item_nums: NDArray[np.int64]
    ) -> Floats:
        return score_pairs(self._run, users, items, user_nums, item_nums)

    def zeros(self, rows: int, rank: int) -> Table:
        return Table(aligned.zeros((rows, rank)), rank)  # which the system gives page by page, once written

    def take(
        self,
        rows: Floats | Table,
        nums: NDArray[np.int64],
        changes: Table | None = None,
        changed_at: NDArray[np.int64] | None = None,
    ) -> Table:
        source, rank = (rows.rows, rows.rank) if isinstance(rows, Table) else (rows, rows.shape[1])
        added = None if changes is None else changes.rows
        taken = self._pool.empty(len(nums), rank)
        touched.take(self._run, source, nums, added, changed_at, taken)
        return Table(taken, rank, self._pool)

    def add_rows(self, table: Table, rows: Table, nums: NDArray[np.int64], scale: float = 1.0) -> None:
        touched.add_rows(self._run, table.rows, rows.rows, nums, scale, table.rank)

    def add_product(self, table: Table, left: Table, coefficients: NDArray[np.float64]) -> None:
        with self._blas.limit(limits=1):
            touched.add_product(self._run, table.filled, left.filled, coefficients.astype(np.float32))

    def pair_dots(self, users: Table, items: Table, user_at: Nums, item_at: Nums) -> Floats:
        return touched.pair_dots(self._run, users.rows, items.rows, user_at, item_at, users.rank)

    def pair_gradients(
        self, users: Table, items: Table, user_at: Nums, item_at: Nums, slopes: Floats
    ) -> tuple[Table, Table]:
        by_user, by_item = (self._pool.empty(len(side.rows), users.rank) for side in (users, items))
        touched.pair_sums(self._run, user_at, item_at, slopes, items.rows, by_user)
        touched.pair_sums(self._run, item_at, user_at, slopes, users.rows, by_item)
        return Table(by_user, users.rank, self._pool), Table(by_item, users.rank, self._pool)

    def step(
        self, rule: Rule, parameter: Table, moments: Sequence[Table], nums: NDArray[np.int64] | None, gradient: Table
    ) -> None:
        tables = [moment.rows for moment in moments]
        touched.step(self._run, rule, parameter.rows, tables, nums, gradient.rows, parameter.rank)

    def _to_eigenbasis(self, solve: Table, fixed: Table) -> NDArray[np.float64] | None:
        """Rotates both tables (IN/OUT) so that fixed^T fixed is diagonal; its diagonal, or None where it overflows."""
        rank, width = fixed.rank, fixed.rows.shape[1]
        squares = gram([fixed.filled], fixed.filled, self._run)
        if not np.isfinite(squares).all():
            return None
        values, vectors = np.linalg.eigh(squares)
        basis = np.zeros((width, width), np.float32)  # the zero columns stay where they are, behind the others
        basis[:rank, :rank] = vectors
        self._rotate(solve.rows, basis)
        self._rotate(fixed.rows, basis)
        return np.asarray(np.maximum(values, 0), np.float64)

    def _source(
        self, rows: Floats, spectrum: NDArray[np.float64] | None, steps: int
    ) -> tuple[NDArray[Any], np.float32]:
        """What a sweep gathers: the rows and 0, or the bits of float16 rows and what those are to be multiplied by."""
        exponent = half_exponent(spectrum, steps, rows.nbytes)
        if exponent is None:
            return rows, np.float32(0)
        halves = aligned.empty(rows.shape, np.uint16)

        def block(start: int) -> None:
            to_halves(rows[start : start + BLOCK], np.float32(2.0**exponent), halves[start : start + BLOCK])

        self._run(block, range(0, len(rows), BLOCK))
        return halves, np.float32(2.0**-exponent)

    def _rotate(self, rows: Floats, basis: Floats) -> None:
        """rows (IN/OUT) @ basis, block by block in place."""

        def block(start: int) -> None:
            rows[start : start + BLOCK] = rows[start : start + BLOCK] @ basis

        self._run(block, range(0, len(rows), BLOCK))
