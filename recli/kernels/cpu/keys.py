"""A score and an item number as one integer that ranks as they do (numba)."""

from __future__ import annotations

from typing import Any

import numpy as np

from recli.compiled import nb

F = np.float32
EMPTY = np.uint64(0)  # below every real key


@nb.njit(nogil=True, error_model="numpy", cache=True)
def key_of(score: Any, item: Any) -> Any:
    """One integer that ranks: higher score first, then lower item number. No fastmath: + 0 must turn -0 into +0."""
    bits = F(score + F(0)).view(np.uint32)
    ordered = ~bits if bits >> np.uint32(31) else bits | np.uint32(0x80000000)
    return (np.uint64(ordered) << np.uint64(32)) | np.uint64(np.uint32(0xFFFFFFFF) - np.uint32(item))


@nb.njit(nogil=True, error_model="numpy", cache=True)
def score_of(key: Any) -> Any:
    ordered = np.uint32(key >> np.uint64(32))
    bits = ordered & np.uint32(0x7FFFFFFF) if ordered >> np.uint32(31) else ~ordered
    return np.uint32(bits).view(np.float32)


@nb.njit(nogil=True, error_model="numpy", cache=True)
def read_keys(best: Any, items: Any, scores: Any) -> None:
    """best uint64[n, k], ascending, to items int32[n, k] and scores float32[n, k] (OUT), best first; -1 and -inf where
    nothing is.
    """
    n, k = best.shape
    for u in range(n):
        for j in range(k):
            key = best[u, k - 1 - j]
            if key == EMPTY:
                items[u, j], scores[u, j] = -1, F(-np.inf)
            else:
                items[u, j] = np.int32(np.uint32(0xFFFFFFFF) - np.uint32(key & np.uint64(0xFFFFFFFF)))
                scores[u, j] = score_of(key)
