"""Columns of external ids (polars) <-> dense numbers and `Ids` (arrays)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.errors import DataError
from recli.ids import Ids

CHUNK = 1 << 18  # text ids converted at a time: Python strings for a chunk only
WHOLE_NUMBER = r"^(0|-?[1-9][0-9]{0,17})$"  # what an int64 prints: not 007, not +1, not 1.0


def is_id_type(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def id_expression(column: str, dtype: pl.DataType) -> pl.Expr:
    """The column as integers, or as categories of its own: text is kept once, whatever the number of rows."""
    return (
        pl.col(column)
        if dtype.is_integer()
        else pl.col(column).cast(pl.String).cast(pl.Categorical(pl.Categories.random()))
    )


def number_ids(column: pl.Series, *, typed: bool) -> tuple[NDArray[np.int32], Ids]:
    """Numbers the distinct ids of a column (see `id_expression`; no nulls) in ascending order: numbers int32[n], and
    the ids.

    typed: the file said that the ids are text. Otherwise (CSV) text that holds nothing but whole numbers becomes int64
    ids.
    """
    if column.dtype.is_integer():
        known = column.unique().sort().to_numpy()
        return _positions(column.to_numpy(), known), Ids(known)
    distinct = column.unique()
    codes, text = distinct.to_physical().to_numpy(), distinct.cast(pl.String)
    if not typed and text.str.contains(WHOLE_NUMBER).all():
        text = text.cast(pl.Int64)
    order = text.arg_sort()
    table = np.zeros(int(codes.max()) + 1, np.int32)
    table[codes[order.to_numpy()]] = np.arange(len(order), dtype=np.int32)
    nums: NDArray[np.int32] = table[column.to_physical().to_numpy()]
    return nums, from_series(text.gather(order))


def _positions(values: NDArray[Any], distinct: NDArray[Any]) -> NDArray[np.int32]:
    low, high = int(distinct[0]), int(distinct[-1])
    if high - low < 4 * len(values) + (
        1 << 20
    ):  # a table is much faster than a search, where it is not much larger than the data
        table = np.zeros(high - low + 1, np.int32)
        table[distinct - distinct.dtype.type(low)] = np.arange(len(distinct), dtype=np.int32)
        nums: NDArray[np.int32] = table[values - values.dtype.type(low)]
        return nums
    return np.searchsorted(distinct, values).astype(np.int32)


def lookup_ids(column: pl.Series, ids: Ids, what: str) -> NDArray[np.int64]:
    """The numbers of the ids in a column, -1 where unknown: int64[n]. `what` names the column in errors."""
    known = to_series(ids, "id")
    if known.n_unique() != len(known):
        raise DataError("the model's ids are not unique")
    wanted = as_id_type(column, known.dtype, what)
    table = pl.DataFrame({"id": known, "num": pl.int_range(len(known), eager=True)})
    nums = pl.DataFrame({"id": wanted}).join(table, on="id", how="left", maintain_order="left")["num"]
    return nums.fill_null(-1).to_numpy().astype(np.int64)


def as_id_type(column: pl.Series, dtype: pl.DataType, what: str) -> pl.Series:
    """Ids from another file in the type of the model's ids."""
    if not is_id_type(column.dtype):
        raise DataError(f"column {what}: expected ids (integers or text), found {column.dtype}")
    if column.null_count():
        raise DataError(f"column {what}: {column.null_count()} ids are missing")
    if dtype.is_integer() and not column.dtype.is_integer():
        column = column.cast(pl.String)
        bad = column.filter(~column.str.contains(WHOLE_NUMBER))
        if len(bad):
            raise DataError(f"column {what}: expected whole numbers like the model's ids, found {bad[0]!r}")
    wide = pl.Int64 if dtype.is_integer() else pl.String
    try:
        return column.cast(wide).cast(dtype, strict=False) if column.dtype != dtype else column
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(f"column {what}: ids out of the range of the model's ids ({dtype})") from error


def to_series(ids: Ids, name: str) -> pl.Series:
    """A column of integers (their own dtype) or text."""
    if ids.offsets is None:
        return pl.Series(name, np.asarray(ids.values))
    parts = []
    for start in range(0, len(ids), CHUNK):
        offsets = ids.offsets[start : start + CHUNK + 1]
        data = ids.values[offsets[0] : offsets[-1]].tobytes()
        bounds = (offsets - offsets[0]).tolist()
        try:
            if data.isascii():
                text = data.decode("ascii")
                strings = [text[a:b] for a, b in itertools.pairwise(bounds)]
            else:
                strings = [data[a:b].decode("utf-8") for a, b in itertools.pairwise(bounds)]
        except UnicodeDecodeError as error:
            raise DataError(f"array {name}: expected UTF-8 text, found {error}") from error
        parts.append(pl.Series(name, strings, pl.String))
    return pl.concat(parts) if parts else pl.Series(name, [], pl.String)


def from_series(column: pl.Series) -> Ids:
    if column.dtype.is_integer():
        return Ids(np.ascontiguousarray(column.to_numpy()))
    offsets = np.zeros(len(column) + 1, np.int64)
    np.cumsum(column.str.len_bytes().to_numpy(), out=offsets[1:])
    chunks = (column.slice(start, CHUNK).str.join("").item().encode() for start in range(0, len(column), CHUNK))
    return Ids(np.frombuffer(b"".join(chunks), np.uint8), offsets)
