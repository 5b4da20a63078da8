"""When each pair of a ratings table was, for splits by time."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.artifacts import Interactions
from recli.config import ReadConfig
from recli.errors import UsageError
from recli.ids import row_numbers
from recli.io.interactions import read_rows
from recli.io.sources import Source, table_errors


def read_times(found: Source, interactions: Interactions, config: ReadConfig) -> NDArray[np.int64]:
    """The time of each entry of the matrix that `read_interactions` made of the same table, by the same config: int64
    [nnz], dense ranks, since only their order matters. Of rows that repeat a pair, the latest; without a time, the
    oldest.

    Raises UsageError where the table has no timestamps.
    """
    if found.format == "npz":
        raise UsageError(f"{found.name}: interactions that are indexed already have no times: give the table")
    rows, _ = read_rows(found, dataclasses.replace(config, duplicates="last"))  # which alone reads times
    if not rows.times:
        raise UsageError(f"{found.name}: no column looks like the time: name it with --columns timestamp=NAME")
    items = len(interactions.item_ids)
    users, columns = (np.concatenate(nums) for nums in (rows.user_num, rows.item_num))
    with table_errors(found.name):
        ranks = pl.concat(list(rows.times)).rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    matrix = interactions.matrix
    entries = row_numbers(matrix.indptr) * items + matrix.indices
    at = np.searchsorted(entries, users.astype(np.int64) * items + columns)
    order = np.argsort(ranks, kind="stable")
    times = np.zeros(len(entries), np.int64)
    times[at[order]] = ranks[order]  # the last of those that repeat stays
    return times
