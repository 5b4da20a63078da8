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

    def __init__(
        self, kernels: Kernels, rows: Floats, numbers: Nums | None, count: int, places: Nums | None = None
    ) -> None:
        """rows: float32[m, width], of the items with these ascending numbers below `count`, or of all. places:
        int32[count], where each of them is among these, anything for other items; None: it is made here.
        """
        self._kernels, self._rows, self._all = kernels, rows, numbers is None
        numbers = np.arange(count, dtype=np.int32) if numbers is None else numbers
        if places is None:
            places = np.zeros(count, np.int32)
            places[numbers] = np.arange(len(numbers), dtype=np.int32)
        self._places, self._numbers = places, np.append(numbers, np.int32(-1))

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _index(self) -> Any:
        return self._kernels.index_items(self._rows)

    def top(self, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        """As `Kernels.topk`, in the model's item numbers."""
        if self._all:
            return self._kernels.topk(self._index, users, k, excluded)
        places, scores = self._kernels.topk(self._index, users, k, self._placed(excluded) if excluded else None)
        return self._numbers[places], scores

    def split(self, groups: Nums) -> dict[int, Ranking]:
        """The same ranking for the items of each group alone. groups: int32[count], that of each item."""
        places, parts = np.zeros_like(self._places), {}  # of items that are not here too: some place, to be compared
        mine = groups[self._numbers[:-1]]
        order = np.argsort(mine, kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(mine[order])) + 1):
            numbers = self._numbers[at]
            places[numbers] = np.arange(len(at), dtype=np.int32)
            parts[int(mine[at[0]])] = Ranking(self._kernels, self._rows[at], numbers, len(places), places)
        return parts

    def _placed(self, excluded: Csr) -> Csr:
        """Lists of items as lists of their places among those here, without the others."""
        places = self._places[excluded.indices]
        there = self._numbers[np.minimum(places, len(self._numbers) - 1)] == excluded.indices
        ends = np.append(0, np.cumsum(there))
        return Csr(ends[excluded.indptr], places[there], np.zeros(0, np.float32))
