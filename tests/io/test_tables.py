"""Pairs as a table with text ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from recli import io
from recli.config import ReadConfig
from tests.kernels.problems import csr


def test_pairs_are_read_again_as_they_were() -> None:
    matrix = csr(np.random.default_rng(0), [3, 9, 1, 5], 12)
    io.write_pairs(Path("p.parquet"), matrix, 0)
    frame = pl.read_parquet("p.parquet")
    assert frame.schema == {"user": pl.String, "item": pl.String, "rating": pl.Float32}
    assert frame["user"].to_list() != sorted(frame["user"])  # in no order
    rows = {(int(user[1:]), int(item[1:]), value) for user, item, value in frame.rows()}
    users = np.repeat(np.arange(4), np.diff(matrix.indptr)).tolist()
    assert rows == set(zip(users, matrix.indices.tolist(), matrix.values.tolist(), strict=True))
    with io.source(["p.parquet"]) as found:
        assert io.read_interactions(found, ReadConfig())[1].pairs == 18
