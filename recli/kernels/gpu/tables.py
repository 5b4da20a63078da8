"""Tables on the device: float32 rows with zero columns up to a multiple of PADDING, so that rows are read 16 bytes at a
time, in whichever precision. A table that would take too much of the memory stays on the host, and its rows travel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from recli.kernels.gpu.cuda import Array, Cuda
from recli.kernels.gpu.memory import DeviceMemoryError, halving
from recli.kernels.gpu.transfers import Moving, moving, started
from recli.kernels.spec import Floats

PADDING = 8
ROUND = 1024  # a block's rows, where there is room for more: a multiple of what Gram matrices are summed in
THREADS = 256


@dataclass
class Table:
    rows: Array | NDArray[Any]  # float32[n, width]
    rank: int

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    @property
    def width(self) -> int:
        return int(self.rows.shape[1])

    @property
    def travels(self) -> bool:
        return isinstance(self.rows, np.ndarray)


def padded_width(rank: int) -> int:
    return -(-rank // PADDING) * PADDING


def place(cuda: Cuda, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array | NDArray[Any]:
    """Memory for rows: on the device, or on the host where they would take more than a share of what may be had."""
    if math.prod(shape) * np.dtype(dtype).itemsize <= cuda.shares.kept * cuda.available:
        try:
            return cuda.empty(shape, dtype)
        except DeviceMemoryError:  # there is enough, but not in one piece
            pass
    return np.empty(shape, dtype)


def empty(cuda: Cuda, n: int, rank: int) -> Table:
    return Table(place(cuda, (n, padded_width(rank))), rank)


def zeros(cuda: Cuda, n: int, rank: int) -> Table:
    table = empty(cuda, n, rank)
    if table.travels:
        table.rows = np.zeros(table.rows.shape, np.float32)  # which takes memory when it is written
    else:
        cuda.clear(table.rows)
    return table


def upload(cuda: Cuda, rows: Floats, *, borrow: bool = False) -> Table:
    """borrow: a table that stays on the host may be `rows` themselves."""
    table = empty(cuda, *rows.shape)
    if table.travels and borrow and table.rank == table.width:
        return Table(rows, table.rank)
    if not table.travels:
        _fill(cuda, table.rows, rows)
        return table
    table.rows[:, : table.rank], table.rows[:, table.rank :] = rows, 0
    return table


def to_device(cuda: Cuda, rows: Floats) -> Array:
    """The rows of a table, on the device whatever they take of its memory."""
    array = cuda.empty((len(rows), padded_width(rows.shape[1])))
    _fill(cuda, array, rows)
    return array


def _fill(cuda: Cuda, array: Array, rows: Floats) -> None:
    rank, width = rows.shape[1], int(array.shape[1])
    for block in spans(len(rows), cuda.shares.block_bytes // max(1, 4 * width)):
        part = rows[block]
        if rank != width:
            part = np.zeros((len(part), width), np.float32)
            part[:, :rank] = rows[block]
        array[block].set(np.ascontiguousarray(part))


def download(cuda: Cuda, table: Table) -> Floats:
    rows = np.empty((len(table), table.rank), np.float32)
    for block in spans(len(table), cuda.shares.block_bytes // max(1, 4 * table.width)):
        part = table.rows[block] if table.travels else cuda.download(table.rows[block])
        rows[block] = part[:, : table.rank]
    return rows


def spans(n: int, size: int) -> list[slice]:
    """0 to n - 1, so many at a time."""
    return [slice(start, min(start + max(1, size), n)) for start in range(0, n, max(1, size))]


def in_blocks(
    cuda: Cuda,
    read: Sequence[Array | NDArray[Any]] = (),
    changed: Sequence[Array | NDArray[Any]] = (),
    written: Sequence[Array | NDArray[Any]] = (),
) -> Iterator[list[Array]]:
    """Neighbouring rows of all these arrays, on the device, block after block; all rows at once where none travels."""
    arrays = [*read, *changed, *written]
    n, row_bytes = len(arrays[0]), sum(array[:1].nbytes for array in arrays if isinstance(array, np.ndarray))

    def attempt(size: int) -> Iterator[list[Array]]:
        blocks = spans(n, size)
        kinds = [(read, True, False), (changed, True, True), (written, False, True)]
        return started(moving(cuda, [Moving(array, blocks, *how) for some, *how in kinds for array in some]))

    most = min(n, cuda.shares.block_bytes // row_bytes) if row_bytes else n
    return halving(attempt, most // ROUND * ROUND if ROUND < most < n else most)


def blocks_of(entries: int) -> int:
    """How many blocks have a thread for each."""
    return -(-entries // THREADS)


def on_device(cuda: Cuda, array: Array | NDArray[Any]) -> Array:
    return cuda.upload(array) if isinstance(array, np.ndarray) else array
