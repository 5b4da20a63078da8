"""What is done to some rows of tables at a time (rows.cu)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recli.kernels.gpu.cuda import Cuda
from recli.kernels.gpu.tables import THREADS, Table, blocks_of, empty, in_blocks, on_device, spans
from recli.kernels.gpu.transfers import Moving, moving
from recli.kernels.spec import Floats, Rule

KINDS = ("sgd", "adagrad", "adam")


def take(
    cuda: Cuda,
    rows: Floats | Table,
    nums: NDArray[np.int64],
    changes: Table | None,
    changed_at: NDArray[np.int64] | None,
) -> Table:
    """`spec.Kernels.take`."""
    source = rows.rows if isinstance(rows, Table) else rows
    rank = rows.rank if isinstance(rows, Table) else rows.shape[1]
    to, at = empty(cuda, len(nums), rank), 0
    added = None if changes is None else on_device(cuda, changes.rows)
    arrays = [nums] if changed_at is None else [nums, changed_at]
    for places, *changed, out in in_blocks(cuda, read=arrays, written=[to.rows]):
        there = source
        if isinstance(source, np.ndarray):  # only the rows in question travel
            some = nums[at : at + len(out)]
            fetched = np.zeros((len(some), to.width), np.float32)
            fetched[some >= 0, : source.shape[1]] = source[some[some >= 0]]
            there, places = cuda.upload(fetched), cuda.upload(np.arange(len(some)))
        cuda.launch(
            "rows.take",
            blocks_of(out.size),
            THREADS,
            *(there, places, added, changed[0] if changed else None, out, len(out), to.width),
        )
        at += len(out)
    return to


def add_rows(cuda: Cuda, table: Table, rows: Table, nums: NDArray[np.int64], scale: float) -> None:
    if rows.travels:
        rows, nums = take(cuda, rows, nums, None, None), np.arange(len(nums))
    there = on_device(cuda, rows.rows)
    for places, to in in_blocks(cuda, read=[nums], changed=[table.rows]):
        arguments = to, there, places, float(scale), len(to), table.width
        cuda.launch("rows.add_rows", blocks_of(to.size), THREADS, *arguments)


def step(
    cuda: Cuda,
    rule: Rule,
    parameter: Table,
    moments: Sequence[Table],
    nums: NDArray[np.int64] | None,
    gradient: Table,
) -> None:
    """`spec.Kernels.step`."""
    kind = 1 + KINDS.index(rule.kind) if moments else 0
    numbers, every = cuda.upload(rule.numbers), [parameter, *moments]
    if nums is None:
        parts = in_blocks(cuda, read=[gradient.rows], changed=[table.rows for table in every])
        blocks = ((None, *part) for part in parts)
    elif any(table.travels for table in every):
        for table in every:  # so that the same rows are fetched of all
            table.rows = table.rows if table.travels else cuda.download(table.rows)
        rows = spans(len(nums), cuda.shares.block_bytes // max(1, 4 * gradient.width))
        fetched = [Moving(table.rows, [nums[span] for span in rows], written=True) for table in every]
        blocks = ((None, *part) for part in moving(cuda, [Moving(gradient.rows, rows), *fetched]))
    else:
        parts = in_blocks(cuda, read=[nums, gradient.rows])
        blocks = ((*part, *(table.rows for table in every)) for part in parts)
    for places, slope, *there in blocks:
        first, second = [*there[1:], None, None][:2]
        arguments = numbers, there[0], first, second, places, slope, len(slope), gradient.width
        cuda.launch("rows.step", blocks_of(slope.size), THREADS, kind, *arguments)
