"""Ids looked up and shown few at a time, so that the cost does not grow with how many the model has."""

from __future__ import annotations

import bisect

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.errors import DataError
from recli.ids import Ids
from recli.io.id_columns import as_id_type, id_type, known_ids, look_up, to_series

MANY = 16  # a look-up of more than one in MANY ids is faster by a table of all


def sorted_order(ids: Ids) -> NDArray[np.int64]:
    """Numbers by ascending id: int64[n]. Raises DataError where ids are not unique."""
    return known_ids(ids).arg_sort().to_numpy().astype(np.int64)


def search(column: pl.Series, ids: Ids, order: NDArray[np.int64], what: str) -> tuple[pl.Series, NDArray[np.int64]]:
    """As `look_up`, with the ids' sorted_order."""
    if len(column) * MANY > len(ids):
        return look_up(column, ids, what)
    wanted = as_id_type(column, id_type(ids), what)
    try:
        nums = _search_numbers(wanted, ids.values, order) if ids.offsets is None else _search_text(wanted, ids, order)
    except (IndexError, ValueError) as error:
        raise DataError(f"the index is damaged ({error}): remove it, and it will be made again") from error
    return wanted, nums


def _search_numbers(wanted: pl.Series, known: NDArray[np.integer], order: NDArray[np.int64]) -> NDArray[np.int64]:
    bounds = np.iinfo(known.dtype)
    values = wanted.to_numpy()
    possible = (values >= bounds.min) & (values <= bounds.max)  # unknown ones may come in 64 bits
    values = np.where(possible, values, 0).astype(known.dtype)
    nums = order[np.minimum(np.searchsorted(known, values, sorter=order), len(known) - 1)]
    return np.where(possible & (known[nums] == values), nums, -1)


def _search_text(wanted: pl.Series, ids: Ids, order: NDArray[np.int64]) -> NDArray[np.int64]:
    assert ids.offsets is not None
    values, offsets = ids.values, ids.offsets

    def text(num: int) -> bytes:
        return values[offsets[num] : offsets[num + 1]].tobytes()

    nums = np.full(len(wanted), -1, np.int64)
    for place, one in enumerate(wanted.to_list()):
        at = bisect.bisect_left(order, one.encode(), key=text)
        if at < len(order) and text(order[at]) == one.encode():
            nums[place] = order[at]
    return nums


class IdColumn:
    """A model's ids by number. Text is made of those asked for; of all, once so many are."""

    def __init__(self, ids: Ids, name: str) -> None:
        self._ids, self._name = ids, name
        self._all: pl.Series | None = None
        self.dtype = id_type(ids)

    def gather(self, nums: NDArray[np.integer]) -> pl.Series:
        """The ids of these numbers, null for -1."""
        if self._all is None and len(nums) * MANY > len(self._ids):
            self._all = to_series(self._ids, self._name)
        if self._all is not None:
            return self._all.gather(_places(nums))
        distinct, places = np.unique(nums, return_inverse=True)
        none = int(len(distinct) > 0 and distinct[0] < 0)
        return to_series(self._ids.take(distinct[none:]), self._name).gather(_places(places - none))


def _places(nums: NDArray[np.integer]) -> pl.Series:
    return pl.Series(nums).cast(pl.UInt32, strict=False)  # -1 becomes null
