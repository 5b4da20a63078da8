"""Memory that short-lived tables take turns in: fresh pages from the system cost as much as filling them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from recli.kernels.cpu import aligned
from recli.kernels.spec import Floats

MOST = 16  # pieces kept
ROOM = 1.25  # of a new piece, for later arrays that are a little larger


class Pool:
    """Lends arrays; what is given back goes to the next one that fits."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []

    def empty(self, rows: int, rank: int) -> Floats:
        """float32[rows, rank], C-order, from a cache line on, with anything in it."""
        size = 4 * rows * rank + aligned.LINE
        fitting = [at for at, piece in enumerate(self._free) if size <= len(piece) <= 4 * size]
        best = min(fitting, key=lambda at: len(self._free[at]), default=None)
        piece = np.empty(math.ceil(ROOM * size), np.uint8) if best is None else self._free.pop(best)
        return aligned.within(piece, (rows, rank))

    def give_back(self, array: Floats) -> None:
        """An array of `empty` that nobody uses any more."""
        if isinstance(array.base, np.ndarray):
            self._free.append(array.base)
            del self._free[:-MOST]
