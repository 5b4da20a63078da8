"""Recommendations reach their file as the blocks say, and whatever fails is what is raised, at once."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

from recli.artifacts import HISTORY, MODEL, POPULAR, Factors, Provenance, Scores
from recli.errors import StorageError
from recli.io.atomic import output
from recli.io.id_columns import from_series
from recli.io.requests import IdList
from recli.io.scores import FORMATS, ROW_GROUP, ScoreTable, write_scores

ITEMS = pl.Series(["a", 'b,"x"\n', "", "é"])
USERS = pl.Series([2**64 - 1, 7, 9, 5], dtype=pl.UInt64)


def table(users: pl.Series = USERS, items: pl.Series = ITEMS, names: tuple[str, str] = ("user", "item")) -> ScoreTable:
    model = Factors(
        P=np.zeros((0, 0), np.float32),
        Q=np.zeros((len(items), 0), np.float32),
        b_u=np.zeros(0, np.float32),
        b_v=np.zeros(len(items), np.float32),
        b=np.array(0, np.float32),
        user_ids=from_series(users[:0]),
        item_ids=from_series(items),
        item_counts=np.zeros(len(items), np.int64),
        provenance=Provenance(columns=dict(zip(("user", "item"), names, strict=True))),
    )
    return ScoreTable(IdList(users, np.arange(len(users))), model)


def block(start: int, items: list[list[int]], scores: list[list[float]], reasons: list[int]) -> Scores:
    return Scores(
        start=start,
        items=np.array(items, np.int32),
        scores=np.array(scores, np.float32),
        reasons=np.array(reasons, np.uint8),
    )


BLOCKS = [
    block(0, [[3, 1], [0, -1]], [[2.5, -1e-7], [1, 0]], [MODEL, POPULAR]),
    block(2, [[-1, -1], [2, 0]], [[0, 0], [3.1, 3.1]], [MODEL, HISTORY]),
]
ROWS = [
    (2**64 - 1, "é", 1, 2.5, "model"),
    (2**64 - 1, 'b,"x"\n', 2, float(np.float32(-1e-7)), "model"),
    (7, "a", 1, 1.0, "popular"),
    (5, "", 1, float(np.float32(3.1)), "history"),
    (5, "a", 2, float(np.float32(3.1)), "history"),
]


def written(frames: Iterator[pl.DataFrame], schema: dict[str, Any], format: str) -> bytes:
    file = io.BytesIO()
    write_scores(frames, schema, format, file)
    return file.getvalue()


def parse(data: bytes, schema: dict[str, Any], format: str) -> pl.DataFrame:
    if format == "parquet":
        return pl.read_parquet(io.BytesIO(data))
    if format == "csv":
        return pl.read_csv(data, schema_overrides=schema)
    return pl.DataFrame([json.loads(line) for line in data.splitlines()], schema=schema)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_holds_the_rows_of_the_blocks_in_order(format: str) -> None:
    scores = table(names=("Käufer", "sku"))
    found = parse(written(map(scores.frame, BLOCKS), scores.schema, format), scores.schema, format)
    assert found.columns == ["Käufer", "sku", "rank", "score", "reason"]
    assert found.schema == pl.Schema(scores.schema)
    assert found.rows() == ROWS


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.String])
def test_ids_keep_their_type(dtype: Any) -> None:
    ids = pl.Series([1, 2, 3, 4]).cast(dtype)
    scores = table(ids, ids)
    found = parse(written(map(scores.frame, BLOCKS), scores.schema, "parquet"), {}, "parquet")
    assert (found["user"].dtype, found["item"].dtype) == (dtype, dtype)
    assert found["user"].cast(pl.Int64).to_list() == [1, 1, 2, 4, 4]
    assert found["item"].cast(pl.Int64).to_list() == [4, 2, 1, 3, 1]


@pytest.mark.parametrize("names", [("rank", "score"), ("reason", "reason"), ("item", "item"), ("rank", "rank_id")])
def test_names_that_are_taken_get_an_ending_and_every_column_stays(names: tuple[str, str]) -> None:
    scores = table(names=names)
    found = parse(written(map(scores.frame, BLOCKS), scores.schema, "csv"), scores.schema, "csv")
    assert len(set(found.columns)) == 5
    assert found.columns[2:] == ["rank", "score", "reason"]
    assert all(
        ours.removesuffix("_id").removesuffix("_id") == name.removesuffix("_id")
        for ours, name in zip(found.columns, names, strict=False)
    )
    assert found.rows() == ROWS


@pytest.mark.parametrize("format", FORMATS)
def test_no_users_are_a_table_without_rows(format: str) -> None:
    scores = table()
    for frames in ([], [scores.frame(BLOCKS[0])[:0]]):
        data = written(iter(frames), scores.schema, format)
        if format == "ndjson":
            assert data == b""
        else:
            found = parse(data, scores.schema, format)
            assert (found.schema, len(found)) == (pl.Schema(scores.schema), 0)


def many(frames: int = 5, rows: int = ROW_GROUP // 2) -> Iterator[pl.DataFrame]:
    for number in range(frames):
        rng = np.random.default_rng(number)
        yield pl.DataFrame({"user": rng.integers(0, 1 << 60, rows), "score": rng.random(rows, np.float32)})


SCHEMA: dict[str, Any] = {"user": pl.Int64, "score": pl.Float32}


@pytest.mark.parametrize("format", FORMATS)
def test_large_outputs_are_the_same_bytes_every_time_and_in_order(format: str) -> None:
    data = written(many(), SCHEMA, format)
    assert data == written(many(), SCHEMA, format)
    assert parse(data, SCHEMA, format).equals(pl.concat(many()))


def test_parquet_has_several_row_groups_whatever_the_size_of_the_blocks() -> None:
    for frames, rows in [(1, ROW_GROUP * 2 + 1), (2 * ROW_GROUP // 4096, 4096)]:
        Path("a.parquet").write_bytes(written(many(frames, rows), SCHEMA, "parquet"))
        groups = "select distinct row_group_id, row_group_num_rows from parquet_metadata('a.parquet')"
        sizes = [size for _, size in duckdb.sql(groups).fetchall()]
        assert sum(sizes) == frames * rows
        assert len(sizes) > 1
        assert max(sizes) <= 2 * ROW_GROUP


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(143), StorageError("x")])
@pytest.mark.parametrize("before", [0, 1, 5])
def test_what_the_producer_raises_gets_through_and_the_writer_ends(
    before: int, error: BaseException, format: str
) -> None:
    def frames() -> Iterator[pl.DataFrame]:
        yield from many(before)
        raise error

    threads = threading.active_count()
    with pytest.raises(type(error)) as caught:
        written(frames(), SCHEMA, format)
    assert caught.value is error
    assert threading.active_count() == threads


class Failing(io.BytesIO):
    """A file that has room for `room` bytes."""

    def __init__(self, error: BaseException, room: int) -> None:
        super().__init__()
        self._error, self._room = error, room

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._room:
            raise self._error
        return super().write(data)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError(32, "x"), ValueError("x")])
@pytest.mark.parametrize("room", [0, 1 << 20])
def test_what_the_file_raises_gets_through_and_stops_a_producer_that_would_go_on_for_hours(
    room: int, error: BaseException, format: str
) -> None:
    produced = 0

    def frames() -> Iterator[pl.DataFrame]:
        nonlocal produced
        (frame,) = many(1)
        while produced < 1000:
            produced += 1
            yield frame
        pytest.fail("it has gone on to the end")

    threads = threading.active_count()
    with pytest.raises(type(error)) as caught:
        write_scores(frames(), SCHEMA, format, Failing(error, room))
    assert caught.value is error
    assert produced < 1000
    assert threading.active_count() == threads


@pytest.mark.parametrize("format", FORMATS)
def test_a_producer_that_fails_leaves_the_old_file_whole(format: str) -> None:
    def frames() -> Iterator[pl.DataFrame]:
        yield from many(3)
        raise KeyboardInterrupt

    Path("recs").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), output("recs") as out:
        out.write(lambda file: write_scores(frames(), SCHEMA, format, file))
    assert [(path.name, path.read_bytes()) for path in Path().iterdir()] == [("recs", b"old")]
