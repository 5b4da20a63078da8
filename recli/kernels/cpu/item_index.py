"""Items by descending norm, as float32 rows that decide and as bytes that nominate."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.compiled import nb
from recli.kernels.cpu.byte_tile import ITEM_LEVELS, ITEMS
from recli.kernels.cpu.rotation import rotate
from recli.kernels.cpu.search import Tiles
from recli.kernels.spec import Floats, Nums

CHUNK_TILES = 16  # that are rounded together
CENTRED_ON = 1024  # rows whose mean is the middle: enough that it is near that of all, few to read from a file


class ItemIndex:
    """rows float32[m, width], norms float64[m], order int32[m]: see `spec.Kernels.index_arrays`; the norms let a search
    stop (Cauchy-Schwarz).

    Rows less their middle (which takes off what items have in common, such as columns of ones for the users' biases),
    rotated, are rounded to bytes when a search first comes there. A tile of ITEMS rows has one scale; codes
    uint8[tiles, width / 4, ITEMS, 4] are ITEM_LEVELS + 1 more than row / scale, and ITEM_LEVELS + 1 behind the last
    item; bounds float64[tiles, 3]: scale, the largest norm of such rows, and of what rounding took from them.
    """

    def __init__(self, rows: Floats, norms: NDArray[np.float64], order: Nums) -> None:
        self.rows, self.norms, self.order = rows, norms, order
        tiles, width = -(-len(order) // ITEMS), rows.shape[1]
        middle = rows[:CENTRED_ON].sum(axis=0, dtype=np.float64) / max(1, len(rows[:CENTRED_ON]))
        self._middle = middle.astype(np.float32)
        self.centre = rotate(self._middle[None].astype(np.float64))[0]
        self.codes = np.empty((tiles, width // 4, ITEMS, 4), np.uint8)
        self.bounds = np.zeros((tiles, 3))
        self._locks = [threading.Lock() for _ in range(0, tiles, CHUNK_TILES)]
        self._rounded = [False] * len(self._locks)

    def tiles(self, first: int, last: int) -> Tiles:
        """A span for a search."""
        self._round_up_to(last)
        span = slice(first, last)
        norms = np.array(self.norms[first * ITEMS : last * ITEMS : ITEMS])
        return Tiles(first * ITEMS, self.codes[span], self.bounds[span], norms, self.nums, self.rows.ctypes.data)

    def _round_up_to(self, tiles: int) -> None:
        """Makes sure that the first so many tiles have their bytes, whichever threads round them."""
        chunks = range(-(-tiles // CHUNK_TILES))
        chunks = range(-(-tiles // CHUNK_TILES))
        for wait in (False, True):
            for chunk in chunks:
                if self._rounded[chunk] or not self._locks[chunk].acquire(blocking=wait):
                    continue
                try:
                    if not self._rounded[chunk]:
                        self._round(chunk)
                finally:
                    self._locks[chunk].release()

    def _round(self, chunk: int) -> None:
        first, last = chunk * CHUNK_TILES, (chunk + 1) * CHUNK_TILES
        rows = self.rows[first * ITEMS : last * ITEMS] - self._middle
        round_rows(rotate(rows), self.codes[first:last], self.bounds[first:last])
        self._rounded[chunk] = True

    @cached_property
    def reach(self) -> float:
        """No row less the middle is longer."""
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
def round_rows(rows: Any, codes: Any, bounds: Any) -> None:
    """codes and bounds (OUT), as in ItemIndex, of tiles of float32 rows [n, width], less the middle and rotated."""
    width = rows.shape[1]
    for tile in range(len(codes)):
        first = tile * ITEMS
        count = min(ITEMS, len(rows) - first)
        largest = 0.0
        for i in range(first, first + count):
            for k in range(width):
                largest = max(largest, abs(np.float64(rows[i, k])))
        scale = largest / ITEM_LEVELS
        inverse = 1 / scale if scale > 0 else 0.0
        longest, worst = 0.0, 0.0
        for i in range(ITEMS):
            square, lost = 0.0, 0.0
            for k in range(width):
                level = 0.0
                if i < count:
                    value = np.float64(rows[first + i, k])
                    level = np.rint(value * inverse)
                    square += value * value
                    lost += (value - level * scale) ** 2
                codes[tile, k // 4, i, k % 4] = np.uint8(level + (ITEM_LEVELS + 1))
            longest, worst = max(longest, square), max(worst, lost)
        bounds[tile, 0], bounds[tile, 1], bounds[tile, 2] = scale, np.sqrt(longest), np.sqrt(worst)
