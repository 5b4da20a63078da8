"""What may be recommended: all items or some, and at most so many of a kind in a list."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Catalogue:
    """items: ascending item numbers int32[m], or None: all of the model's. Items that a list has too many of for any of
    the caps are skipped.
    """

    items: Nums | None = None
    caps: tuple[Cap, ...] = ()


class Ranking:
    """Items in the order of their scores for any user, searched exactly."""

    def __init__(self, kernels: Kernels, rows: Floats, numbers: Nums | None, count: int) -> None:
        """rows: float32[m, width], the items with these ascending numbers out of `count`, or all."""
        self._kernels, self._numbers = kernels, numbers
        self._index = kernels.index_items(rows)
        if numbers is not None:
            self._places = np.full(count, -1, np.int32)
            self._places[numbers] = np.arange(len(numbers), dtype=np.int32)

    def top(self, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        """As `Kernels.topk`, in the model's item numbers."""
        if self._numbers is None:
            return self._kernels.topk(self._index, users, k, excluded)
        places, scores = self._kernels.topk(self._index, users, k, self._placed(excluded) if excluded else None)
        return np.where(places < 0, np.int32(-1), self._numbers[places] if len(self._numbers) else places), scores

    def _placed(self, excluded: Csr) -> Csr:
        """Lists of items as lists of their places among those here, without the others."""
        places = self._places[excluded.indices]
        there = places >= 0
        ends = np.append(0, np.cumsum(there))
        return Csr(ends[excluded.indptr], places[there], np.zeros(0, np.float32))
