"""Products of matrices and tables, and of tables: sums over entries (product.cu) and tiles on tensor cores (product.cu,
gram.cu).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.kernels.gpu import tables
from recli.kernels.gpu.cuda import Array, Cuda
from recli.kernels.gpu.matrices import Part, SparseMatrix
from recli.kernels.gpu.tables import Table
from recli.kernels.gpu.transfers import Moving, moving
from recli.kernels.spec import Floats

SEGMENT = 1024  # entries that a warp adds up
HIGH, WIDE, DEEP = 128, 64, 32  # of product.cu
MULTIPLY_BYTES = 4 * (HIGH * (DEEP + 4) + DEEP * (WIDE + 8))  # of shared memory
GRAM_ROWS = 1024  # whose products are added in float32
GRAM_BYTES = 128 << 20  # of products that wait to be added in float64
GRAM_DEEP = 32  # of gram.cu
DENSE_BYTES = 64 << 20  # of a dense matrix, on the device at a time


def times(cuda: Cuda, matrix: SparseMatrix | NDArray[Any], table: Table) -> Table:
    """`spec.Kernels.product`."""
    if isinstance(matrix, np.ndarray):
        return _dense_times(cuda, matrix, table)
    product = tables.empty(cuda, len(matrix), table.rank)
    for part in matrix.parts(table.rows, product.rows):
        _add_entries(cuda, matrix.csr.indptr[part.first : part.behind + 1], part, table.width)
    return product


def _add_entries(cuda: Cuda, indptr: NDArray[np.int64], part: Part, width: int) -> None:
    """The rows of a part: those of few entries by one warp each, others in segments whose sums are added in order."""
    counts = -(-np.diff(indptr) // SEGMENT)
    few, many = np.flatnonzero(counts <= 1), np.flatnonzero(counts > 1)
    _sum_segments(cuda, part, width, indptr[few], indptr[few + 1], few.astype(np.int32), part.out)
    if not len(many):
        return
    first = np.append(0, np.cumsum(counts[many]))
    number = np.arange(first[-1]) - np.repeat(first[:-1], counts[many])  # of a segment in its row
    start = np.repeat(indptr[many], counts[many]) + SEGMENT * number
    behind = np.minimum(start + SEGMENT, np.repeat(indptr[many + 1], counts[many]))
    sums = cuda.empty((int(first[-1]), width))
    _sum_segments(cuda, part, width, start, behind, np.arange(first[-1], dtype=np.int32), sums)
    rows, bounds = cuda.upload(many.astype(np.int32)), cuda.upload(first)
    cuda.launch("product.add_parts", len(many), 256, rows, bounds, sums, width, part.out)


def _sum_segments(
    cuda: Cuda,
    part: Part,
    width: int,
    first: NDArray[np.int64],
    behind: NDArray[np.int64],
    out: NDArray[np.int32],
    sums: Array,
) -> None:
    cuda.launch(
        "product.sum_segments",
        (-(-len(first) // 4), -(-width // 128)),
        128,
        *(cuda.upload(array) for array in (first, behind, out)),
        len(first),
        part.origin,
        part.indices,
        part.weights,
        part.gathered,
        width,
        sums,
    )


def _dense_times(cuda: Cuda, matrix: NDArray[Any], table: Table) -> Table:
    """Block by block of what is contiguous on the host, rows or columns; and of rows of the product and of the table
    where those travel.
    """
    n, m = matrix.shape
    product = tables.empty(cuda, n, table.rank)
    size, travelling = DENSE_BYTES // 4, cuda.shares.block_bytes // max(1, 4 * table.width)
    high, wide = (size // max(1, m), m) if matrix.flags.c_contiguous else (n, size // max(1, n))
    if product.travels:
        high = min(high, travelling)
    if table.travels:
        wide = min(wide, travelling)
    rows, columns = tables.spans(n, high), tables.spans(m, wide)
    at = 0
    for (out,) in moving(cuda, [Moving(product.rows, rows, read=False, written=True)]):
        cuda.clear(out)
        done = 0
        for (right,) in moving(cuda, [Moving(table.rows, columns)]):
            block = matrix[at : at + len(out), done : done + len(right)]
            multiply(cuda, cuda.upload(np.ascontiguousarray(block, np.float32)), right, out, add=True)
            done += len(right)
        at += len(out)
    return product


def multiply(cuda: Cuda, left: Array, right: Array, product: Array, *, add: bool = False) -> None:
    """product [n, s] (OUT, where `add` IN/OUT) = left [n, pitch], its first r columns, times right [r, s]."""
    n, width = product.shape
    cuda.launch(
        "product.multiply",
        (-(-n // HIGH), -(-width // WIDE)),
        256,
        left,
        left.shape[1],
        right,
        n,
        right.shape[0],
        width,
        add,
        product,
        shared=MULTIPLY_BYTES,
    )


def combine(cuda: Cuda, tables_: Sequence[Table], coefficients: NDArray[np.float64]) -> Table:
    """`spec.Kernels.combine`."""
    product = tables.empty(cuda, len(tables_[0]), coefficients.shape[1])
    cuts = np.cumsum([table.rank for table in tables_])[:-1]
    factors = [_coefficients(cuda, part, product.width) for part in np.split(coefficients, cuts)]
    for *lefts, out in tables.in_blocks(cuda, read=[table.rows for table in tables_], written=[product.rows]):
        for number, (left, factor) in enumerate(zip(lefts, factors, strict=True)):
            multiply(cuda, left, factor, out, add=number > 0)
    return product


def add_product(cuda: Cuda, table: Table, left: Table, coefficients: NDArray[np.float64]) -> None:
    factor = _coefficients(cuda, coefficients, table.width)
    for rows, out in tables.in_blocks(cuda, read=[left.rows], changed=[table.rows]):
        multiply(cuda, rows, factor, out, add=True)


def _coefficients(cuda: Cuda, coefficients: NDArray[np.float64], width: int) -> Array:
    padded = np.zeros((len(coefficients), width), np.float32)
    with np.errstate(over="ignore"):  # shows in the product
        padded[:, : coefficients.shape[1]] = coefficients
    return cuda.upload(padded)


def gram(cuda: Cuda, left: Sequence[Table], right: Table) -> NDArray[np.float64]:
    """`spec.Kernels.gram`."""
    return np.vstack([_gram(cuda, table, right) for table in left])


def _gram(cuda: Cuda, left: Table, right: Table) -> NDArray[np.float64]:
    size = left.width * right.width
    total = cuda.zeros((left.width, right.width), np.float64)
    products = cuda.scratch(min(-(-len(left) // GRAM_ROWS), GRAM_BYTES // (4 * size)), 1, size)
    for sides in tables.in_blocks(cuda, read=[left.rows] if left is right else [left.rows, right.rows]):
        starts = np.arange(0, len(sides[0]), GRAM_ROWS)
        for at in range(0, len(starts), len(products)):
            first = starts[at : at + len(products)]
            slots = cuda.upload(first), cuda.upload(np.minimum(first + GRAM_ROWS, len(sides[0])))
            launch_gram(cuda, sides[0], sides[-1], 1.0, slots, len(first), 0, (None, None, None), products, None)
            cuda.launch("gram.add_products", tables.blocks_of(size), tables.THREADS, products, len(first), size, total)
    found: NDArray[np.float64] = cuda.download(total)[: left.rank, : right.rank]
    return found


def launch_gram(
    cuda: Cuda,
    left: Array,
    right: Array,
    scale: float,
    slots: tuple[Array, Array],
    count: int,
    origin: int,
    entries: tuple[Array, Array, Array],
    products: Array,
    sums: Array,
) -> None:
    """Weighted Gram matrices of `count` slots, of float32 or float16 rows: see gram.cu. entries: indices, weights,
    targets.
    """
    widths = left.shape[1], right.shape[1]
    tile = 64 if max(widths) <= 64 else 128
    down, across = (-(-width // tile) for width in widths)
    tiles = down * (down + 1) // 2 if left is right else down * across
    kind = "" if left.dtype == np.float32 else "_half"
    shared = 4 * (2 * GRAM_DEEP * (tile + 8) + 2 * GRAM_DEEP)
    cuda.launch(
        f"gram.gram_{tile}{kind}",
        (count, tiles),
        2 * tile,
        left,
        right,
        *widths,
        float(scale),
        *slots,
        origin,
        *entries,
        products,
        sums,
        shared=shared,
    )


def column_squares(cuda: Cuda, table: Table, weights: Floats) -> NDArray[np.float64]:
    """The sum over the first rows of weight times the row's squares, float64[width]."""
    squares = np.zeros(table.width)
    for rows, mine in tables.in_blocks(cuda, read=[table.rows[: len(weights)], weights]):
        blocks = min(len(mine), 4 * cuda.processors)
        sums = cuda.empty((blocks, table.width), np.float64)
        cuda.launch("rows.add_squares", blocks, tables.THREADS, rows, mine, len(mine), table.width, sums)
        squares += cuda.download(sums).sum(axis=0)
    return squares
