"""Exact top-K lists (nominate.cu, topk.cu): items in spans by descending norm, users in blocks, nothing of which waits
for the host but the lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from recli.ids import Csr
from recli.kernels.gpu import tables
from recli.kernels.gpu.cuda import Array, Cuda
from recli.kernels.gpu.item_index import SLACK, ItemIndex, OnDevice, among
from recli.kernels.gpu.memory import halving
from recli.kernels.gpu.transfers import Moving, Returning, moving, started
from recli.kernels.spec import Floats, Nums

TILE, DEEP, PITCH, THREADS, BINS, FACTS = 128, 64, 72, 128, 256, 4  # as in nominate.cu and topk.cu
TILES = 8  # of items, at most, that a block goes through
BLOCKS = 4  # a processor, at least, where there are tiles enough
USERS = 1 << 15  # of a block
# Candidates that a user may have waiting: for each of its list, and at least. The first span is half of that; each span
# is twice what came before, so that about 2 k of its items pass the limit that those before have set.
PER_K, CANDIDATES, GROWTH = 8, 1024, 3
LEAST_CANDIDATES = 128  # which a search without candidates works with
SHARED_BYTES = 32 << 10  # of a user's candidates: more are worked with where they are

Excluded: TypeAlias = tuple[Array | None, int, Array | None]  # indptr, origin, indices: see compress in topk.cu


def topk(cuda: Cuda, index: ItemIndex, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
    """See `spec.Kernels.topk`."""

    def attempt(run: int) -> tuple[Nums, Floats]:
        index.run = run
        lists = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
        for items, named in index.runs():
            if named is None:
                return _search(cuda, items, users, k, excluded)
            nums, scores = _search(cuda, items, users, k, among(excluded, named) if excluded else None)
            del items  # whose memory is the next ones'
            lists = _best(lists, (np.append(named, np.int32(-1))[nums], scores))
        return lists

    return halving(attempt, index.run, min(len(index), TILE))


def _best(one: tuple[Nums, Floats], other: tuple[Nums, Floats]) -> tuple[Nums, Floats]:
    """Of two lists [n, k] of each user."""
    nums, scores = (np.hstack(sides) for sides in zip(one, other, strict=True))
    order = np.lexsort((nums, -scores))[:, : one[0].shape[1]]
    return np.take_along_axis(nums, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _search(cuda: Cuda, items: OnDevice, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
    """Lists as `topk` returns them."""
    n, m = len(users), len(items)
    nums, scores = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    nums[:, m:], scores[:, m:] = -1, -np.inf  # behind all items there are
    if not n or not m:
        return nums, scores
    search, pieces, size = _begin(cuda, items, users, min(k, m), excluded)
    for start, piece in zip(range(0, n, size), pieces, strict=True):
        count = min(size, n - start)
        origin = int(excluded.indptr[start]) if excluded else 0
        search.run(piece[0], count, (piece[1], origin, piece[2]) if excluded else (None, 0, None))
        search.lists.send([(side[:, :m], slice(start, start + count)) for side in (nums, scores)])
    search.lists.finish()
    return nums, scores


def _begin(
    cuda: Cuda, items: OnDevice, users: Floats, k: int, excluded: Csr | None
) -> tuple[_Search, Iterator[list[Array]], int]:
    """Memory for blocks of users as large as fit, what comes to the device with each, and their size."""

    def attempt(tiles: int) -> tuple[_Search, Iterator[list[Array]], int]:
        size = TILE * tiles
        search = _Search(cuda, items, min(size, len(users)), users.shape[1], k)
        return search, started(moving(cuda, _pieces(users, excluded, size))), size

    return halving(attempt, -(-min(USERS, len(users)) // TILE))


def _pieces(users: Floats, excluded: Csr | None, size: int) -> list[Moving]:
    """Of each block of users the rows, and where there are any the bounds and numbers of what is left out."""
    rows = tables.spans(len(users), size)
    if not excluded:
        return [Moving(users, rows)]
    indptr = excluded.indptr
    bounds = [slice(span.start, span.stop + 1) for span in rows]
    entries = [slice(int(indptr[span.start]), int(indptr[span.stop])) for span in rows]
    return [Moving(users, rows), Moving(indptr, bounds), Moving(excluded.indices, entries)]


def margins(width: int) -> tuple[float, float]:
    """Of a score's bounds: what is relative to |x'| reach, and h. See nominate.cu, which proves them."""
    relative = 2.0**-10 + 2.0**-20 + width * 2.0**-22
    return relative * SLACK * (1 + width * 2.0**-21), 2.0**-25 * float(np.sqrt(width)) * SLACK


class _Search:
    """Memory for lists of up to n users at a time, and the launches that fill it."""

    def __init__(self, cuda: Cuda, items: OnDevice, n: int, rank: int, k: int) -> None:
        self.cuda, self.items, self.rank, self.k = cuda, items, rank, k
        self.width = int(items.halves.shape[1])
        most = 1 << max(0, len(items) - 1).bit_length()  # more than the catalogue do not come
        wanted = 1 << (max(PER_K * k, CANDIDATES) - 1).bit_length()
        self.capacity = max(LEAST_CANDIDATES, min(most, wanted))
        self.lists = Returning(cuda, [(n, k)] * 2, [np.int32, np.float32])
        self.halves = cuda.empty((n, self.width), np.uint16)
        self.facts, self.limits = cuda.empty((n, FACTS)), cuda.empty(n)
        self.counts, self.kept, self.again = (cuda.empty(n, np.int32) for _ in range(3))
        self.candidates = cuda.empty((n, self.capacity), np.uint64)
        lows_bytes = 4 * self.capacity
        self.lows = cuda.empty((n, self.capacity)) if lows_bytes > SHARED_BYTES else None
        self.compress_bytes = 4 * (BINS + 4 + 64 + BINS // 2) + (lows_bytes if self.lows is None else 0)
        chunk_bytes, small_bytes, chunks = 2 * TILE * PITCH, 4 * (5 * TILE + 32), -(-self.width // DEEP)
        self.resident = chunks if small_bytes + (chunks + 2) * chunk_bytes <= cuda.shared_limit else 1
        self.nominate_bytes = small_bytes + (self.resident + 2) * chunk_bytes

    def run(self, rows: Array, n: int, excluded: Excluded) -> None:
        """The lists of users rows float32[n * rank]."""
        cuda, items, m = self.cuda, self.items, len(self.items)
        cuda.launch(
            "nominate.begin",
            -(-n // (THREADS // 32)),
            THREADS,
            *(rows, n, self.rank, self.width, *margins(self.width), items.reach, items.exponent),
            *(self.halves, self.facts, self.limits, self.counts, self.kept, self.again),
        )
        first, behind = 0, min(m, -(-self.capacity // 2 // TILE) * TILE)
        if self.capacity >= m:
            behind = m
        while first < m:
            for second in (False, True):
                if second and not first and behind <= self.capacity:
                    break  # there was room for all
                self._nominate(n, first, behind, second)
                self._compress(rows, n, first, behind, second, excluded)
            first, behind = behind, min(m, GROWTH * behind)
        fits = 8 * self.capacity <= SHARED_BYTES
        cuda.launch(
            "topk.finish",
            n,
            THREADS,
            *(self.candidates, self.capacity, fits, self.counts, self.facts, self.k, rows, self.rank),
            *(items.rows, m, int(items.rows.shape[1]), items.order, *excluded, *self.lists.room()),
            shared=8 * self.capacity if fits else 0,
        )

    def _nominate(self, n: int, first: int, behind: int, second: bool) -> None:
        items, tiles, high = self.items, -(-(behind - first) // TILE), -(-n // TILE)
        each = max(1, min(TILES, tiles * high // (BLOCKS * self.cuda.processors)), -(-tiles // 65535))
        self.cuda.launch(
            "nominate.nominate",
            (high, -(-tiles // each)),
            256,
            *(self.halves, self.facts, self.limits, self.again if second else None, n),
            *(items.halves, items.scales, items.norms, first, behind, self.width, each, self.resident),
            *(self.capacity, self.counts, self.candidates),
            shared=self.nominate_bytes,
        )

    def _compress(self, rows: Array, n: int, first: int, behind: int, second: bool, excluded: Excluded) -> None:
        items = self.items
        self.cuda.launch(
            "topk.compress",
            n,
            THREADS,
            *(self.candidates, self.capacity, self.counts, self.kept, self.again, self.limits, self.facts, second),
            *(self.k, items.scales, first, behind, rows, self.rank, items.rows, int(items.rows.shape[1])),
            *(items.order, items.places, 2.0**-items.exponent, *excluded, self.lows),
            shared=self.compress_bytes,
        )
