"""Columns of external ids (polars) <-> dense numbers and `Ids` (arrays)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.errors import DataError
from recli.ids import Ids
from recli.io.id_search import search

CHUNK = 1 << 18  # text ids converted at a time: Python strings for a chunk only
MANY = 16  # one id in so many, and it is quicker to go through all of them at once
WHOLE_NUMBER = r"^(0|-?[1-9][0-9]{0,37})$"  # what an integer prints: not 007, not +1, not 1.0


def is_id_type(dtype: pl.DataType) -> bool:
    """Text, or integers that NumPy has, which are those up to 64 bits."""
    if isinstance(dtype, pl.Int128 | pl.UInt128):
        return False
    return dtype.is_integer() or isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def id_expression(column: str, dtype: pl.DataType) -> pl.Expr:
    """The column as integers or text, however the file stores it."""
    return pl.col(column) if dtype.is_integer() else pl.col(column).cast(pl.String)


def look_up(column: pl.Series, ids: Ids, what: str) -> tuple[pl.Series, NDArray[np.int64]]:
    """Ids from another file in the type of the model's, and their numbers, -1 where unknown: int64[n].

    what: the column's name in errors. Where the model's integers are too narrow for all of the column's, it comes in
    64 bits: an unknown id is kept as it is.
    """
    wanted = as_id_type(column, id_type(ids), what)
    if ids.order is not None and len(wanted) * MANY < len(ids):
        return wanted, search(wanted.to_numpy() if ids.offsets is None else wanted.to_list(), ids, ids.order)
    return wanted, positions(wanted, known_ids(ids))


def id_order(ids: Ids) -> NDArray[np.int64]:
    """Numbers by ascending id: int64[n]. Raises DataError where ids are not unique."""
    return known_ids(ids).arg_sort().to_numpy().astype(np.int64)


def known_ids(ids: Ids) -> pl.Series:
    """A model's ids as a column to look others up in."""
    known = to_series(ids, "id")
    if known.n_unique() != len(known):
        raise DataError("the model's ids are not unique")
    return known


def positions(wanted: pl.Series, among: pl.Series) -> NDArray[np.int64]:
    """Where each id is among others, integers of any width or all text: int64[n], -1 where it is not."""
    table = pl.DataFrame({"id": _join_key(among), "at": pl.int_range(len(among), eager=True)})
    joined = pl.DataFrame({"id": _join_key(wanted)}).join(table, on="id", how="left", maintain_order="left")
    return joined["at"].fill_null(-1).to_numpy().astype(np.int64)


def _join_key(ids: pl.Series) -> pl.Series:
    """Ids in a form that compares across integer types."""
    return ids.cast(pl.Int128) if ids.dtype.is_integer() else ids


def as_id_type(column: pl.Series, dtype: pl.DataType, what: str) -> pl.Series:
    """Ids of another file in the model's type (see `look_up`). Raises DataError for what cannot be such ids."""
    if not is_id_type(column.dtype):
        raise DataError(f"column {what}: expected ids (integers or text), found {column.dtype}")
    if column.null_count():
        raise DataError(f"column {what}: {column.null_count()} ids are missing")
    if not dtype.is_integer():
        return column.cast(pl.String)
    if not column.dtype.is_integer():
        column = column.cast(pl.String)
        bad = column.filter(~column.str.contains(WHOLE_NUMBER))
        if len(bad):
            raise DataError(f"column {what}: expected whole numbers like the model's ids, found {bad[0]!r}")
    return narrowed(column.cast(pl.Int128), dtype, what)


def narrowed(wide: pl.Series, dtype: pl.DataType, what: str) -> pl.Series:
    """Int128 in this type, or else in 64 bits. Raises DataError where those do not hold all."""
    for kind in (dtype, pl.Int64(), pl.UInt64()):
        narrow = wide.cast(kind, strict=False)
        if not narrow.null_count():
            return narrow
    raise DataError(f"column {what}: expected whole numbers of at most 64 bits, found {wide.min()!r} to {wide.max()!r}")


def id_type(ids: Ids) -> pl.DataType:
    return pl.String() if ids.offsets is not None else pl.Series(np.asarray(ids.values[:0])).dtype


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


class IdColumn:
    """A model's ids by number. Text is made of those asked for; of all ids, once those are many."""

    def __init__(self, ids: Ids, name: str) -> None:
        self._ids, self._name = ids, name
        self._all: pl.Series | None = None
        self.dtype = id_type(ids)

    def gather(self, nums: NDArray[np.int32]) -> pl.Series:
        """The ids of these numbers, null for -1."""
        if self._all is None and len(nums) * MANY > len(self._ids):
            self._all = to_series(self._ids, self._name)
        if self._all is not None:
            return self._all.gather(_places(nums))
        distinct, places = np.unique(nums, return_inverse=True)
        nothing = np.searchsorted(distinct, 0)  # 1 where there is a -1
        return to_series(self._ids.take(distinct[nothing:]), self._name).gather(_places(places - nothing))


def _places(nums: NDArray[np.integer[Any]]) -> pl.Series:
    return pl.Series(nums).cast(pl.UInt32, strict=False)  # -1 becomes null


def numbers_or_text(column: pl.Series) -> pl.Series:
    """Text of a file that has no types (CSV): where it holds nothing but whole numbers, int64, if that holds them."""
    if not column.str.contains(WHOLE_NUMBER).all():
        return column
    numbers = column.cast(pl.Int64, strict=False)
    return column if numbers.null_count() else numbers


def from_series(column: pl.Series) -> Ids:
    if column.dtype.is_integer():
        return Ids(np.ascontiguousarray(column.to_numpy()))
    offsets = np.zeros(len(column) + 1, np.int64)
    np.cumsum(column.str.len_bytes().to_numpy(), out=offsets[1:])
    chunks = (column.slice(start, CHUNK).str.join("").item().encode() for start in range(0, len(column), CHUNK))
    return Ids(np.frombuffer(b"".join(chunks), np.uint8), offsets)
