"""Interactions take another artifact's numbers: old ids keep theirs, new ones are appended."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recli.artifacts import Factors, Interactions
from recli.errors import DataError
from recli.ids import Ids, to_csr
from recli.io.alignment import check_new, continue_ids, held_out
from recli.io.id_columns import from_series, to_series
from tests.models import bare

Rows = list[tuple[Any, Any, float]]


def ids(values: list[Any]) -> Ids:
    return from_series(pl.Series(values, dtype=pl.String if values and isinstance(values[0], str) else pl.Int64))


def data(rows: Rows) -> Interactions:
    users, items = (sorted({row[side] for row in rows}) for side in (0, 1))
    nums = [np.array([known.index(row[side]) for row in rows], np.int32) for side, known in ((0, users), (1, items))]
    values = np.array([row[2] for row in rows], np.float32)
    matrix, _ = to_csr(nums[0], nums[1], values, len(users), len(items), "last")
    return Interactions(matrix=matrix, user_ids=ids(users), item_ids=ids(items))


def model(users: list[Any], items: list[Any]) -> Factors:
    return bare(ids(users), ids(items), rank=1)


def rows(of: Interactions) -> dict[tuple[Any, Any], float]:
    users, items = to_series(of.user_ids, "u").to_list(), to_series(of.item_ids, "i").to_list()
    user = np.repeat(np.arange(len(users)), np.diff(of.matrix.indptr))
    return {
        (users[u], items[i]): value
        for u, i, value in zip(user, of.matrix.indices, of.matrix.values.tolist(), strict=True)
    }


@pytest.mark.parametrize("name", [lambda n: n, lambda n: f"ü{n}"], ids=["integers", "text"])
def test_old_ids_keep_their_numbers_and_new_ones_follow(name: Any) -> None:
    start = model([name(30), name(10), name(20)], [name(5), name(1)])
    new = data([(name(10), name(1), 2), (name(15), name(3), 4), (name(40), name(5), 1)])
    found = continue_ids(new, start, "start.npz")
    assert to_series(found.user_ids, "").to_list() == [name(n) for n in (30, 10, 20, 15, 40)]
    assert to_series(found.item_ids, "").to_list() == [name(n) for n in (5, 1, 3)]
    assert rows(found) == rows(new)


@pytest.mark.parametrize("name", [lambda n: n, lambda n: f"ü{n}"], ids=["integers", "text"])
@pytest.mark.parametrize(("new", "wrong"), [([], None), ([1, 3], None), ([1, 20], 20), ([1, 3, 1], 1)])
def test_new_ids_are_neither_known_nor_there_twice(name: Any, new: list[int], wrong: int | None) -> None:
    known, added = ids([name(n) for n in (30, 10, 20)]), ids([name(n) for n in new])
    if wrong is None:
        check_new(added, known, "new_user_ids")
        return
    with pytest.raises(DataError, match=rf"^array new_user_ids: expected ids that .*, found {name(wrong)!r}$"):
        check_new(added, known, "new_user_ids")


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 5).map(float)), min_size=1),
    st.permutations(range(12)),
    st.permutations(range(12)),
)
def test_no_pair_is_lost_or_changed(pairs: Rows, users: list[int], items: list[int]) -> None:
    start, new = model(users[:6], items[:6]), data(pairs)
    found = continue_ids(new, start, "start.npz")
    assert rows(found) == rows(new)
    assert to_series(found.user_ids, "").to_list()[:6] == users[:6]


def test_ids_of_another_type_are_refused_with_the_models_name() -> None:
    with pytest.raises(DataError, match=re.escape("start.npz: column user: expected whole numbers like the model's")):
        continue_ids(data([("a", "b", 1)]), model([1], [2]), "start.npz")


def test_a_validation_file_keeps_what_the_data_knows_and_counts_the_rest() -> None:
    of = data([(1, 10, 3), (2, 20, 4)])
    held, dropped = held_out(data([(1, 20, 5), (1, 10, 2), (3, 10, 1), (2, 30, 1)]), of, "valid.csv")
    assert dropped == 2
    assert rows(Interactions(matrix=held, user_ids=of.user_ids, item_ids=of.item_ids)) == {(1, 20): 5, (1, 10): 2}


def test_a_validation_file_of_strangers_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"valid\.csv: no pair of a user and an item that the training data or the model has"
    ):
        held_out(data([(7, 10, 5)]), data([(1, 10, 3)]), "valid.csv")
