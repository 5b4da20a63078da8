"""Several rows of one user and item: one value, the same as a slow dictionary finds, by any policy and clock."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recli.artifacts import Interactions
from recli.config import DUPLICATES, ReadConfig
from recli.errors import DataError
from recli.io.id_columns import to_series
from recli.io.interactions import ReadReport, read_interactions
from recli.io.sources import source

Id = int | str


def read(data: bytes | pl.DataFrame, name: str = "", **config: Any) -> tuple[Interactions, ReadReport]:
    """Of a CSV file, or of a Parquet file, unless a name says otherwise."""
    if isinstance(data, pl.DataFrame):
        name = name or "a.parquet"
        data.write_parquet(name)
    else:
        name = name or "a.csv"
        Path(name).write_bytes(data)
    with source([name]) as found:
        return read_interactions(found, ReadConfig(**config))


def triples(found: Interactions) -> dict[tuple[Id, Id], float]:
    rows = np.repeat(np.arange(len(found.user_ids)), np.diff(found.matrix.indptr))
    items = to_series(found.item_ids, "item")
    users = to_series(found.user_ids, "user").gather(rows)
    pairs = zip(users, items.gather(found.matrix.indices), strict=True)
    return dict(zip(pairs, found.matrix.values.tolist(), strict=True))


TIMES: dict[str, list[Any]] = {
    "none": [None] * 7,
    "int": [None, 0, 1, 5, 9, 10**12, -3],
    "float": [None, 0.0, 0.5, 5.0, 9.5, 1e12, math.nan],
    "datetime": [None, *(dt.datetime(2025, 1, day) for day in (1, 2, 3, 9, 10)), dt.datetime(1960, 1, 1)],
    "date": [None, *(dt.date(2025, month, 1) for month in (1, 2, 3, 9, 10)), dt.date(1960, 1, 1)],
    "text": [None, "2025-01-01", "2025-01-01T10:00:00", "2025-01-02", "2025-02-01", "2025-10-01", "1999-12-31"],
}


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("policy", DUPLICATES)
@settings(max_examples=25)
@given(rows=st.lists(st.tuples(*[st.integers(0, 3)] * 2, st.integers(-8, 8), st.integers(0, 6)), min_size=1))
def test_repeated_rows_become_what_a_dictionary_says(
    policy: str, kind: str, rows: list[tuple[int, int, int, int]]
) -> None:
    times = [TIMES[kind][when] for *_, when in rows]
    table = pl.DataFrame(
        {"user": [r[0] for r in rows], "item": [f"i{r[1]}" for r in rows], "rating": [r[2] / 2 for r in rows]}
    )
    if any(time is not None for time in times):
        table = table.with_columns(pl.Series("timestamp", times))
    oldest = [time is not None and time == time for time in times]  # a row without a time is older than any
    order = sorted(range(len(rows)), key=lambda at: (oldest[at], times[at] if oldest[at] else 0))
    lists: dict[tuple[Id, Id], list[float]] = {}
    for at in order:
        lists.setdefault((rows[at][0], f"i{rows[at][1]}"), []).append(rows[at][2] / 2)
    repeated = len(rows) - len(lists)
    if policy == "error" and repeated:
        with pytest.raises(DataError, match=f"{repeated} rows repeat a user and item"):
            read(table, duplicates=policy)
        return
    merge = {
        "last": lambda values: values[-1],
        "first": lambda values: values[0],
        "sum": sum,
        "mean": lambda values: np.float32(sum(values) / len(values)),
        "max": max,
        "error": max,
    }[policy]
    found, report = read(table, duplicates=policy)
    assert triples(found) == {pair: merge(values) for pair, values in lists.items()}
    assert (report.rows, report.repeated, report.pairs) == (len(rows), repeated, len(lists))


@pytest.mark.parametrize("policy", ["last", "first", "sum"])
def test_rows_without_times_are_taken_in_the_order_of_the_files_and_their_row_groups(policy: str) -> None:
    for part in range(3):
        n = 1000
        frame = pl.DataFrame({"user": [1] * n, "item": [1] * n, "rating": range(part * n, (part + 1) * n)})
        frame.write_parquet(f"{part}.parquet", row_group_size=100)
    with source(["2.parquet", "0.parquet", "1.parquet"]) as found:
        value = read_interactions(found, ReadConfig(duplicates=policy))[0].matrix.values.tolist()
    assert value == {"last": [1999.0], "first": [2000.0], "sum": [2999 * 3000 / 2]}[policy]


@pytest.mark.parametrize("times", ["x,y", "1/2/2025,2/1/2025", "2025-1-2,2025-01-03", "true,false"])
def test_times_that_do_not_order_are_refused_but_only_where_they_matter(times: str) -> None:
    first, second = times.split(",")
    table = "user,item,rating,timestamp\n{},1,1,{}\n2,1,2,{}\n"
    with pytest.raises(DataError, match=r"column 'timestamp': expected time.*leave it out with --columns timestamp="):
        read(table.format(2, first, second).encode())
    found, _ = read(table.format(2, first, second).encode(), columns={"timestamp": ""})
    assert triples(found) == {(2, 1): 2.0}
    assert read(table.format(2, first, second).encode(), duplicates="sum")[1].repeated == 1
