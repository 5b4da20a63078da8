"""Exact top-K over tiles of approximate scores (numba): nominate within a proven margin, rescore, keep a heap."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from recli.kernels.cpu.simd import dot_exact, max16

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
def replace_smallest(heap: Any, key: Any) -> None:
    """heap[0] is the smallest of a binary heap; key takes its place and sinks."""
    size, at = len(heap), 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key


@nb.njit(nogil=True, error_model="numpy", cache=True)
def contains(items: Any, low: Any, high: Any, item: Any) -> Any:
    end = high
    while low < high:
        middle = (low + high) // 2
        if items[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low < end and items[low] == item


@nb.njit(nogil=True, error_model="numpy", cache=True)
def limit_of(worst: Any, margin: Any) -> Any:
    """worst - margin in float32, rounded down: never above what float64 gives."""
    return np.nextafter(F(worst - margin), F(-np.inf))


@nb.njit(nogil=True, error_model="numpy", cache=True)
def scan_tile(
    tile: Any,
    users: Any,
    rows: Any,
    items_at: Any,
    order: Any,
    margin: Any,
    indptr: Any,
    indices: Any,
    heaps: Any,
) -> None:
    """Merges approximate scores tile float32[a, t] of users `rows` int64[a] with t items into heaps.

    users float32[n, rank]; items_at: the address of the items' float32[t, rank], C-order: what is nominated is rescored
    with; rank a multiple of 8. order int32[t]: the items' numbers. margin float64[a]: a bound on |tile - score|. heaps
    uint64[n, k] (IN/OUT), by `key_of`. indptr int64[n + 1], indices int32: item numbers left out, ascending in each
    row. t must be a multiple of 16 in memory: the caller fills the rest of the last tile with -inf.
    """
    rank = users.shape[1]
    stride = np.uint64(4 * rank)
    items_from = np.uint64(items_at)
    for a in range(len(rows)):
        u = rows[a]
        heap = heaps[u]
        row = tile[a]
        row_at = np.uint64(row.ctypes.data)
        user_at = np.uint64(users[u].ctypes.data)
        worst = score_of(heap[0]) if heap[0] != EMPTY else F(-np.inf)
        limit = limit_of(worst, margin[a])
        for j0 in range(0, len(row), 16):
            if max16(row_at + np.uint64(4 * j0)) < limit:
                continue
            for j in range(j0, j0 + 16):
                if row[j] < limit or row[j] == F(-np.inf):
                    continue
                item = order[j]
                if contains(indices, indptr[u], indptr[u + 1], item):
                    continue
                key = key_of(F(dot_exact(user_at, items_from + np.uint64(j) * stride, rank)), item)
                if key > heap[0]:
                    replace_smallest(heap, key)
                    if heap[0] != EMPTY:
                        worst = score_of(heap[0])
                        limit = limit_of(worst, margin[a])


@nb.njit(nogil=True, error_model="numpy", cache=True)
def read_heaps(heaps: Any, items: Any, scores: Any) -> None:
    """heaps uint64[n, k] (destroyed) to items int32[n, k] and scores float32[n, k] (OUT), best first; -1 and -inf where
    nothing is.
    """
    for u in range(len(heaps)):
        heap = heaps[u]
        heap.sort()
        k = len(heap)
        for j in range(k):
            key = heap[k - 1 - j]
            if key == EMPTY:
                items[u, j], scores[u, j] = -1, F(-np.inf)
            else:
                items[u, j] = np.int32(np.uint32(0xFFFFFFFF) - np.uint32(key & np.uint64(0xFFFFFFFF)))
                scores[u, j] = score_of(key)
