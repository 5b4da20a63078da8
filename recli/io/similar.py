"""Neighbours of items or users as rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.io.id_columns import to_series
from recli.io.scores import free_name


class SimilarTable:
    """Turns blocks of numbers into rows: the asked id in the column named as in the model's data (item_id), its
    neighbour in similar_item_id, rank from 1, and score.
    """

    def __init__(self, asked: NDArray[np.int64], factors: Factors, role: str) -> None:
        """asked: the numbers of the items (or users: role) that the blocks are about."""
        self._asked = asked
        self._ids = to_series(factors.item_ids if role == "item" else factors.user_ids, "id")
        name = free_name(factors.provenance.columns[role], ("rank", "score"))
        self.schema: dict[str, Any] = {
            name: self._ids.dtype,
            f"similar_{name}": self._ids.dtype,
            "rank": pl.Int32(),
            "score": pl.Float32(),
        }

    def frame(self, start: int, nums: NDArray[np.int32], cosines: NDArray[np.float32]) -> pl.DataFrame:
        """Rows of those asked for from position start on: nums int32[n, k], -1 where a list has ended, cosines
        float32[n, k].
        """
        row, column = np.nonzero(nums >= 0)
        columns = (
            self._ids.gather(self._asked[row + start]),
            self._ids.gather(nums[row, column]),
            pl.Series((column + 1).astype(np.int32)),
            pl.Series(cosines[row, column]),
        )
        return pl.DataFrame(dict(zip(self.schema, columns, strict=True)))
