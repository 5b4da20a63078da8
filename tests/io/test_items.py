"""What tables say about a model's items: lists of ids, pairs denied, conditions and groups."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recli.config import ReadConfig
from recli.errors import DataError, UsageError
from recli.io.items import Items, read_items
from recli.io.requests import IdList, read_denied, read_ids
from recli.io.sources import source
from tests.io.test_requests import NUMBERS, TEXT, put
from tests.models import of_ids

MODEL = of_ids(pl.Series(["ann", "bob"]), pl.Series([10, 20, 30, 40]))
TABLE = pl.DataFrame(
    {
        "item": [30, 99, 10, 20],
        "price": [3.5, 1.0, None, 50.0],
        "stock": [True, True, True, False],
        "kind": ["a", "zz", "b", "a"],
    }
)


def items(data: Any, where: str | None = None, columns: tuple[str, ...] = (), factors: Any = MODEL) -> Items:
    with source([put(data)]) as found:
        return read_items(found, factors, ReadConfig(), where, columns)


@pytest.mark.parametrize(
    ("data", "nums"),
    [
        ("10\n99\n30\n10\n", [0, -1, 2]),
        ("item_id\n10\n99\n30\n", [0, -1, 2]),
        ("x,sku\n1,40\n2,20\n", [3, 1]),
        (pl.DataFrame({"item": ["40", "7"]}), [3, -1]),
    ],
)
def test_items_are_listed_as_users_are(data: Any, nums: list[int]) -> None:
    with source([put(data)]) as found:
        assert read_ids(found, MODEL, "item", ReadConfig()).nums.tolist() == nums


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("item\n", "no items"),
        ("who,what\n10,2\n", "no column looks like the item; found who, what: name it with --columns item=NAME"),
        ("item\nx\n", "column item: expected whole numbers like the model's ids, found 'x'"),
    ],
)
def test_item_lists_that_cannot_be_are_data_errors(data: str, reason: str) -> None:
    with source([put(data)]) as found, pytest.raises(DataError, match=f"^a.csv: {reason}"):
        read_ids(found, MODEL, "item", ReadConfig())


@pytest.mark.parametrize(
    ("where", "meets"),
    [
        ("price < 50", [False, False, True, False]),  # NULL is not true, and item 40 is not there
        ("price < 50 or price is null", [True, False, True, False]),
        ("stock", [True, False, True, False]),
        ("kind in ('a', 'zz') and stock", [False, False, True, False]),
        ("price > 1000", [False] * 4),
        ("price = (3 + 0.5)", [False, False, True, False]),
    ],
)
def test_items_meet_a_condition_where_it_is_true(where: str, meets: list[bool]) -> None:
    found = items(TABLE, where)
    assert found.meets is not None
    assert found.meets.tolist() == meets
    assert (found.missing, found.unknown, found.groups) == (1, 1, {})


@pytest.mark.parametrize("name", ["a.csv", "a.ndjson", "a.parquet"])
def test_formats_say_the_same(name: str) -> None:
    {"a.csv": TABLE.write_csv, "a.ndjson": TABLE.write_ndjson, "a.parquet": TABLE.write_parquet}[name](name)
    with source([name]) as found:
        same = read_items(found, MODEL, ReadConfig(), "stock and price < 60", ["kind"])
    assert same.meets is not None
    assert same.meets.tolist() == [False, False, True, False]
    assert (same.groups["kind"][[1, 3]] == [same.groups["kind"][2], -1]).all()


@settings(max_examples=60)
@given(data=st.data())
def test_groups_are_the_equal_values(data: st.DataObject) -> None:
    values: Any = data.draw(
        st.sampled_from(
            [
                st.text("ab", max_size=2),
                st.integers(-(2**63), 2**63 - 1),
                st.sampled_from([0.5, -0.0, 1e300]),
                st.booleans(),
                st.dates(),
            ]
        )
    )
    column = data.draw(st.lists(st.none() | values, min_size=4, max_size=4).filter(any))
    frame = pl.DataFrame({"item": MODEL.item_ids.values, "value": column})
    groups = items(frame, None, ("value", "item")).groups["value"]
    assert groups.dtype == np.int32
    assert [group < 0 for group in groups] == [value is None for value in column]
    for one, group in zip(column, groups, strict=True):
        assert [other == one for other in column] == (groups == group).tolist()


def test_a_group_that_is_no_number_is_none() -> None:
    frame = pl.DataFrame({"item": [10, 20], "value": [float("nan"), 1.0], "day": [None, datetime.date(2025, 1, 1)]})
    found = items(frame, None, ("value", "day"))
    assert {name: (group < 0).tolist() for name, group in found.groups.items()} == {
        "value": [True, False, True, True],
        "day": [True, False, True, True],
    }


def test_text_formats_keep_ids_and_infer_the_rest() -> None:
    rows = "sku,price\nx,9\n\ny,12\n"
    found = items(rows, "price < 10", ("price",), TEXT)
    assert found.meets is not None
    assert (found.meets.tolist(), found.missing) == ([True, False], 0)


@pytest.mark.parametrize(
    ("data", "where", "columns", "error", "reason"),
    [
        (
            TABLE,
            "prise < 5",
            (),
            UsageError,
            "--where 'prise < 5': .*prise.*; the columns are item, price, stock, kind",
        ),
        (TABLE, "price", (), UsageError, "--where 'price': expected a condition, found a value of type Float64"),
        (TABLE, "price < 'x'", (), UsageError, "--where \"price < 'x'\": "),
        (TABLE, None, ("brand",), UsageError, "--max-per brand: no such column; the columns are item, price"),
        (
            TABLE.with_columns(tags=pl.Series([["x"]] * 4)),
            None,
            ("tags",),
            UsageError,
            r"--max-per tags: expected a column with one value an item, found List\(String\)",
        ),
        (
            "item,x\n10,1\n20,1\n10,2\n10,3\n",
            "x > 1",
            (),
            DataError,
            "column item: expected a row an item, found 2 more ",
        ),
        ("item,x\n99,1\n99,1\n", "x > 1", (), DataError, r"column item: expected a row an item, found 1 more .*\(99\)"),
        ("item,x\n10,1\n,1\n", "x > 1", (), DataError, "column item: 1 ids are missing"),
        ("item,x\na,1\n", "x > 1", (), DataError, "column item: expected whole numbers like the model's ids"),
        ("item,x\n", None, ("x",), DataError, "no items"),
        ("who,x\n1,1\n", "x > 1", (), DataError, "no column looks like the item"),
    ],
)
def test_item_tables_that_cannot_be_are_refused(
    data: Any, where: str | None, columns: tuple[str, ...], error: Any, reason: str
) -> None:
    with pytest.raises(error, match=rf"^a\.(csv|parquet): {reason}"):
        items(data, where, columns)


@pytest.mark.parametrize(
    ("wanted", "rows", "idle"),
    [
        ([5, 8, 7], [[0, 2], [1], []], 2),  # 8 is not in the model, and 9's pair is nobody's here, nor is item 99 one
        ([9], [[2]], 4),
        ([7], [[]], 5),
    ],
)
def test_pairs_denied_are_those_of_the_users_asked_for(wanted: list[int], rows: list[list[int]], idle: int) -> None:
    table = "item,user\n3,5\n1,5\n2,8\n1,5\n3,9\n99,5\n"
    users = IdList(pl.Series("user", wanted), np.zeros(len(wanted), np.int64))
    with source([put(table)]) as found:
        denied, said_nothing = read_denied(found, NUMBERS, users, ReadConfig(where="rating > 3"))
    assert [part.tolist() for part in np.split(denied.indices, denied.indptr[1:-1])] == rows
    assert said_nothing == idle
