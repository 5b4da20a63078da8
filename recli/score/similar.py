"""Nearest items (users) of items (users) by the cosine of their factors, without biases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.config import PROCESS_BYTES, ScoreConfig
from recli.errors import DataError, UsageError
from recli.ids import Csr
from recli.kernels.spec import Floats, Kernels, Nums
from recli.score.catalogue import Ranking
from recli.score.memory import fitting

BLOCK_ROWS = 1 << 14
BLOCK_NEIGHBOURS = 1 << 21  # rows times k
NEIGHBOUR_BYTES = 64  # a neighbour on its way to a file: heap, number, score, ids
WIDTH = 16  # columns that padding may add


class Neighbours(NamedTuple):
    """Of the rows asked for from position `start` on: numbers int32[n, k], -1 where there are fewer, and cosines
    float32[n, k], best first.
    """

    start: int
    nums: Nums
    cosines: Floats


def block_similar(shape: tuple[int, int], config: ScoreConfig, limit: int | None) -> int:
    """How many rows of a table to find the neighbours of at a time: memory stays below `limit` bytes, if given. Raises
    BusyError (75) where that is impossible.
    """
    rows, rank = shape
    row = 4 * (rank + WIDTH)
    return fitting(
        max(1, min(BLOCK_ROWS, BLOCK_NEIGHBOURS // config.k)),
        limit,
        fixed=PROCESS_BYTES + 4 * row * rows,  # as stored, normalised, sorted, padded
        each=NEIGHBOUR_BYTES * config.k + 4 * row,
        work="finding neighbours",
    )


def similar(
    table: Floats,
    asked: NDArray[np.int64],
    candidates: Nums | None,
    config: ScoreConfig,
    kernels: Kernels,
    block: int = BLOCK_ROWS,
) -> Iterator[Neighbours]:
    """The k nearest of each row asked for, itself left out: higher cosine, then lower number.

    table: float32[n, rank]. candidates: ascending numbers of what may be a neighbour, or None: all. A cosine is the
    score (kernels/spec.py) of the two rows after each has been divided by its norm in float64 and rounded to float32:
    within 2e-7 of the true one, so it may exceed 1 by as much. A zero row has cosine 0 to every other.

    Raises at once DataError where there are no columns to compare, UsageError where k exceeds the other rows.
    """
    count, rank = table.shape
    if not rank:
        raise DataError("the model has rank 0 (solver pop): it has no factors to compare")
    if config.k > max(1, count - 1):
        raise UsageError(f"-k {config.k}: there are {count - 1} others in the model: give at most -k {count - 1}")
    return _blocks(table, asked, candidates, config, kernels, block)


def _blocks(
    table: Floats,
    asked: NDArray[np.int64],
    candidates: Nums | None,
    config: ScoreConfig,
    kernels: Kernels,
    size: int,
) -> Iterator[Neighbours]:
    count = table.shape[0]
    everyone = np.arange(count) if candidates is None else candidates
    ranking = Ranking(kernels, unit_rows(table, everyone), candidates, count)
    for start in range(0, len(asked), size):
        nums = asked[start : start + size]
        itself = Csr(np.arange(len(nums) + 1), nums.astype(np.int32), np.zeros(0, np.float32))
        found, cosines = ranking.top(unit_rows(table, nums), config.k, itself)
        if config.min_score is not None:
            found[cosines < config.min_score] = -1
        yield Neighbours(start, found, cosines)


def unit_rows(table: Floats, nums: NDArray[np.integer]) -> Floats:
    """These rows divided by their norms, zero rows as they are: float32[len(nums), rank]. The same bits whatever else
    is asked for: a sum along a row is taken by itself.
    """
    rows = np.empty((len(nums), table.shape[1]), np.float32)
    for start in range(0, len(nums), BLOCK_ROWS):
        exact = np.asarray(table[nums[start : start + BLOCK_ROWS]], np.float64)
        norms = np.sqrt((exact * exact).sum(axis=1, keepdims=True))
        rows[start : start + BLOCK_ROWS] = np.divide(exact, norms, out=exact, where=norms > 0)
    return rows
