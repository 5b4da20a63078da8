"""Tables that are no lists: rows of numbers and names for dashboards, and ratings with text ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from recli.ids import Csr, row_numbers


def write_rows(rows: Sequence[Mapping[str, Any]], file: BinaryIO) -> None:
    """As Parquet, one column for each name in any row; null where a row lacks it."""
    columns = dict.fromkeys(name for row in rows for name in row)
    frame = pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], infer_schema_length=None)
    frame.write_parquet(file)


def write_pairs(path: Path, matrix: Csr, seed: int) -> None:
    """Columns user, item (text such as u17 and i4) and rating, as Parquet, rows in random order."""
    order = np.random.default_rng(seed).permutation(len(matrix.indices))
    users, items = row_numbers(matrix.indptr).astype(np.int32)[order], matrix.indices[order]
    pl.LazyFrame({"user": users, "item": items, "rating": matrix.values[order]}).select(
        pl.concat_str(pl.lit("u"), "user").alias("user"), pl.concat_str(pl.lit("i"), "item").alias("item"), "rating"
    ).sink_parquet(path)
