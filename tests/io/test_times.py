"""Times in the order of the matrix's entries."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recli import io
from recli.config import ReadConfig
from recli.errors import UsageError
from recli.ids import row_numbers
from recli.io.id_columns import to_series

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=40)


def times(path: str, config: ReadConfig | None = None) -> dict[tuple[str, str], int]:
    """Pair -> its time."""
    config = config or ReadConfig()
    with io.source([path]) as found:
        interactions, _ = io.read_interactions(found, config)
        ranks = io.read_times(found, interactions, config)
    matrix = interactions.matrix
    users = to_series(interactions.user_ids, "user").gather(row_numbers(matrix.indptr)).cast(pl.String)
    items = to_series(interactions.item_ids, "item").gather(matrix.indices).cast(pl.String)
    assert ranks.dtype == np.int64
    return dict(zip(zip(users, items, strict=True), ranks.tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(ROWS, st.booleans())
def test_each_pair_has_the_time_of_its_latest_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]], text: bool
) -> None:
    path = str(tmp_path_factory.mktemp("times") / "r.parquet")
    frame = pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")
    frame = frame.with_columns(pl.format("u{}", "user"), pl.format("i{}", "item")) if text else frame
    frame.write_parquet(path)
    latest: dict[tuple[str, str], int] = {}
    for user, item, time in frame.rows():
        latest[str(user), str(item)] = max(time, latest.get((str(user), str(item)), -1))
    found = times(path)
    moments = sorted({time for _, _, time in rows})
    assert found == {pair: moments.index(time) + 1 for pair, time in latest.items()}


def test_conditions_and_names_are_those_of_the_reading() -> None:
    pl.DataFrame(
        {"user": [1, 1, 2], "item": [3, 4, 3], "rating": [5, 1, 5], "when": ["2025-01-03", "2025-01-01", None]}
    ).write_csv("r.csv")
    found = times("r.csv", ReadConfig(columns={"timestamp": "when"}, where="rating > 2"))
    assert found == {("1", "3"): 1, ("2", "3"): 0}  # without a time, the oldest


def test_a_table_without_times_is_a_usage_error() -> None:
    pl.DataFrame({"user": [1], "item": [3]}).write_csv("r.csv")
    with pytest.raises(
        UsageError, match=r"r\.csv: no column looks like the time: name it with --columns timestamp=NAME"
    ):
        times("r.csv")
