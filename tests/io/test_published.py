"""Lists in a file are measured as plain Python counts them, whatever the format."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recli.errors import DataError
from recli.io.published import Published, written
from recli.io.scores import FORMATS, write_scores
from recli.io.sources import Source, source

Row = tuple[Any, Any, int, float, str]
SCHEMA: dict[str, Any] = {
    "user_id": pl.Int64(),
    "sku": pl.String(),
    "rank": pl.Int32,
    "score": pl.Float32,
    "reason": pl.String,
}
ITEMS = pl.Series(["a", 'b,"x"\n', "", "007", "é"])
OLD: list[Row] = [
    (7, "a", 1, 2.5, "model"),
    (7, "007", 2, 1.5, "model"),
    (-3, "é", 1, 9, "popular"),
    (5, "", 1, 1, "history"),
    (5, 'b,"x"\n', 2, 0.5, "history"),
]
NEW: list[Row] = [
    (7, "007", 1, 2.5, "model"),
    (7, "é", 2, 1.5, "model"),
    (5, "", 1, 9, "popular"),
    (6, "a", 1, 1, "model"),
    (6, "", 2, 0.5, "model"),
]


def frame(rows: list[Row], schema: dict[str, Any] = SCHEMA) -> pl.DataFrame:
    return pl.DataFrame(rows, schema, orient="row")


def put(rows: list[Row], format: str, schema: dict[str, Any] = SCHEMA) -> Source:
    """A file, as recli score writes it."""
    path = Path(tempfile.mkdtemp(), f"lists.{format}")
    with open(path, "wb") as file:
        write_scores(iter([frame(rows, schema)]), schema, format, file)
    return Source(path.name, (str(path),), format)


def published(rows: list[Row], format: str = "parquet", schema: dict[str, Any] = SCHEMA) -> Published:
    return Published(put(rows, format, schema), schema)


@pytest.mark.parametrize("format", FORMATS)
def test_measures_are_those_of_the_rows(format: str) -> None:
    found = published(OLD, format).measure(k=2, items=10)
    assert found == {
        "rows": 5,
        "users": 3,
        "items": 5,
        "coverage": 0.5,
        "popular": pytest.approx(1 / 3),
        "short": pytest.approx(1 / 3),
    }
    assert published(OLD, format).measure(k=3, items=5)["short"] == 1


@pytest.mark.parametrize("old", FORMATS)
@pytest.mark.parametrize("new", FORMATS)
def test_churn_is_the_share_of_new_rows_of_common_users(new: str, old: str) -> None:
    """Users 7 and 5 are in both: three rows, of which 7-007 and 5-"" were there."""
    assert published(NEW, new).churn(published(OLD, old)) == pytest.approx(1 / 3)
    assert published(OLD, old).churn(published(OLD, new)) == 0
    assert published([row for row in NEW if row[0] == 6], new).churn(published(OLD, old)) == 1


@pytest.mark.parametrize("format", FORMATS)
def test_no_rows_are_no_users_and_nothing_to_divide_by(format: str) -> None:
    nothing = published([], format)
    assert nothing.measure(k=2, items=10) == dict.fromkeys(
        ("rows", "users", "items", "coverage", "popular", "short"), 0
    )
    assert nothing.churn(published(OLD)) == published(OLD).churn(nothing) == 1


@st.composite
def lists(draw: st.DrawFn) -> list[Row]:
    """Lists of some users: distinct items, ranks from 1."""
    chosen = draw(st.dictionaries(st.integers(0, 5), st.lists(st.integers(0, 6), unique=True, min_size=1, max_size=4)))
    return [
        (user, str(item), rank, 1.0, "popular" if user == 0 else "model")
        for user, items in chosen.items()
        for rank, item in enumerate(items, 1)
    ]


@given(lists(), lists(), st.sampled_from(FORMATS), st.integers(1, 4))
def test_measures_and_churn_equal_a_brute_force_count(new: list[Row], old: list[Row], format: str, k: int) -> None:
    table, before = published(new, format), published(old, "parquet")
    users = {row[0] for row in new}
    full = {row[0] for row in new if row[2] == k}
    found = table.measure(k, items=7)
    assert (found["rows"], found["users"], found["items"]) == (len(new), len(users), len({row[1] for row in new}))
    assert found["short"] == pytest.approx(len(users - full) / max(1, len(users)))
    assert found["popular"] == (0 in users) / max(1, len(users))
    both = users & {row[0] for row in old}
    pairs, known = [row[:2] for row in new if row[0] in both], {row[:2] for row in old}
    expected = sum(pair not in known for pair in pairs) / len(pairs) if pairs else 1
    assert table.churn(before) == pytest.approx(expected)


@pytest.mark.parametrize("format", FORMATS)
def test_lists_come_back_as_numbers(format: str) -> None:
    found = published([*OLD, (7, "gone", 3, 1.0, "model")], format).lists(pl.Series([5, 99, 7]), ITEMS, k=3)
    assert found.tolist() == [[2, 1, -1], [-1, -1, -1], [0, 3, -1]]
    assert published(OLD, format).lists(pl.Series([7], dtype=pl.Int8), ITEMS, k=1).tolist() == [[0]]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rows", [[], NEW])
def test_a_file_without_a_name_is_measured_while_it_is_open(rows: list[Row], format: str) -> None:
    with tempfile.TemporaryFile() as file:
        write_scores(iter([frame(rows)]), SCHEMA, format, file)
        end = file.tell()
        found = Published(written(file, format, "new"), SCHEMA)
        assert (found.measure(2, 10)["rows"], found.churn(found)) == (len(rows), 0 if rows else 1)
        assert file.tell() == end


@pytest.mark.parametrize(("ours", "theirs"), [(pl.Int8, pl.Int64), (pl.Int64, pl.UInt64), (pl.UInt64, pl.Int32)])
def test_widths_of_ids_may_differ(ours: Any, theirs: Any) -> None:
    rows = [(1, "a", 1, 1.0, "model"), (2, "b", 1, 1.0, "model")]
    schemas = [{**SCHEMA, "user_id": kind} for kind in (ours(), theirs())]
    old = Published(put(rows, "parquet", schemas[1]), schemas[0])
    assert published(rows, "parquet", schemas[0]).churn(old) == 0


def tables() -> Iterator[Any]:
    text = frame(OLD).with_columns(pl.col("user_id").cast(pl.String) + "x")
    for format in FORMATS:
        yield pytest.param(
            format, text, {"parquet": "found String in column user_id"}.get(format, ""), id=f"{format}-text"
        )
        for column in ("user_id", "sku", "rank", "reason"):
            what = f"found rows without {column}" if format == "ndjson" else "found columns .*"
            yield pytest.param(format, frame(OLD).drop(column), what, id=f"{format}-{column}")
    yield pytest.param("parquet", frame(OLD).cast({"sku": pl.Binary}), "found Binary in column sku", id="binary")
    yield pytest.param("parquet", frame(OLD).cast({"rank": pl.Float64}), "found Float64 in column rank", id="float")


@pytest.mark.parametrize(("format", "table", "line"), list(tables()))
def test_a_table_of_another_shape_is_refused_by_name_before_it_is_read(
    format: str, table: pl.DataFrame, line: str
) -> None:
    getattr(table, f"write_{format}")(f"old.{format}")
    with source([f"old.{format}"]) as found, pytest.raises(DataError, match=rf"^old\.{format}: .*{line}") as caught:
        Published(found, SCHEMA)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"PAR1 and then nothing", b"\x00" * 100, b"{not json\n"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_file_is_bad_data(format: str, data: bytes) -> None:
    Path("old").write_bytes(data)
    with pytest.raises(DataError, match=r"^old: "):
        Published(Source("old", ("old",), format), SCHEMA)
