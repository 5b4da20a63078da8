"""Tables of lists that have been written, in any format of `write_scores`: measured and read again, streaming."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.artifacts import POPULAR, REASONS
from recli.errors import DataError
from recli.io.background import in_background
from recli.io.id_columns import is_id_type, positions
from recli.io.sources import Source, column_types, scan, table_errors

LOOKED_AT = 1000  # rows that show what is in a file


def written(file: BinaryIO, format: str, name: str) -> Source:
    """What has been written to an open file, which may have no path of its own; errors call it `name`."""
    file.flush()
    return Source(name, (f"/dev/fd/{file.fileno()}",), format)


class Published:
    """Lists with the columns of a ScoreTable: a row for each user and item, a user's first with rank 1."""

    def __init__(self, found: Source, schema: dict[str, Any]) -> None:
        """schema: the ScoreTable's, which begins with the user and item columns. Raises DataError where a column is
        missing, or its ids are text and not whole numbers, or the other way round.
        """
        self._file = found.name
        self._user, self._item = list(schema)[:2]
        columns = {name: _plain_type(schema[name]) for name in (self._user, self._item, "rank", "reason")}
        typed = found.format == "parquet"
        if found.format == "ndjson":  # reading types takes a pass over all of it; a column that is missing gives nulls
            rows = scan(found, types=columns)
        else:
            types = column_types(scan(found), found.name)
            for name, kind in columns.items():
                if name not in types:
                    self._refuse(columns, f"found columns {', '.join(types)}")
                if typed and not (is_id_type(types[name]) and types[name].is_integer() == kind.is_integer()):
                    self._refuse(columns, f"found {types[name]} in column {name}")
            rows = scan(found, () if typed else (self._user, self._item))
        self._rows = rows.select(pl.col(name).cast(kind) for name, kind in columns.items())
        for column in self._collect(self._rows.head(LOOKED_AT)):
            if column.null_count():
                self._refuse(columns, f"found rows without {column.name}")

    def _refuse(self, columns: dict[str, pl.DataType], what: str) -> None:
        wanted = ", ".join(f"{name} ({'number' if kind.is_integer() else 'text'})" for name, kind in columns.items())
        raise DataError(f"expected lists like the new ones, with columns {wanted}; {what}", file=self._file)

    def _collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        with table_errors(self._file):
            return in_background(lambda: rows.collect(engine="streaming"))

    def measure(self, k: int, items: int) -> dict[str, float]:
        """All that score/gates.py names but churn. items: of the model."""
        first = pl.col("rank") == 1
        (counts,) = self._collect(
            self._rows.select(
                rows=pl.len(),
                users=first.sum(),
                items=pl.col(self._item).n_unique(),
                popular=(first & (pl.col("reason") == REASONS[POPULAR])).sum(),
                full=(pl.col("rank") == k).sum(),
            )
        ).to_dicts()
        users = counts["users"]
        return {
            "rows": counts["rows"],
            "users": users,
            "items": counts["items"],
            "coverage": counts["items"] / max(1, items),
            "popular": counts["popular"] / max(1, users),
            "short": (users - counts["full"]) / max(1, users),
        }

    def full(self, k: int) -> int:
        """How many lists have k items."""
        return int(self._collect(self._rows.select((pl.col("rank") == k).sum())).item())

    def churn(self, old: Published) -> float:
        """See score/gates.py."""
        pair = [self._user, self._item]
        listed = old._rows.filter(pl.col("rank") == 1).select(self._user)
        mine = self._rows.select(pair).join(listed, on=self._user, how="semi")
        kept = mine.join(old._rows.select(pair), on=pair, how="semi")
        rows, again = (int(self._collect(table.select(pl.len())).item()) for table in (mine, kept))
        return 1 - again / rows if rows else 1.0

    def lists(self, users: pl.Series, items: pl.Series, k: int) -> NDArray[np.int32]:
        """The first k items of these users, each there once, as numbers among `items`: int32[n, k], -1 where a list has
        ended, a user has none, or an item is another.
        """
        wanted = pl.LazyFrame(
            {self._user: users.cast(_plain_type(users.dtype)), "at": pl.int_range(len(users), eager=True)}
        )
        found = self._collect(
            self._rows.filter(pl.col("rank").is_between(1, k)).join(wanted, on=self._user, how="inner")
        )
        lists = np.full((len(users), k), -1, np.int32)
        lists[found["at"].to_numpy(), found["rank"].to_numpy() - 1] = positions(found[self._item], items)
        return lists


def _plain_type(kind: Any) -> pl.DataType:
    """One type for text, and one for integers of any width, so that tables of other nights compare; all ids of a table
    are signed or all are not.
    """
    if not kind.is_integer():
        return pl.String()
    return pl.UInt64() if kind == pl.UInt64 else pl.Int64()
