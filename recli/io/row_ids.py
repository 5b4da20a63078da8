"""The ids of a table's rows, from a table or list in the same order."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from recli.config import ReadConfig
from recli.errors import DataError
from recli.ids import Ids
from recli.io.attributes import id_column
from recli.io.background import in_background
from recli.io.encoding import readable
from recli.io.id_columns import from_series, id_expression, is_id_type, numbers_or_text
from recli.io.requests import is_heading
from recli.io.sources import Source, column_types, first_line, scan, source, table_errors


class RowIds(NamedTuple):
    """ids: one a row, each once. column: its name in the file, or the role where the file has none."""

    ids: Ids
    column: str
    inputs: list[str]


def read_row_ids(path: str, role: str, rows: int, table: str) -> RowIds:
    """The ids of the `rows` rows of another file, `table`: a column of a Parquet, CSV or NDJSON file, or a plain list,
    one a line, with a heading or without.

    role: user or item. Of several columns, the one that is named as such ids usually are. Text formats give integers
    where all ids are whole numbers, as interactions do. Raises DataError unless each row has an id of its own.
    """
    with source([path]) as found:
        with readable(found):
            column, header = _column(found, role)
            lazy = scan(found, [column], header=header)
            if found.format == "csv":
                lazy = lazy.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
            dtype = column_types(lazy, found.name)[column]
            if not is_id_type(dtype):
                raise DataError(f"column {column!r}: expected ids (integers or text), found {dtype}", file=found.name)
            wanted = lazy.select(id_expression(column, dtype))
            with table_errors(found.name):
                ids = in_background(lambda: wanted.collect(engine="streaming")).to_series()
        _check(ids, f"column {column!r}" if header else "list", rows, table, found.name)
        if ids.dtype == pl.String and found.format != "parquet":
            ids = numbers_or_text(ids)
        return RowIds(from_series(ids), column if header else role, found.sha256())


def _column(found: Source, role: str) -> tuple[str, bool]:
    """The column of the ids, and whether the file has headings."""
    names = list(column_types(scan(found), found.name))
    if len(names) == 1:
        header = found.format != "csv" or is_heading(first_line(found), role, "id")
        return (names[0] if header else "column_1"), header
    try:
        return id_column(names, role, ReadConfig(), found.name), True
    except DataError as error:
        raise DataError(
            f"expected one column, or one of the {role}s' ids that is named {role} or id; found {', '.join(names)}",
            file=found.name,
        ) from error


def _check(ids: pl.Series, what: str, rows: int, table: str, name: str) -> None:
    """what: the column in errors; table, name: the files."""
    if len(ids) != rows:
        raise DataError(f"{what}: expected {rows} ids, one a row of {table}, found {len(ids)}", file=name)
    if missing := ids.null_count():
        first = int(ids.is_null().arg_true()[0]) + 1
        raise DataError(f"{what}: {missing} ids are missing, first in row {first}", file=name)
    again = ids.is_duplicated()
    if again.any():
        bad = ids.filter(again)[0]
        one, two, *_ = (int(at) + 1 for at in (ids == bad).arg_true())
        raise DataError(f"{what}: expected ids that occur once, found {bad!r:.60} in rows {one} and {two}", file=name)
