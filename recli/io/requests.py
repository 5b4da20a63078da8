"""Tables about a model's users: whom to score (`--users`), and what they went on to do (`--truth`)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.config import ReadConfig
from recli.errors import DataError
from recli.ids import Ids, to_csr
from recli.io.background import in_background
from recli.io.id_columns import look_up, number_ids, to_series
from recli.io.interactions import find_columns, read_rows
from recli.io.sources import Source, column_types, first_line, scan, table_errors
from recli.metrics import Truth


@dataclass(frozen=True)
class Users:
    """Users to score, in order, each once. ids: in the type of the model's; nums: int64[n], -1 where the model does not
    know one.
    """

    ids: pl.Series
    nums: NDArray[np.int64]


def everyone(factors: Factors) -> Users:
    return Users(to_series(factors.user_ids, "user"), np.arange(len(factors.user_ids)))


def read_users(found: Source, factors: Factors, config: ReadConfig) -> Users:
    """A table with a user column, or a plain list of ids, one a line. Ids that occur again count once."""
    columns, header = config.columns, config.header
    if found.format == "csv" and "user" not in columns:
        names = list(column_types(scan(found, header=header), found.name))
        if len(names) == 1:
            header = header and _is_heading(first_line(found), factors)
            columns = {"user": names[0] if header else "column_1"}
    types = column_types(scan(found, header=header), found.name)
    names = list(types)
    model_name = factors.provenance.columns["user"]
    if "user" not in columns and model_name in names:
        columns = {**columns, "user": model_name}
    column = find_columns(names, dataclasses.replace(config, columns=columns), found.name, roles=("user",))[0]["user"]
    lazy = scan(found, [column], header=header, types=types)
    if found.format == "csv":
        lazy = lazy.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
    with table_errors(found.name):
        ids = in_background(lambda: lazy.select(column).collect(engine="streaming"))[column].unique(maintain_order=True)
    if not len(ids):
        raise DataError("no users", file=found.name)
    return _look_up(ids, factors.user_ids, column, found.name)


def _is_heading(line: str, factors: Factors) -> bool:
    """Is the line of a one-column file the name of a user column, rather than an id?"""
    name = line.strip().strip('"')
    try:
        find_columns([name], ReadConfig(), "", roles=("user",))
    except DataError:
        return name == factors.provenance.columns["user"]
    return True


def read_truth(found: Source, factors: Factors, config: ReadConfig) -> tuple[Users, Truth]:
    """Held-out interactions. Every row counts as relevant, whatever its rating: filter with `where`."""
    columns = {**factors.provenance.columns, **config.columns}
    names = list(column_types(scan(found, header=config.header), found.name))
    columns = {role: column for role, column in columns.items() if column in names or role in config.columns}
    frame, _ = read_rows(found, dataclasses.replace(config, columns=columns), ids_only=True, where_flag="--truth-where")
    typed = found.format == "parquet"
    with table_errors(found.name):
        rows, user_ids = number_ids(frame["user"], typed=typed)
        item_rows, item_ids = number_ids(frame["item"], typed=typed)
    users = _look_up(to_series(user_ids, "user"), factors.user_ids, columns.get("user", "user"), found.name)
    known = _look_up(to_series(item_ids, "item"), factors.item_ids, columns.get("item", "item"), found.name)
    every = to_csr(rows, item_rows, np.ones(len(rows), np.float32), len(user_ids), len(item_ids), "first")[0]
    items = known.nums[every.indices]
    there = items >= 0
    row_of = np.repeat(np.arange(len(user_ids), dtype=np.int32), np.diff(every.indptr))
    matrix, _ = to_csr(
        row_of[there], items[there].astype(np.int32), every.values[there], len(user_ids), len(factors.item_ids), "first"
    )
    return users, Truth(matrix, np.diff(every.indptr))


def _look_up(column: pl.Series, ids: Ids, what: str, name: str) -> Users:
    try:
        return Users(*look_up(column, ids, what))
    except DataError as error:
        raise DataError(str(error), file=name) from error
