"""Ids that come in pieces have the numbers that sorting all of them would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recli.config import ReadConfig
from recli.io import rows
from recli.io.id_columns import to_series
from recli.io.interactions import read_interactions
from recli.io.numbering import CollisionError, Numbering
from recli.io.sources import source


def numbered(pieces: list[pl.Series]) -> tuple[list[int], list[Any]]:
    numbering = Numbering()
    codes = np.concatenate([numbering.add(piece) for piece in pieces])
    rank, ids = numbering.ranked(typed=True)
    return rank[codes].tolist(), to_series(ids, "id").to_list()


@pytest.mark.parametrize("dtype", [pl.Int64, pl.UInt8, pl.String])
@given(pieces=st.lists(st.lists(st.integers(0, 200), max_size=20), min_size=1), long=st.booleans())
def test_pieces_are_numbered_as_the_whole_is(dtype: Any, pieces: list[list[int]], long: bool) -> None:
    """Texts of more than 12 bytes are stored apart from their columns in polars, shorter ones are not."""
    name = ("an-id-of-more-than-12-bytes-" if long else "") + "{}é"
    make = (lambda number: name.format(number)) if dtype == pl.String else (lambda number: number)
    columns = [pl.Series([make(number) for number in piece], dtype=dtype) for piece in pieces]
    nums, ids = numbered(columns)
    everything = pl.concat(columns).to_list()
    assert ids == sorted(set(everything), key=lambda each: each.encode() if isinstance(each, str) else each)
    assert [ids[num] for num in nums] == everything


def test_many_ids_make_the_table_grow() -> None:
    ids = np.random.default_rng(0).permutation(30_000)
    for column in (pl.Series(ids), pl.Series([f"user-{each}" for each in ids])):
        nums, known = numbered([column[:11_000], column[11_000:], column])
        assert known == sorted(set(column))
        assert [known[num] for num in nums] == column.to_list() * 2


def test_texts_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is read again with another seed, of which only a good one is taken."""
    seeds = iter([1, 2, 3, 4, 99, 100])
    monkeypatch.setattr("secrets.randbits", lambda bits: next(seeds))
    honest = pl.Series.hash
    monkeypatch.setattr(
        pl.Series, "hash", lambda ids, seed: honest(ids, seed) if seed > 50 else ids.str.len_bytes().cast(pl.UInt64)
    )
    with pytest.raises(CollisionError):
        numbered([pl.Series(["a", "b"])])
    with pytest.raises(CollisionError):
        numbered([pl.Series(["a"]), pl.Series(["b"])])
    pl.DataFrame({"user": ["a", "b", "a"], "item": ["x", "yy", "y"]}).write_parquet("a.parquet")
    with source(["a.parquet"]) as found:  # with seeds 3 and 4 first
        interactions, _ = read_interactions(found, ReadConfig())
    assert to_series(interactions.user_ids, "user").to_list() == ["a", "b"]
    assert interactions.matrix.indices.tolist() == [0, 1, 2]
    assert list(seeds) == []


@pytest.mark.parametrize("duplicates", ["last", "first", "sum", "mean", "max"])
@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_the_size_of_pieces_changes_nothing(duplicates: str, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "user": [f"u{number}" for number in rng.integers(0, 20, 300)],
            "item": rng.integers(0, 20, 300),
            "rating": rng.integers(1, 11, 300) / 2,
            "timestamp": rng.integers(0, 50, 300),
        }
    )
    name = f"a.{format}"
    getattr(table, f"write_{format}")(name)
    found = []
    for size in (1 << 18, 7):
        monkeypatch.setattr(rows, "PIECE", size)
        monkeypatch.setattr("recli.io.interactions.PIECE", size)
        with source([name]) as each:
            found.append(read_interactions(each, ReadConfig(duplicates=duplicates))[0])
    for array, expected in zip(found[1].arrays().items(), found[0].arrays().items(), strict=True):
        assert array[0] == expected[0]
        np.testing.assert_array_equal(array[1], expected[1])


def test_missing_ids_are_counted_over_all_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE", 2)
    pl.DataFrame({"a{b}": ["x"] * 3 + [None, "y", None], "item": range(6)}).write_parquet("a.parquet")
    with (
        source(["a.parquet"]) as found,
        pytest.raises(rows.DataError, match=r"^a.parquet: column 'a\{b\}': 2 ids are missing, first in row 4$"),
    ):
        read_interactions(found, ReadConfig(columns={"user": "a{b}"}))
