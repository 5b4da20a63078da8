"""Pairs of rows (pairs.cu): dot products, exact scores, and what rows gain by their pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.kernels.gpu.cuda import Array, Cuda
from recli.kernels.gpu.tables import THREADS, Table, blocks_of, empty, in_blocks, on_device, spans
from recli.kernels.spec import Floats, Nums
from recli.sorting import group

PAIRS = 1 << 20  # at a time


def pair_dots(cuda: Cuda, users: Table, items: Table, user_at: Nums, item_at: Nums) -> Floats:
    """`spec.Kernels.pair_dots`."""
    dots = np.empty(len(user_at), np.float32)
    for span, rows, places in _pairs(cuda, (users.rows, items.rows), (user_at, item_at)):
        found = cuda.empty(len(dots[span]))
        cuda.launch("pairs.pair_dots", -(-len(found) // 4), 128, *rows, *places, found, len(found), users.width)
        dots[span] = cuda.download(found)
    return dots


def score_pairs(
    cuda: Cuda, users: Floats, items: Floats, user_nums: NDArray[np.int64], item_nums: NDArray[np.int64]
) -> Floats:
    """`spec.Kernels.score_pairs`. A table with fewer rows than there are pairs goes to the device whole, else its rows
    are fetched on the host.
    """
    n, scores = len(user_nums), np.empty(len(user_nums), np.float32)
    sides = [cuda.upload(side) if len(side) <= n and 4 * side.nbytes <= cuda.left else side for side in (users, items)]
    for span, rows, places in _pairs(cuda, sides, (user_nums, item_nums)):
        found = cuda.empty(len(scores[span]))
        cuda.launch("pairs.score_pairs", -(-len(found) // 32), 256, *rows, *places, found, len(found), users.shape[1])
        scores[span] = cuda.download(found)
    return scores


def _pairs(
    cuda: Cuda, sides: Sequence[Array | NDArray[Any]], at: Sequence[NDArray[Any]]
) -> Iterator[tuple[slice, list[Array], list[Array]]]:
    """Pairs of rows of two sides, some at a time: on the device the sides, or of those on the host the rows in
    question, and where in them each pair's rows are.
    """
    row_bytes = max((side[:1].nbytes for side in sides if isinstance(side, np.ndarray)), default=0)
    for span in spans(len(at[0]), min(PAIRS, cuda.shares.block_bytes // row_bytes) if row_bytes else PAIRS):
        rows, places = [], []
        for side, nums in zip(sides, at, strict=True):
            far, some = isinstance(side, np.ndarray), nums[span]
            rows.append(cuda.upload(side[some]) if far else side)
            places.append(cuda.upload(np.arange(len(some), dtype=some.dtype) if far else some))
        yield span, rows, places


def pair_sums(cuda: Cuda, at: Nums, other_at: Nums, slopes: Floats, others: Table, rows: int) -> Table:
    """The sum over each row's pairs, at int32[n], of slope times the other side's row."""
    indptr, order = np.zeros(rows + 1, np.int64), np.empty(len(at), np.int32)
    group(at, indptr, order)
    sums, there = empty(cuda, rows, others.rank), on_device(cuda, others.rows)
    bounds, *pairs = (cuda.upload(array) for array in (indptr, order, other_at, slopes))
    at_row = 0
    for (to,) in in_blocks(cuda, written=[sums.rows]):
        arguments = bounds[at_row : at_row + len(to) + 1], *pairs, there, to, len(to), sums.width
        cuda.launch("pairs.pair_sums", blocks_of(to.size), THREADS, *arguments)
        at_row += len(to)
    return sums
