"""An alternating least-squares half-sweep on the device: rows of few entries by solve.cu, of many by gram.cu.

The steps are those of the CPU's (kernels/cpu/half_sweep.py): conjugate gradients in the eigenbasis of the Gram matrix,
so that both backends agree after any number of them. A row's kernel is chosen by its length, and rows of about one
length run together, so that each block has as much shared memory as it needs and no more.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.kernels.gpu import products, tables
from recli.kernels.gpu.cuda import Array, Cuda
from recli.kernels.gpu.matrices import Part, SparseMatrix
from recli.kernels.gpu.memory import DeviceMemoryError
from recli.kernels.gpu.tables import Table
from recli.kernels.halves import half_exponent
from recli.kernels.spec import Floats, Nums, SweepStats

BUCKETS = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # entries of a row: those up to each are solved together
# Rows with more entries, and more than so many times the rank, have their Gram matrix built: it is gathered for once,
# and then a step costs rank^2. Its sum is divided among blocks of CHUNK entries.
DENSE_ENTRIES, DENSE_RANKS, CHUNK = 512, 4, 4096
DENSE_BYTES = 256 << 20  # of such matrices at a time
ROTATED_BYTES = 64 << 20  # of a table at a time
BATCH = 256  # of solve.cu


class Side(NamedTuple):
    """What all rows of a sweep share. scale: of the rows that are gathered, see solve.cu."""

    scale: float
    gram_diagonal: Array
    spread: Array
    frozen: Array
    width: int
    steps: int
    tolerance: float
    relaxation: float

    def problem(self, part: Part) -> tuple[Any, ...]:
        """What both kinds of rows are solved with, in the kernels' order."""
        vectors = (self.gram_diagonal, part.regularization, self.spread, self.frozen)
        return (*vectors, self.width, self.steps, self.tolerance, self.relaxation)


def half_sweep(
    cuda: Cuda,
    matrix: SparseMatrix,
    solve: Table,
    fixed: Table,
    *,
    targets: Floats,
    alpha0: float,
    regularization: Floats,
    steps: int,
    relaxation: float,
    tolerance: float,
    frozen: tuple[int, ...],
) -> SweepStats:
    """`spec.Kernels.half_sweep`."""
    width = fixed.width
    gram_diagonal, spread = np.zeros(width, np.float32), np.zeros(width, np.float32)
    spectrum = None
    with np.errstate(over="ignore", invalid="ignore"):  # which shows in the terms
        if alpha0:
            spectrum = to_eigenbasis(cuda, solve, fixed)
            if spectrum is None:
                return SweepStats(np.nan, np.nan, np.nan)
            gram_diagonal[: fixed.rank] = alpha0 * spectrum
        else:
            spread[:] = products.column_squares(cuda, fixed, matrix.column_weights) / max(1, len(matrix.csr.indices))
    rows, scale = _source(cuda, fixed, spectrum, steps)
    mask = np.zeros(width, np.uint8)
    mask[list(frozen)] = 1
    diagonals = cuda.upload(gram_diagonal), cuda.upload(spread), cuda.upload(mask)
    side = Side(scale, *diagonals, width, steps, float(tolerance), float(relaxation))
    sums = cuda.zeros(3, np.float64)
    for part in matrix.parts(rows, solve.rows, targets, regularization):
        indptr, n = matrix.csr.indptr[part.first : part.behind + 1], part.behind - part.first
        lengths, longest = np.diff(indptr)[part.host_order], max(DENSE_ENTRIES, DENSE_RANKS * width)
        dense = int(np.searchsorted(-lengths, -longest, side="left"))
        terms = cuda.empty((n, 3), np.float64)
        _solve_dense(cuda, side, part, indptr, part.host_order[:dense], lengths[:dense], terms)
        _solve_sparse(cuda, side, part, part.order[dense:], lengths[dense:], terms)
        cuda.launch("gram.add_terms", 1, 1024, terms, n, sums, shared=256)
    return SweepStats(*map(float, cuda.download(sums)))


def _solve_sparse(cuda: Cuda, side: Side, part: Part, rows: Array, lengths: NDArray[np.int64], terms: Array) -> None:
    """The part's rows of few entries, the longest first."""
    width, item = side.width, part.gathered.dtype.itemsize
    vector = 16 // item
    lanes = 1
    while lanes < 32 and lanes * vector < width:
        lanes *= 2
    bounds = np.searchsorted(-lengths, [-bucket for bucket in BUCKETS], side="left")
    for first, behind in pairwise(np.unique([0, *bounds, len(lengths)]).tolist()):
        longest = int(lengths[first])
        threads = 128 if longest <= 64 else 256 if longest <= 256 else 512
        groups = max(1, threads // (width // 2))
        shared = 4 * (96 + 2 * BATCH + (5 + groups) * width)
        kept = longest * width * item
        if shared > cuda.shared_limit:
            raise DeviceMemoryError(
                f"rank {width}: {shared} bytes of a GPU block's memory are needed, there are {cuda.shared_limit}: "
                "use a smaller --rank, or --device cpu"
            )
        keep = shared + kept <= cuda.shared_limit
        cuda.launch(
            "solve.solve_rows" if item == 4 else "solve.solve_rows_half",
            behind - first,
            threads,
            part.indptr,
            part.origin,
            part.indices,
            part.weights,
            part.targets,
            rows[first:behind],
            part.out,
            part.gathered,
            side.scale,
            *side.problem(part),
            keep,
            lanes,
            groups,
            terms,
            shared=shared + keep * kept,
        )


def _solve_dense(
    cuda: Cuda,
    side: Side,
    part: Part,
    indptr: NDArray[np.int64],
    rows: Nums,
    lengths: NDArray[np.int64],
    terms: Array,
) -> None:
    """The part's rows of many entries, as many at a time as have room for their chunks' matrices."""
    if not len(rows):
        return
    width = side.width
    counts = -(-lengths // CHUNK)
    grams = cuda.scratch(min(int(counts.sum()), DENSE_BYTES // (4 * width * width)), int(counts.max()), width * width)
    sums = cuda.empty((len(grams), width))
    done = 0
    while done < len(rows):
        slots = np.append(0, np.cumsum(counts[done:]))
        taken = int(np.searchsorted(slots, len(grams), side="right")) - 1
        slots, here = slots[: taken + 1], slice(done, done + taken)
        number = np.arange(slots[-1]) - np.repeat(slots[:-1], counts[here])
        start = np.repeat(indptr[rows[here]], counts[here]) + CHUNK * number
        behind = np.minimum(start + CHUNK, np.repeat(indptr[rows[here] + 1], counts[here]))
        products.launch_gram(
            cuda,
            part.gathered,
            part.gathered,
            side.scale,
            (cuda.upload(start), cuda.upload(behind)),
            len(start),
            part.origin,
            (part.indices, part.weights, part.targets),
            grams,
            sums,
        )
        cuda.launch(
            "gram.solve_dense",
            taken,
            512,
            cuda.upload(rows[here]),
            cuda.upload(slots.astype(np.int32)),
            grams,
            sums,
            part.indptr,
            part.out,
            *side.problem(part),
            terms,
            shared=4 * (96 + 5 * width),
        )
        done += taken


def to_eigenbasis(cuda: Cuda, solve: Table, fixed: Table) -> NDArray[np.float64] | None:
    """Rotates both tables (IN/OUT) so that fixed^T fixed is diagonal; its diagonal, or None where it overflows."""
    squares = products.gram(cuda, [fixed], fixed)
    if not np.isfinite(squares).all():
        return None
    values, vectors = np.linalg.eigh(squares)
    basis = np.zeros((fixed.width, fixed.width), np.float32)
    basis[: fixed.rank, : fixed.rank] = vectors
    on_device = cuda.upload(basis)
    most = min(max(len(solve), len(fixed)), ROTATED_BYTES // (4 * fixed.width))
    rotated = cuda.scratch(most, 1, fixed.width)
    for table in (solve, fixed):
        for (rows,) in tables.in_blocks(cuda, changed=[table.rows]):
            for start in range(0, len(rows), len(rotated)):
                block = rows[start : start + len(rotated)]
                products.multiply(cuda, block, on_device, rotated[: len(block)])
                cuda.copy(rotated[: len(block)], block)
    return np.asarray(np.maximum(values, 0), np.float64)


def _source(
    cuda: Cuda, fixed: Table, spectrum: NDArray[np.float64] | None, steps: int
) -> tuple[Array | NDArray[Any], float]:
    """What a sweep gathers: the rows and 1, or float16 rows and what those are to be multiplied by."""
    exponent = half_exponent(spectrum, steps, fixed.rows.nbytes)
    if exponent is None:
        return fixed.rows, 1.0
    halves = tables.place(cuda, fixed.rows.shape, np.uint16)
    for rows, rounded in tables.in_blocks(cuda, read=[fixed.rows], written=[halves]):
        size = int(rows.size)
        cuda.launch("rows.round_rows", tables.blocks_of(size), tables.THREADS, rows, 2.0**exponent, rounded, size)
    return halves, 2.0**-exponent
