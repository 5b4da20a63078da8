"""The item table: which of a model's items meet a condition, and which have the same value of a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.config import ReadConfig
from recli.errors import DataError, UsageError
from recli.io.background import in_background
from recli.io.conditions import condition
from recli.io.requests import IdTable
from recli.io.sources import Source, table_errors


@dataclass(frozen=True)
class Items:
    """meets: bool[I], does an item of the model meet the condition, or None: there is none. groups: column -> int32[I],
    the same number for the same value, -1 where there is none. missing: how many of the model's items are not in the
    table; unknown: how many of its rows are not in the model.
    """

    meets: NDArray[np.bool_] | None
    groups: dict[str, NDArray[np.int32]]
    missing: int
    unknown: int


def read_items(found: Source, factors: Factors, config: ReadConfig, where: str | None, columns: Sequence[str]) -> Items:
    """Reads a table with a row an item. An item that is not in it does not meet the condition, and is in no group; nor
    does one for which the condition is NULL.

    Raises UsageError (--where, --max-per) and DataError.
    """
    table = IdTable(found, factors, "item", config)
    wanted = [pl.col(table.column).alias("id")]
    for at, column in enumerate(columns):
        wanted.append(_group(column, table.types, found.name).alias(f"group {at}"))
    if where is not None:
        wanted.append(condition(where, table.types, found.name, "--where").alias("meets"))
    with table_errors(found.name):
        frame = in_background(lambda: table.lazy.select(wanted).collect(engine="streaming"))
    ids, count = frame["id"], len(factors.item_ids)
    if not len(ids):
        raise DataError("no items", file=found.name)
    listed = table.look_up(ids)
    if repeated := len(ids) - listed.ids.n_unique():
        first = listed.ids.filter(listed.ids.is_duplicated())[0]
        raise DataError(
            f"column {table.column}: expected a row an item, found {repeated} more for items that have one ({first!r})",
            file=found.name,
        )
    nums = listed.nums
    known = nums >= 0
    groups = {column: np.full(count, -1, np.int32) for column in columns}
    for at, column in enumerate(columns):
        groups[column][nums[known]] = frame[f"group {at}"].to_numpy()[known]
    meets = None
    if where is not None:
        meets = np.zeros(count, bool)
        meets[nums[known]] = frame["meets"].fill_null(False).to_numpy()[known]
    return Items(meets, groups, count - int(known.sum()), int((~known).sum()))


def _group(column: str, types: dict[str, pl.DataType], name: str) -> pl.Expr:
    """Numbers from 0 up for the values of a column, -1 for missing ones."""
    if column not in types:
        raise UsageError(f"--max-per {column}: no such column; the columns are {', '.join(types)}", file=name)
    if types[column].is_nested() or types[column] == pl.Binary:
        raise UsageError(
            f"--max-per {column}: expected a column with one value an item, found {types[column]}", file=name
        )
    value = pl.col(column).fill_nan(None) if types[column].is_float() else pl.col(column)
    return (value.cast(pl.String).rank("dense").cast(pl.Int32) - 1).fill_null(-1)
