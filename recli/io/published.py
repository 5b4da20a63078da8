"""Tables of lists that have been written, measured and read again: in any format of `write_scores`, streaming."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.artifacts import POPULAR, REASONS, Factors
from recli.errors import DataError
from recli.io.background import in_background
from recli.io.id_columns import positions, to_series
from recli.io.sources import Source, column_types, scan, table_errors

LOOKED_AT = 1000  # rows that show what a text file holds


def so_far(file: BinaryIO, format: str, name: str) -> Source:
    """What has been written to an open file, which may have no name of its own; `name` is what errors call it."""
    file.flush()
    return Source(name, (f"/dev/fd/{file.fileno()}",), format)


class Published:
    """The rows of lists, one for each user and item, in the ids of a `ScoreTable`. A list begins with rank 1."""

    def __init__(self, found: Source, schema: dict[str, Any]) -> None:
        """schema: of the ScoreTable; it begins with the user and item columns. Raises DataError where a column is
        missing, or holds text where the schema has whole numbers, or the other way round.
        """
        self._found = found
        self._user, self._item = list(schema)[:2]
        wanted = {name: _wide(schema[name]) for name in (self._user, self._item, "rank", "reason")}
        if found.format == "ndjson":  # whose types are found by reading all of it: a missing column is nulls here
            rows = scan(found, types=wanted)
        else:
            types = column_types(scan(found), found.name)
            self._compare(types, wanted, typed=found.format == "parquet")
            rows = scan(found, [] if found.format == "parquet" else [self._user, self._item])
        self._rows = rows.select(pl.col(name).cast(kind) for name, kind in wanted.items())
        empty = [column.name for column in self._collect(self._rows.head(LOOKED_AT)) if column.null_count()]
        if empty:
            raise DataError(f"expected lists like the new ones, found nothing in column {empty[0]}", file=found.name)

    def _compare(self, found: dict[str, pl.DataType], wanted: dict[str, pl.DataType], *, typed: bool) -> None:
        for name, kind in wanted.items():
            if name not in found:
                what = f"columns {', '.join(found)}"
            elif typed and (not _is_id_type(found[name]) or _wide(found[name]).is_integer() != kind.is_integer()):
                what = f"{found[name]} in column {name}"
            else:
                continue
            columns = ", ".join(f"{name} ({'whole numbers' if kind.is_integer() else 'text'})" for name, kind in wanted.items())
            raise DataError(f"expected lists like the new ones, with columns {columns}; found {what}", file=self._found.name)
