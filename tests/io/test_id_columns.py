"""Columns of ids and arrays of ids are two forms of one thing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recli.errors import DataError
from recli.ids import Ids
from recli.io import id_columns
from recli.io.id_columns import IdColumn, from_series, id_expression, id_order, look_up, to_series
from recli.io.numbering import Numbering

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1)
INTEGERS = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64]


def numbered(column: pl.Series, *, typed: bool = True) -> tuple[list[int], list[Any]]:
    prepared, numbering = column.to_frame("id").select(id_expression("id", column.dtype))["id"], Numbering()
    codes = np.concatenate([numbering.add(prepared[start : start + 3]) for start in range(0, len(prepared), 3)])
    rank, ids = numbering.ranked(typed=typed)
    assert codes.dtype == rank.dtype == np.int32
    return rank[codes].tolist(), to_series(ids, "id").to_list()


@given(TEXTS)
def test_text_goes_to_arrays_and_back(texts: list[str]) -> None:
    assert to_series(from_series(pl.Series(texts, dtype=pl.String)), "id").to_list() == texts


def test_text_is_converted_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_columns, "CHUNK", 3)
    for count in range(8):
        texts = ["", "a", "éé", "日本", "", "bb", "c"][:count]
        ids = from_series(pl.Series(texts, dtype=pl.String))
        assert len(ids) == count
        assert to_series(ids, "id").to_list() == texts
        assert to_series(ids, "id").dtype == pl.String


@given(TEXTS)
@settings(max_examples=50)
def test_typed_text_is_numbered_in_the_order_of_its_code_points(texts: list[str]) -> None:
    nums, ids = numbered(pl.Series(texts, dtype=pl.String))
    assert ids == sorted(set(texts))
    assert [ids[num] for num in nums] == texts


@given(st.lists(st.integers(-(10**20), 10**20), min_size=1))
@settings(max_examples=50)
def test_untyped_text_becomes_integers_if_all_of_it_fits(values: list[int]) -> None:
    fits = all(-(2**63) <= value < 2**63 for value in values)
    nums, ids = numbered(pl.Series(map(str, values)), typed=False)
    assert ids == sorted(set(values) if fits else set(map(str, values)))  # type: ignore[type-var]
    assert [int(ids[num]) for num in nums] == values


@pytest.mark.parametrize("dtype", INTEGERS)
@settings(max_examples=30)
@given(data=st.data())
def test_integers_are_numbered_in_order_whatever_their_type_and_spread(dtype: Any, data: st.DataObject) -> None:
    low, high = int(pl.select(dtype.min()).item()), int(pl.select(dtype.max()).item())
    near = st.integers(high - 100, high) if data.draw(st.booleans()) else st.integers(low, low + 100)
    values = data.draw(st.lists(near if data.draw(st.booleans()) else st.integers(low, high), min_size=1))
    nums, ids = numbered(pl.Series(values, dtype=dtype))
    assert ids == sorted(set(values))
    assert [ids[num] for num in nums] == values


@pytest.mark.parametrize("offsets", [[0, 1], [0, 1, 2]])  # in the middle of a character, and no text at all
def test_bytes_that_are_no_text_are_a_data_error(offsets: list[int]) -> None:
    data = "é".encode() if len(offsets) == 3 else b"\xff"
    with pytest.raises(DataError, match=r"^array user: expected UTF-8 text"):
        to_series(Ids(np.frombuffer(data, np.uint8), np.array(offsets)), "user")


@pytest.mark.parametrize("dtype", [*INTEGERS, pl.String])
@settings(max_examples=30)
@given(data=st.data())
def test_a_few_ids_are_found_by_binary_search_as_they_are_by_a_table(dtype: Any, data: st.DataObject) -> None:
    """The known ones are in any order; others may have ids that theirs cannot hold."""
    wide = st.integers(-(2**63), 2**63 - 1)
    values = wide.map(str) | st.text("aé日", max_size=3) if dtype == pl.String else wide
    known = (
        pl.Series(data.draw(st.lists(values, min_size=1)), strict=False).cast(dtype, strict=False).drop_nulls().unique()
    )
    wanted = pl.Series(data.draw(st.lists(values | st.sampled_from(known.to_list() or [0]), min_size=1)))
    ids = from_series(known.sample(fraction=1, shuffle=True, seed=data.draw(st.integers(0, 9))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_columns, "MANY", 0)
        found, nums = look_up(wanted, dataclasses.replace(ids, order=id_order(ids)), "user")
    expected, expected_nums = look_up(wanted, ids, "user")
    assert found.equals(expected)
    assert nums.tolist() == expected_nums.tolist()


@pytest.mark.parametrize("ids", [Ids(np.array([3, 1, 2])), from_series(pl.Series(["c", "a", "b"]))])
@pytest.mark.parametrize("order", [[9, 9, 9], [-7, -7, -7]])
def test_an_order_that_names_no_ids_is_a_data_error(
    ids: Ids, order: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(id_columns, "MANY", 0)
    wanted = pl.Series([2] if ids.offsets is None else ["b"])
    with pytest.raises(DataError, match="--index is damaged"):
        look_up(wanted, dataclasses.replace(ids, order=np.array(order)), "user")


def test_ids_have_to_be_unique_to_be_ordered() -> None:
    assert id_order(Ids(np.array([3, 1, 2]))).tolist() == [1, 2, 0]
    with pytest.raises(DataError, match="ids are not unique"):
        id_order(Ids(np.array([3, 1, 3])))


@pytest.mark.parametrize("ids", [Ids(np.array([30, 10, 20], np.uint8)), from_series(pl.Series(["c", "", "日本"]))])
@pytest.mark.parametrize("many", [0, 16])
def test_ids_come_by_number_whether_few_are_made_or_all(ids: Ids, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_columns, "MANY", many)
    column, every = IdColumn(ids, "sku"), to_series(ids, "sku")
    assert column.dtype == every.dtype
    for nums in ([2, 0, 2, -1], [1], [-1, -1], [], [0, 1, 2]):
        found = column.gather(np.array(nums, np.int32))
        assert (found.name, found.dtype) == ("sku", every.dtype)
        assert found.to_list() == [None if num < 0 else every[num] for num in nums]
