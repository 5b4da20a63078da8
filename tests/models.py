"""Models of other tests' shapes, without biases and seen lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from recli.artifacts import Factors, Provenance
from recli.ids import Ids
from recli.io.id_columns import from_series
from recli.io.npz import write_npz


def bare(user_ids: Ids, item_ids: Ids, rank: int = 0, **more: Any) -> Factors:
    """Zero factors of this rank, unless P and Q are among `more`."""
    users, items = len(user_ids), len(item_ids)
    arrays = {
        "P": np.zeros((users, rank), np.float32),
        "Q": np.zeros((items, rank), np.float32),
        "b_u": np.zeros(users, np.float32),
        "b_v": np.zeros(items, np.float32),
        "b": np.array(0, np.float32),
        "item_counts": np.zeros(items, np.int64),
    }
    return Factors(**{**arrays, "user_ids": user_ids, "item_ids": item_ids, **more})


def of_ids(users: pl.Series, items: pl.Series, names: tuple[str, str] = ("user", "item")) -> Factors:
    """Nothing but ids, and the names of their columns."""
    provenance = Provenance(columns=dict(zip(("user", "item"), names, strict=True)))
    return bare(from_series(users), from_series(items), provenance=provenance)


def write_random(path: str, users: int, items: int) -> None:
    """A model of rank 8 whose ids are numbers."""
    rng = np.random.default_rng(0)
    P, Q = rng.standard_normal((users, 8), np.float32), rng.standard_normal((items, 8), np.float32)
    with open(path, "wb") as file:
        counts = np.ones(items, np.int64)
        write_npz(bare(Ids(np.arange(users)), Ids(np.arange(items)), P=P, Q=Q, item_counts=counts), file)
