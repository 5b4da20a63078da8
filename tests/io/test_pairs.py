"""Tables of pairs: every row in order, in any format, with ids that keep their value; and ratings found by ids."""

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
from recli.errors import DataError, UsageError
from recli.io.pairs import PairTable, Ratings
from recli.io.sources import source
from tests.io.test_requests import LARGE, NUMBERS, SMALL, TEXT, put
from tests.models import of_ids


def table(data: Any, factors: Factors = NUMBERS, name: str = "", size: int = 2, **config: Any) -> pl.DataFrame:
    """All blocks of a table as it would be written, with the numbers of users and items for scores."""
    with source([put(data, name)]) as found:
        pairs = PairTable(found, factors, ReadConfig(**config))
        assert list(pairs.schema.values())[2:] == [pl.Float32, pl.String]
        frames = []
        for block in pairs.blocks(size):
            assert len(block.users) <= size
            scores = (10 * block.users + block.items).astype(np.float32)
            frames.append(pairs.frame(block, scores, np.arange(len(scores), dtype=np.uint8)))
    whole = pl.concat(frames)  # raises where blocks differ in type
    assert dict(whole.schema) == pairs.schema
    assert len(whole) == pairs.rows
    return whole


CSV = "item,rating,user\n1,3,5\n99,,9\n\n1,2,5\n3,1,8\n"


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.ndjson", "a.parquet", "plain"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_every_row_comes_in_order_in_any_format(name: str, size: int) -> None:
    frame = pl.read_csv(CSV.encode()).drop_nulls("user")
    data: Any = CSV
    if name == "a.parquet":
        data = frame
    elif name == "a.ndjson":
        data = frame.write_ndjson()
    elif name == "a.csv.gz":
        data = gzip.compress(CSV.encode())
    found = table(data, name=name, size=size)
    assert found.columns == ["user", "item", "score", "reason"]
    assert found["user"].to_list() == [5, 9, 5, 8]
    assert found["item"].to_list() == [1, 99, 1, 3]
    assert found["score"].to_list() == [0, 19, 0, -8]  # 10 users + items, -1 for unknown ones


def test_files_of_a_folder_follow_each_other() -> None:
    Path("days").mkdir()
    for day in (2, 1):
        Path(f"days/{day}.csv").write_text(f"user,item\n5,{day}\n7,{day}\n")
    with source(["days"]) as found:
        pairs = PairTable(found, NUMBERS, ReadConfig())
        assert [block.item_ids.to_list() for block in pairs.blocks(3)] == [[1, 1, 2], [2]]


@pytest.mark.parametrize(
    ("factors", "users", "items", "types"),
    [
        (TEXT, pl.Series(["5", "zoe"]), pl.Series(["x", "z"]), (pl.String, pl.String)),
        (TEXT, pl.Series([5, 6]), pl.Series(["x", "z"]).cast(pl.Categorical), (pl.String, pl.String)),
        (NUMBERS, pl.Series(["5", "6"]), pl.Series([1, 4], dtype=pl.UInt8), (pl.Int64, pl.Int64)),
        (SMALL, pl.Series([5, 6]), pl.Series(["1", "44"]), (pl.Int8, pl.Int8)),
        (SMALL, pl.Series([5, 261]), pl.Series(["1", "-300"]), (pl.Int64, pl.Int64)),
        (LARGE, pl.Series(["18446744073709551615", "7"]), pl.Series([1, 2]), (pl.UInt64, pl.Int64)),
        (LARGE, pl.Series([-1, 0]), pl.Series([1, 1]), (pl.Int64, pl.Int64)),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_ids_have_the_models_type_or_a_wider_one_in_every_block(
    factors: Factors, users: pl.Series, items: pl.Series, types: tuple[Any, Any], kind: str
) -> None:
    given = pl.DataFrame({"user": users, "item": items})
    found = table(given if kind == "parquet" else given.write_csv(), factors, size=1)
    assert (found["user"].dtype, found["item"].dtype) == types
    assert found["user"].cast(pl.String).to_list() == users.cast(pl.String).to_list()
    assert found["item"].cast(pl.String).to_list() == items.cast(pl.String).to_list()


@pytest.mark.parametrize(
    ("heading", "columns", "expected"),
    [
        ("uid,movieId", {}, ["uid", "movieId"]),
        ("user,Käufer,item,sku", {}, ["Käufer", "sku"]),  # the model's own names come first
        ("a,b,c", {"user": "c", "item": "a"}, ["c", "a"]),
        ("score,reason", {"user": "score", "item": "reason"}, ["score_id", "reason_id"]),
    ],
)
def test_columns_keep_the_names_of_the_table(heading: str, columns: dict[str, str], expected: list[str]) -> None:
    row = ",".join("ann" for _ in heading.split(","))
    assert table(f"{heading}\n{row}\n", TEXT, columns=columns).columns[:2] == expected


def test_a_table_without_a_heading() -> None:
    found = table("5,1\n9,3\n", header=False, columns={"user": "column_1", "item": "column_2"})
    assert found["score"].to_list() == [0, 22]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("user,item\nx,1\n5,1\n", "column user: expected whole numbers like the model's ids, found 'x'"),
        ("user,item\n5,1\n5,1\n5,007\n", "column item: expected whole numbers like the model's ids, found '007'"),
        ("user,item\n5,1\n5,1\n5,\n,1\n", "column user: 1 ids are missing"),
        ("user,item\n5,1\n7,\n9,\n", "column item: 2 ids are missing"),
        ("user,item,x\n5,1,1\n,,2\n", "column user: 1 ids are missing"),
        ("user,item\n-1,1\n18446744073709551615,1\n", "column user: expected whole numbers of at most 64 bits"),
        ("user,item\n", "no pairs"),
        ("", "expected a table, found an empty file"),
        ("user,what\n5,1\n", "no column looks like the item; found user, what"),
        ("who\n5\n", "no column looks like the user"),
        (pl.DataFrame({"user": [5.0], "item": [1]}), r"column user: expected ids \(integers or text\), found Float64"),
        (pl.DataFrame({"user": [5], "item": [None]}), r"column item: expected ids \(integers or text\), found Null"),
    ],
)
def test_pairs_that_cannot_be_are_data_errors_with_the_file_before_any_block(data: Any, reason: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.(csv|parquet): {reason}"), source([put(data)]) as found:
        PairTable(found, NUMBERS, ReadConfig())


def test_a_model_whose_ids_are_not_unique_is_refused() -> None:
    with pytest.raises(DataError, match="the model's ids are not unique"):
        table("user,item\n5,1\n", of_ids(pl.Series([5, 5]), pl.Series([1])))


def rated(truth: Any, pairs: Any, factors: Factors = NUMBERS, **config: Any) -> list[float | None]:
    """The ratings of pairs, None where there is none."""
    with source([put(truth, "truth.csv")]) as held, source([put(pairs, "pairs.csv")]) as found:
        ratings = Ratings(held, factors, ReadConfig(**config))
        result: list[float | None] = []
        for block in PairTable(found, factors, ReadConfig()).blocks(2):
            there, values = ratings.of(block)
            assert (there.dtype, values.dtype) == (np.bool_, np.float32)
            theirs = iter(values.tolist())
            result += [next(theirs) if is_there else None for is_there in there]
        assert len(ratings) >= len({value for value in result if value is not None})
    return result


@pytest.mark.parametrize("factors", [NUMBERS, SMALL, TEXT, LARGE], ids=["numbers", "small", "text", "large"])
def test_ratings_are_joined_by_user_and_item_whether_the_model_knows_them_or_not(factors: Factors) -> None:
    truth = "user,item,rating\n5,1,4\n400,1,2.5\n5,300,1\n"
    assert rated(truth, "user,item\n5,1\n1,5\n5,300\n400,1\n5,1\n400,300\n", factors) == [4, None, 1, 2.5, 4, None]


def test_the_last_of_repeated_ratings_counts_by_time_or_in_the_file() -> None:
    assert rated("user,item,rating\n5,1,4\n5,2,1\n5,1,2\n", "user,item\n5,1\n5,2\n") == [2, 1]
    assert rated("user,item,rating,timestamp\n5,1,4,20\n5,1,2,10\n", "user,item\n5,1\n") == [4]


def test_ratings_can_be_filtered_and_named() -> None:
    truth = "user,item,rating,fold,heart\n5,1,4,a,7\n5,2,3,b,8\n"
    assert rated(truth, "user,item\n5,1\n5,2\n", where="fold = 'b'") == [None, 3]
    assert rated(truth, "user,item\n5,1\n5,2\n", columns={"rating": "heart"}) == [7, 8]
    with pytest.raises(UsageError, match="--truth-where 'fould = 1'"):
        rated(truth, "user,item\n5,1\n", where="fould = 1")


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        ("user,item\n5,1\n", "no column looks like the rating; found user, item: name it with --columns rating=NAME"),
        ("user,item,rating\n5,1,x\n", "column 'rating': expected finite numbers"),
        ("user,item,rating\nx,1,1\n", "column user: expected whole numbers like the model's ids, found 'x'"),
        ("user,item,rating\n", "no rows"),
    ],
)
def test_a_truth_without_ratings_is_a_data_error_with_the_file(truth: str, reason: str) -> None:
    with pytest.raises(DataError, match=rf"^truth\.csv: {reason}"):
        rated(truth, "user,item\n5,1\n")


@settings(max_examples=40, deadline=None)
@given(
    truth=st.dictionaries(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), st.integers(1, 5), min_size=1),
    pairs=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1),
)
def test_any_ratings_are_what_a_dictionary_says(
    truth: dict[tuple[int, int], int], pairs: list[tuple[int, int]]
) -> None:
    held = "user,item,rating\n" + "".join(f"{u},{v},{value}\n" for (u, v), value in truth.items())
    asked = "user,item\n" + "".join(f"{u},{v}\n" for u, v in pairs)
    assert rated(held, asked) == [truth.get(pair) for pair in pairs]
