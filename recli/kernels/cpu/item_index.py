"""Items by descending norm, as float32 rows that decide and as bytes that nominate."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from recli.kernels.cpu.byte_tile import ITEM_LEVELS, ITEMS
from recli.kernels.spec import Floats, Nums

CENTRED_ON = 1024  # rows whose mean is the centre: enough that it is near that of all, few to read from a file


class ItemIndex:
    """rows float32[m, width], norms float64[m], order int32[m]: see `spec.Kernels.index_arrays`; the norms let a search
    stop (Cauchy-Schwarz).

    Rows less the centre (which takes off what items have in common, such as columns of ones for the users' biases) are
    rounded to bytes tile by tile, when a search first comes there. A tile of ITEMS rows has one scale; codes
    uint8[tiles, width / 4, ITEMS, 4] are 1 + ITEM_LEVELS more than row / scale, and 1 + ITEM_LEVELS behind the last
    item; bounds float64[tiles, 3] (OUT of `round_rows`): scale, the largest norm of rows less the centre, and the
    largest norm of what rounding took from them.
    """

    def __init__(self, rows: Floats, norms: NDArray[np.float64], order: Nums) -> None:
        self.rows, self.norms, self.order = rows, norms, order
        tiles, width = -(-len(order) // ITEMS), rows.shape[1]
        self.centre = rows[:CENTRED_ON].mean(axis=0, dtype=np.float64) if len(rows) else np.zeros(width)
        self.codes = np.empty((tiles, width // 4, ITEMS, 4), np.uint8)
        self.bounds = np.zeros((tiles, 3))
        self._rounded, self._lock = 0, threading.Lock()

    def round_up_to(self, tiles: int) -> None:
        """Makes sure that the first so many tiles have their bytes."""
        with self._lock:
            span = slice(self._rounded, tiles)
            if span.start < tiles:
                # a copy: numba would compile once more for read-only arrays
                rows = np.array(self.rows[span.start * ITEMS : tiles * ITEMS])
                round_rows(rows, self.centre, self.codes[span], self.bounds[span])
                self._rounded = tiles

    @cached_property
    def reach(self) -> float:
        """No row less the centre is longer."""
        return float(self.norms[:1].sum() + np.linalg.norm(self.centre))

    @cached_property
    def nums(self) -> Nums:
        """`order`, to be written to: numba would compile once more for read-only arrays."""
        return np.array(self.order)

    @cached_property
    def places(self) -> Nums:
        """The row of each item."""
        places = np.empty_like(self.nums)
        places[self.nums] = np.arange(len(places), dtype=np.int32)
        return places

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"rows": self.rows, "norms": self.norms, "order": self.order}


@nb.njit(nogil=True, error_model="numpy", cache=True)
def round_rows(rows: Any, centre: Any, codes: Any, bounds: Any) -> None:
    """codes and bounds (OUT), as in ItemIndex, of tiles that begin with the first row."""
    left = np.empty((ITEMS, rows.shape[1]))
    for tile in range(len(codes)):
        first = tile * ITEMS
        count = min(ITEMS, len(rows) - first)
        largest = 0.0
        for i in range(count):
            for k in range(rows.shape[1]):
                left[i, k] = rows[first + i, k] - centre[k]
                largest = max(largest, abs(left[i, k]))
        scale = largest / ITEM_LEVELS
        inverse = 1 / scale if scale > 0 else 0.0
        longest, worst = 0.0, 0.0
        for i in range(ITEMS):
            square, lost = 0.0, 0.0
            for k in range(rows.shape[1]):
                level = 0.0
                if i < count:
                    level = np.rint(left[i, k] * inverse)
                    square += left[i, k] ** 2
                    lost += (left[i, k] - level * scale) ** 2
                codes[tile, k // 4, i, k % 4] = np.uint8(level + (ITEM_LEVELS + 1))
            longest, worst = max(longest, square), max(worst, lost)
        bounds[tile, 0], bounds[tile, 1], bounds[tile, 2] = scale, np.sqrt(longest), np.sqrt(worst)
