"""What may be recommended: all items or some, and at most so many of a kind in a list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from recli.ids import Csr
from recli.kernels.spec import Floats, Kernels, Nums


@dataclass(frozen=True)
class Cap:
    """A list has at most `most` items of one group. groups: int32[I], the group of each item of the model from 0 up, -1
    for items in none, which are not capped.
    """

    groups: Nums
    most: int

    @cached_property
    def count(self) -> int:
        """How many groups there are, -1 left out."""
        return int(self.groups.max(initial=-1)) + 1


@dataclass(frozen=True)
class Catalogue:
    """items: ascending item numbers int32[m], or None: all of the model's. Items that a list has too many of for any of
    the caps are skipped.
    """

    items: Nums | None = None
    caps: tuple[Cap, ...] = ()


class Ranking:
    """Items in the order of their scores for any user, searched exactly."""

    def __init__(self, kernels: Kernels, rows: Floats, numbers: Nums, places: Nums) -> None:
        """rows: float32[m, width], of the items with these ascending numbers. places: int32[I], where each is among
        them; anything for items that are not.
        """
        self._kernels, self._rows, self._numbers, self._places = kernels, rows, numbers, places

    @cached_property
    def _index(self) -> Any:
        return self._kernels.index_items(self._rows)

    def top(self, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        """As `Kernels.topk`, in the model's item numbers."""
        places, scores = self._kernels.topk(self._index, users, k, self._placed(excluded))
        if len(self._numbers) < len(self._places):
            places = np.where(places < 0, np.int32(-1), self._numbers[places])
        return places, scores

    def split(self, groups: Nums) -> list[Ranking]:
        """One ranking for each group, int32[I], that there is among these items."""
        places, parts = np.empty_like(self._places), []
        mine = groups[self._numbers]
        order = np.argsort(mine, kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(mine[order])) + 1):
            numbers = self._numbers[at]
            places[numbers] = np.arange(len(at), dtype=np.int32)
            parts.append(Ranking(self._kernels, self._rows[at], numbers, places))
        return parts

    def _placed(self, excluded: Csr | None) -> Csr | None:
        """Lists of items as lists of their places among those here, without the others."""
        if excluded is None or len(self._numbers) == len(self._places):
            return excluded
        places = self._places[excluded.indices]
        there = self._numbers[np.minimum(places, len(self._numbers) - 1)] == excluded.indices
        ends = np.append(0, np.cumsum(there))
        return Csr(ends[excluded.indptr], places[there], np.zeros(0, np.float32))
