"""Tables of attributes: a row for each user or item, put into the order of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.config import ReadConfig
from recli.errors import DataError, UsageError
from recli.ids import Ids
from recli.io.alignment import continued
from recli.io.background import in_background
from recli.io.columns import find_columns, with_names
from recli.io.encoding import readable
from recli.io.id_columns import from_series, id_expression, is_id_type
from recli.io.matrices import is_matrix, read_matrix
from recli.io.sources import Source, scan, source, table_errors

PLAIN_ID = "id"  # of a table that has no usual name for its role


@dataclass(frozen=True)
class AttributeTable:
    """ids: integers or text, each once; frame: the other columns. name: of the file; id_column: in it; rows: of the
    file, of which `repeated` said again what others do.
    """

    ids: pl.Series
    frame: pl.DataFrame
    name: str
    id_column: str
    rows: int
    repeated: int
    inputs: list[str]


class Aligned(NamedTuple):
    """ids: the known ones, then others of the table in ascending order. frame: a row for each, null where the table has
    none; has_row: bool[n], where it has one.
    """

    ids: Ids
    frame: pl.DataFrame
    has_row: NDArray[np.bool_]


def read_attributes(
    found: Source, role: str, config: ReadConfig, own_name: str, vectors: Mapping[str, str]
) -> AttributeTable:
    """role: user or item. config: columns, header; own_name: of the ids in the interactions, which the table may use,
    too. vectors: column -> .npy file whose rows go with the table's.

    Raises DataError for ids that are missing, and for rows of one id that say different things.
    """
    with readable(found), table_errors(found.name):
        names = list(scan(found, header=config.header).collect_schema())
        column = id_column(names, role, with_names(config, {role: own_name}, names), found.name)
        lazy = scan(found, (column,), header=config.header, whole=True)
        if found.format == "csv":
            lazy = lazy.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
        frame = in_background(lambda: lazy.collect(engine="streaming"))
    types = frame.schema
    if not is_id_type(types[column]):
        raise DataError(f"column {column!r}: expected ids (integers or text), found {types[column]}", file=found.name)
    if not len(frame):
        raise DataError("expected a row for each id, found none", file=found.name)
    frame = frame.with_columns(id_expression(column, types[column]))
    ids = frame[column]
    if missing := ids.null_count():
        first = int(ids.is_null().arg_true()[0]) + 1
        raise DataError(f"column {column!r}: {missing} ids are missing, first in row {first}", file=found.name)
    rows, hashes = len(frame), found.sha256()
    for name, path in vectors.items():
        if name in frame.columns:
            raise UsageError(f"--{role}-vectors {name}={path}: {found.name} has a column {name!r}: give another name")
        values, digest = _read_vectors(path, name, rows, found.name)
        frame = frame.with_columns(values)
        hashes += digest
    frame = _distinct(frame, column, found.name)
    return AttributeTable(frame[column], frame.drop(column), found.name, column, rows, rows - len(frame), hashes)


def align(table: AttributeTable | None, known: Ids) -> Aligned:
    """Raises DataError where ids are of another type than the known ones."""
    if table is None:
        return Aligned(known, pl.DataFrame(height=len(known)), np.zeros(len(known), bool))
    order = table.ids.arg_sort()
    nums, ids = continued(from_series(table.ids.gather(order)), known, table.id_column, table.name)
    at = np.full(len(ids), -1)
    at[nums] = order.to_numpy()
    return Aligned(ids, rows_at(table.frame, at), at >= 0)


def rows_at(frame: pl.DataFrame, at: NDArray[np.int64]) -> pl.DataFrame:
    """Rows by position, nulls for -1."""
    places = pl.Series(at).cast(pl.UInt32, strict=False)
    return pl.DataFrame([column.gather(places) for column in frame] or None, height=len(at))


def id_column(names: list[str], role: str, config: ReadConfig, name: str) -> str:
    plain = {column.lower(): column for column in reversed(names)}
    given = config.columns.get(role)
    if given in names:
        return given
    try:
        found = find_columns(names, ReadConfig(), name, (role,))[0][role]
    except DataError:
        if PLAIN_ID in plain:
            return plain[PLAIN_ID]
        raise DataError(
            f"no column looks like the {role}s' ids; found {', '.join(names)}: name theirs {PLAIN_ID}, or as the "
            "interactions do",
            file=name,
        ) from None
    # beside an "id", an item's "video" or "content" is something else
    sure = found.lower() == role or found.lower().endswith(PLAIN_ID)
    return found if sure else plain.get(PLAIN_ID, found)


def _distinct(frame: pl.DataFrame, column: str, name: str) -> pl.DataFrame:
    """A row for each id. Rows of one id that are alike are one; if they are not, nobody knows which is right."""
    again = frame[column].is_duplicated()
    if not again.any():
        return frame
    repeated = frame.filter(again)
    for other in repeated.columns:
        if other == column:
            continue
        counts = repeated.group_by(column).agg(pl.col(other).n_unique().alias("n"))
        differing = counts.filter(pl.col("n") > 1).sort(column)
        if len(differing):
            bad = differing[column][0]
            one, two, *_ = repeated.filter(pl.col(column) == bad)[other].unique(maintain_order=True).to_list()
            raise DataError(
                f"column {other!r}: expected one row for each {column}, found {one!r:.60} and {two!r:.60} for {bad!r}",
                file=name,
            )
    return frame.unique(column, keep="first", maintain_order=True)


def _read_vectors(path: str, column: str, rows: int, name: str) -> tuple[pl.Series, list[str]]:
    with source([path]) as found:
        if not is_matrix(found) or found.format != "npy":
            raise DataError(f"expected a .npy file with a row for each row of {name}, found {found.format}", file=path)
        matrix, width = read_matrix(found)
        assert isinstance(matrix, np.ndarray)
        if len(matrix) != rows:
            raise DataError(f"expected {rows} rows, as {name} has, found {len(matrix)}", file=path)
        values = np.ascontiguousarray(matrix, np.float32)
        return pl.Series(column, values, pl.Array(pl.Float32, width)), found.sha256()
