"""Interactions in the numbers of another artifact: a model to start from, or the data that a validation file is for."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.artifacts import Factors, Interactions
from recli.errors import DataError, about
from recli.ids import Csr, Ids, to_csr
from recli.io.id_columns import from_series, look_up, narrowed, to_series


def continue_ids(interactions: Interactions, model: Factors, name: str) -> Interactions:
    """The same pairs with the model's ids first, in its numbers, and new ids appended in ascending order.

    name: the model's file, for the DataError where ids are of another type.
    """
    user_nums, user_ids = continued(interactions.user_ids, model.user_ids, "user", name)
    item_nums, item_ids = continued(interactions.item_ids, model.item_ids, "item", name)
    matrix = renumbered(interactions.matrix, user_nums, item_nums, len(user_ids), len(item_ids))
    return dataclasses.replace(interactions, matrix=matrix, user_ids=user_ids, item_ids=item_ids)


def held_out(held: Interactions, data: Interactions | Factors, name: str) -> tuple[Csr, int]:
    """The pairs of a validation file in the numbers of the training data or of a model, and how many were dropped since
    it does not have their user or item. Raises DataError where none is left.
    """
    user_nums = looked_up(held.user_ids, data.user_ids, "user", name)[1]
    item_nums = looked_up(held.item_ids, data.item_ids, "item", name)[1]
    matrix = renumbered(held.matrix, user_nums, item_nums, len(data.user_ids), len(data.item_ids))
    if not len(matrix.indices):
        raise DataError("no pair of a user and an item that the training data or the model has", file=name)
    return matrix, len(held.matrix.indices) - len(matrix.indices)


def continued(ids: Ids, known: Ids, role: str, name: str) -> tuple[NDArray[np.int64], Ids]:
    """The numbers of ids that occur once each, and all ids: the known ones, then the new ones in their order."""
    column, nums = looked_up(ids, known, role, name)
    new = np.flatnonzero(nums < 0)
    nums[new] = len(known) + np.arange(len(new))
    if not len(new):
        return nums, known
    old, added = to_series(known, role), column.gather(new).alias(role)
    if not old.dtype.is_integer():
        return nums, from_series(pl.concat([old, added]))
    with about(name):
        wide = pl.concat([old.cast(pl.Int128), added.cast(pl.Int128)])
        return nums, from_series(narrowed(wide, old.dtype, role))


def looked_up(ids: Ids, known: Ids, role: str, name: str) -> tuple[pl.Series, NDArray[np.int64]]:
    with about(name):
        return look_up(to_series(ids, role), known, role)


def check_new(ids: Ids, known: Ids, array: str) -> None:
    """Raises DataError for ids of this array that are known already, or there twice."""
    if not len(ids):
        return
    column, nums = look_up(to_series(ids, array), known, array)
    wrong = column.filter(pl.Series(nums >= 0) | column.is_duplicated())
    if len(wrong):
        raise DataError(f"array {array}: expected ids that the model does not have, each once, found {wrong[0]!r}")


def renumbered(matrix: Csr, user_nums: NDArray[np.int64], item_nums: NDArray[np.int64], users: int, items: int) -> Csr:
    """The pairs whose user and item have a number."""
    rows = np.repeat(user_nums.astype(np.int32), np.diff(matrix.indptr))
    columns: NDArray[np.int32] = item_nums.astype(np.int32)[matrix.indices]
    values = np.asarray(matrix.values)
    if user_nums.min(initial=0) < 0 or item_nums.min(initial=0) < 0:
        kept = (rows >= 0) & (columns >= 0)
        rows, columns, values = rows[kept], columns[kept], values[kept]
    return to_csr(rows, columns, values, users, items, "last")[0]
