"""Tables on the device: float32 rows with zero columns up to a multiple of PADDING, so that rows are read 16 bytes at a
time, in whichever precision. What is done to a few rows of them at a time (rows.cu), and to pairs of rows (pairs.cu).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recli.kernels.gpu.cuda import Array, Cuda
from recli.kernels.spec import Floats, Nums, Rule
from recli.sorting import group

PADDING = 8
COPIED_BYTES = 64 << 20  # of a table, between host and device at a time
THREADS = 256
PAIRS = 1 << 20  # scored at a time
KINDS = ("sgd", "adagrad", "adam")


@dataclass
class Table:
    rows: Array  # float32[n, width]
    rank: int

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    @property
    def width(self) -> int:
        return int(self.rows.shape[1])


def padded_width(rank: int) -> int:
    return -(-rank // PADDING) * PADDING


def empty(cuda: Cuda, n: int, rank: int) -> Table:
    return Table(cuda.empty((n, padded_width(rank))), rank)


def upload(cuda: Cuda, rows: Floats) -> Table:
    n, rank = rows.shape
    table = empty(cuda, n, rank)
    for block in _blocks(n, table.width):
        part = rows[block]
        padded = part
        if rank != table.width:
            padded = np.zeros((len(part), table.width), np.float32)
            padded[:, :rank] = part
        table.rows[block].set(np.ascontiguousarray(padded))
    return table


def download(cuda: Cuda, table: Table) -> Floats:
    rows = np.empty((len(table), table.rank), np.float32)
    for block in _blocks(len(table), table.width):
        rows[block] = cuda.download(table.rows[block])[:, : table.rank]
    return rows


def _blocks(n: int, width: int) -> Iterator[slice]:
    size = max(1, COPIED_BYTES // max(1, 4 * width))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def blocks_of(entries: int) -> int:
    """How many blocks have a thread for each."""
    return -(-entries // THREADS)


def take(
    cuda: Cuda,
    rows: Floats | Table,
    nums: NDArray[np.int64],
    changes: Table | None,
    changed_at: NDArray[np.int64] | None,
) -> Table:
    """`spec.Kernels.take`."""
    if isinstance(rows, np.ndarray):  # only the rows in question travel
        there = nums >= 0
        taken = np.zeros((len(nums), rows.shape[1]), np.float32)
        taken[there] = rows[nums[there]]
        rows, nums = upload(cuda, taken), np.arange(len(nums))
    to = empty(cuda, len(nums), rows.rank)
    at = None if changes is None or changed_at is None else cuda.upload(changed_at)
    added = None if changes is None or at is None else changes.rows
    size = len(nums) * to.width
    cuda.launch(
        "rows.take", blocks_of(size), THREADS, rows.rows, cuda.upload(nums), added, at, to.rows, len(nums), to.width
    )
    return to


def add_rows(cuda: Cuda, table: Table, rows: Table, nums: NDArray[np.int64], scale: float) -> None:
    size = len(table) * table.width
    places = cuda.upload(nums)
    cuda.launch(
        "rows.add_rows",
        blocks_of(size),
        THREADS,
        table.rows,
        rows.rows,
        places,
        float(scale),
        len(table),
        table.width,
    )


def step(
    cuda: Cuda,
    rule: Rule,
    parameter: Table,
    moments: Sequence[Table],
    nums: NDArray[np.int64] | None,
    gradient: Table,
) -> None:
    first, second = ([moment.rows for moment in moments] + [None, None])[:2]
    kind = 1 + KINDS.index(rule.kind) if moments else 0
    size = len(gradient) * gradient.width
    places = None if nums is None else cuda.upload(nums)
    cuda.launch(
        "rows.step",
        blocks_of(size),
        THREADS,
        kind,
        cuda.upload(rule.numbers),
        parameter.rows,
        first,
        second,
        places,
        gradient.rows,
        len(gradient),
        gradient.width,
    )


def pair_dots(cuda: Cuda, users: Table, items: Table, user_at: Nums, item_at: Nums) -> Floats:
    dots = cuda.empty(len(user_at))
    at = cuda.upload(user_at), cuda.upload(item_at)
    cuda.launch(
        "pairs.pair_dots", -(-len(user_at) // 4), 128, users.rows, items.rows, *at, dots, len(user_at), users.width
    )
    return cuda.download(dots)


def pair_sums(cuda: Cuda, at: Nums, other_at: Nums, slopes: Floats, others: Table, rows: int) -> Table:
    """The sum over each row's pairs, at int32[n], of slope times the other side's row."""
    indptr, order = np.zeros(rows + 1, np.int64), np.empty(len(at), np.int32)
    group(at, indptr, order)
    sums = empty(cuda, rows, others.rank)
    size = rows * sums.width
    pairs = [cuda.upload(array) for array in (indptr, order, other_at, slopes)]
    cuda.launch("pairs.pair_sums", blocks_of(size), THREADS, *pairs, others.rows, sums.rows, rows, sums.width)
    return sums


def score_pairs(
    cuda: Cuda, users: Floats, items: Floats, user_nums: NDArray[np.int64], item_nums: NDArray[np.int64]
) -> Floats:
    """`spec.Kernels.score_pairs`. A table with fewer rows than there are pairs goes to the device whole, else its rows
    are fetched on the host.
    """
    n, rank = len(user_nums), users.shape[1]
    scores = np.empty(n, np.float32)
    whole = [cuda.upload(side) if len(side) <= n and 4 * side.nbytes <= cuda.left else None for side in (users, items)]
    for start in range(0, n, PAIRS):
        part = slice(start, start + PAIRS)
        count = len(scores[part])
        rows, places = [], []
        for table, side, nums in zip(whole, (users, items), (user_nums[part], item_nums[part]), strict=True):
            rows.append(cuda.upload(side[nums]) if table is None else table)
            places.append(cuda.upload(np.arange(count) if table is None else nums))
        found = cuda.empty(count)
        cuda.launch("pairs.score_pairs", -(-count // 32), 256, *rows, *places, found, count, rank)
        scores[part] = cuda.download(found)
    return scores
