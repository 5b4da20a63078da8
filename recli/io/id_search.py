"""A few ids looked up among many by binary search: what is read does not grow with how many there are."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.errors import DataError
from recli.ids import Ids


def search(wanted: Any, ids: Ids, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of wanted ids, a list of text or an array of integers of any width: int64[n], -1 where there is none.

    order: int64[len(ids)], numbers by ascending id. Raises DataError where it holds others.
    """
    try:
        return _search_integers(wanted, ids.values, order) if ids.offsets is None else _search_text(wanted, ids, order)
    except (IndexError, ValueError) as error:
        raise DataError(f"the --index is damaged ({error}): remove it, and it will be made again") from error


def _search_integers(wanted: Any, known: NDArray[Any], order: NDArray[np.int64]) -> NDArray[np.int64]:
    bounds = np.iinfo(known.dtype)
    possible = (wanted >= bounds.min) & (wanted <= bounds.max)  # unknown ones may be too wide
    values = np.where(possible, wanted, 0).astype(known.dtype)
    nums = order[np.minimum(np.searchsorted(known, values, sorter=order), len(order) - 1)]
    return np.where(possible & (known[nums] == values), nums, -1)


def _search_text(wanted: Sequence[str], ids: Ids, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """UTF-8 sorts as its characters do."""
    values, offsets = ids.values, ids.offsets
    assert offsets is not None

    def text(num: int) -> bytes:
        return values[offsets[num] : offsets[num + 1]].tobytes()

    nums = np.full(len(wanted), -1, np.int64)
    for place, one in enumerate(wanted):
        at = bisect.bisect_left(order, one.encode(), key=text)
        if at < len(order) and text(order[at]) == one.encode():
            nums[place] = order[at]
    return nums
