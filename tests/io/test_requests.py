"""Tables about a model's users: an unknown id is unknown, never somebody else's."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recli.artifacts import Factors
from recli.config import ReadConfig
from recli.errors import DataError
from recli.io.id_columns import positions
from recli.io.requests import IdList, everyone, read_ids, read_truth
from recli.io.sources import source
from recli.metrics import Truth
from tests.models import of_ids

NUMBERS = of_ids(pl.Series([5, 7, 9]), pl.Series([1, 2, 3]))
SMALL = of_ids(pl.Series([-128, 5, 127], dtype=pl.Int8), pl.Series([1, 2, 44], dtype=pl.Int8))
LARGE = of_ids(pl.Series([0, 2**64 - 1], dtype=pl.UInt64), pl.Series([1]))
TEXT = of_ids(pl.Series(["", "5", "ann", "é"]), pl.Series(["x", "y"]), ("Käufer", "sku"))


def put(data: bytes | str | pl.DataFrame, name: str = "") -> str:
    if isinstance(data, pl.DataFrame):
        name = name or "a.parquet"
        data.write_parquet(name)
    else:
        name = name or "a.csv"
        Path(name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return name


def users(data: Any, factors: Factors = NUMBERS, name: str = "", **config: Any) -> IdList:
    with source([put(data, name)]) as found:
        return read_ids(found, factors, "user", ReadConfig(**config))


def truth(data: Any, factors: Factors = NUMBERS, **config: Any) -> tuple[IdList, Truth]:
    with source([put(data)]) as found:
        return read_truth(found, factors, ReadConfig(**config))


@pytest.mark.parametrize(
    "data",
    [
        "5\n8\n7\n",
        "5\n8\n7",
        "5\r\n8\r\n7\r\n",
        "\n5\n\n8\n7\n\n",
        "\ufeff5\n8\n7\n",
        "user\n5\n8\n7\n",
        '"user_id"\n"5"\n"8"\n7\n',
        "\ufeffUser ID\r\n5\r\n8\r\n7\r\n",
        "5\n8\n5\n5\n7\n8\n",  # repeated ones count once
        "x,user\n1,5\n2,8\n,5\n\n3,7\n\n",
        "user;x\n5;a,b,c\n8;\n7;\n",
    ],
)
def test_users_are_a_table_or_a_plain_list_of_ids_with_a_heading_or_without(data: str) -> None:
    found = users(data)
    assert found.ids.to_list() == [5, 8, 7]
    assert found.nums.tolist() == [0, -1, 1]


@pytest.mark.parametrize("name", ["a.txt", "list", "a.csv.gz", "packed", "a.ndjson", "a.parquet"])
def test_users_come_in_any_format(name: str) -> None:
    plain = b"5\n8\n"
    data: dict[str, Any] = {
        "a.txt": plain,
        "list": plain,
        "a.csv.gz": gzip.compress(plain),
        "packed": gzip.compress(plain),
        "a.ndjson": b'{"user": 5}\n{"x": 1, "user": 8}\n',
        "a.parquet": pl.DataFrame({"x": [1, 2], "user": [5, 8]}),
    }
    found = users(data[name], name=name)
    assert (found.ids.to_list(), found.nums.tolist()) == ([5, 8], [0, -1])


def test_the_heading_may_be_the_models_own_name_of_the_column() -> None:
    assert users("Käufer\nann\n", TEXT).ids.to_list() == ["ann"]
    assert users("user,Käufer\nx,ann\n", TEXT).ids.to_list() == ["ann"]


def test_a_first_line_that_is_no_heading_is_an_id() -> None:
    assert users("who\nann\n", TEXT).ids.to_list() == ["who", "ann"]
    assert users("user\nann\n", TEXT, header=False).ids.to_list() == ["user", "ann"]
    assert users("who\nann\n", TEXT, columns={"user": "who"}).ids.to_list() == ["ann"]
    assert users('"a,b"\n', TEXT).ids.to_list() == ["a,b"]


def test_an_empty_text_is_an_id_and_a_blank_line_is_none() -> None:
    assert users('user\n""\n\nann\n', TEXT).nums.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("factors", "column", "ids", "nums"),
    [
        (TEXT, pl.Series([5, 6]), ["5", "6"], [1, -1]),
        (TEXT, pl.Series(["é", "e\u0301"]).cast(pl.Categorical), ["é", "e\u0301"], [3, -1]),
        (NUMBERS, pl.Series(["5", "6"]), [5, 6], [0, -1]),
        (NUMBERS, pl.Series([9, 5], dtype=pl.UInt8), [9, 5], [2, 0]),
        (SMALL, pl.Series([5, 5 + 256, -129, 2**40]), [5, 261, -129, 2**40], [1, -1, -1, -1]),
        (SMALL, pl.Series(["127", "383"]), [127, 383], [2, -1]),
        (SMALL, pl.Series([2**64 - 128], dtype=pl.UInt64), [2**64 - 128], [-1]),
        (LARGE, pl.Series([-1, 0]), [-1, 0], [-1, 0]),
        (LARGE, pl.Series(["18446744073709551615"]), [2**64 - 1], [1]),
    ],
)
def test_ids_of_another_type_are_found_by_their_value_and_never_wrap_around(
    factors: Factors, column: pl.Series, ids: list[Any], nums: list[int]
) -> None:
    found = users(pl.DataFrame({"user": column}), factors)
    assert (found.ids.to_list(), found.nums.tolist()) == (ids, nums)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("user\n5\nx\n", "column user: expected whole numbers like the model's ids, found 'x'"),
        ("5\n007\n", "column column_1: expected whole numbers like the model's ids, found '007'"),
        ("5\n1.0\n", "column column_1: expected whole numbers like the model's ids, found '1.0'"),
        ("1\n99999999999999999999\n", "column column_1: expected whole numbers of at most 64 bits, found 1 to 9999"),
        ("-1\n18446744073709551615\n", "column column_1: expected whole numbers of at most 64 bits, found -1 to 1844"),
        ("who,what\n5,1\n", "no column looks like the user; found who, what"),
        ("user,x\n5,1\n,2\n", "column user: 1 ids are missing"),
        ("user\n", "no users"),
        ("", "expected a table, found an empty file"),
        (pl.DataFrame({"user": [5.0]}), r"column user: expected ids \(integers or text\), found Float64"),
        (pl.DataFrame({"user": [5, None]}), "column user: 1 ids are missing"),
    ],
)
def test_users_that_cannot_be_are_data_errors_with_the_file(data: Any, reason: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.(csv|parquet): {reason}"):
        users(data)


def test_a_model_whose_ids_are_not_unique_is_refused() -> None:
    with pytest.raises(DataError, match="the model's ids are not unique"):
        users("5\n", of_ids(pl.Series([5, 5]), pl.Series([1])))


def test_everyone_is_all_users_in_order_and_positions_finds_them_among_others() -> None:
    assert everyone(TEXT).ids.to_list() == ["", "5", "ann", "é"]
    assert everyone(TEXT).nums.tolist() == [0, 1, 2, 3]
    assert positions(users("9\n4\n5\n").ids, everyone(NUMBERS).ids).tolist() == [2, -1, 0]
    assert positions(users("261\n5\n", SMALL).ids, everyone(SMALL).ids).tolist() == [-1, 1]
    assert positions(everyone(SMALL).ids, users("261\n5\n", SMALL).ids).tolist() == [-1, 1, -1]


def test_truth_keeps_unknown_users_and_counts_unknown_items() -> None:
    table = "user,item,rating\n5,1,4\n5,1,3\n5,2,x\n8,1,5\n7,99,5\n7,98,5\n"  # pairs count, not ratings
    found, held_out = truth(table)
    assert found.ids.to_list() == [5, 7, 8]
    assert found.nums.tolist() == [0, 1, -1]
    assert held_out.sizes.tolist() == [2, 2, 1]
    assert [row.tolist() for row in np.split(held_out.items.indices, held_out.items.indptr[1:-1])] == [[0, 1], [], [0]]


def test_truth_can_be_filtered_by_its_ratings() -> None:
    found, held_out = truth("user,item,rating\n5,1,4\n5,2,1\n7,3,1\n", where="rating >= 4")
    assert (found.ids.to_list(), held_out.sizes.tolist()) == ([5], [1])
    with pytest.raises(DataError, match="no rows are left by --truth-where"):
        truth("user,item,rating\n5,1,4\n", where="rating > 4")


@pytest.mark.parametrize("names", ["Käufer;sku", "user;item", "uid;iid"])
def test_truth_columns_are_the_models_or_guessed(names: str) -> None:
    found, held_out = truth(f"{names}\nann;x\nann;zz\né;y\n", TEXT)
    assert found.nums.tolist() == [2, 3]
    assert held_out.sizes.tolist() == [2, 1]
    assert held_out.items.indices.tolist() == [0, 1]


@given(pairs=st.lists(st.tuples(st.integers(-300, 300), st.integers(-300, 300)), min_size=1))
@settings(max_examples=50)
def test_truth_of_a_model_with_small_integers_is_what_sets_say(pairs: list[tuple[int, int]]) -> None:
    table = pl.DataFrame({"user": [user for user, _ in pairs], "item": [item for _, item in pairs]})
    found, held_out = truth(table, SMALL)
    items = SMALL.item_ids.values.tolist()
    assert found.ids.to_list() == sorted({user for user, _ in pairs})
    for at, user in enumerate(found.ids):
        theirs = {item for other, item in pairs if other == user}
        start, end = held_out.items.indptr[at : at + 2]
        assert held_out.sizes[at] == len(theirs)
        assert {items[num] for num in held_out.items.indices[start:end]} == theirs & set(items)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("user,item\nx,1\n", "column user: expected whole numbers like the model's ids, found 'x'"),
        ("user,item\n5,x\n", "column item: expected whole numbers like the model's ids, found 'x'"),
        ("user,item\n5,1\n7,\n", "column 'item': 1 ids are missing, first in row 2"),
        ("user,item\n", "no rows"),
        ("user,what\n5,1\n", "no column looks like the item"),
    ],
)
def test_truth_that_cannot_be_is_a_data_error(data: str, reason: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.csv: {reason}"):
        truth(data)
