"""Exact top-K lists (nominate.cu, topk.cu): items in spans by descending norm, users in blocks, nothing of which waits
for the host but the lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recli.ids import Csr
from recli.kernels.gpu import tables
from recli.kernels.gpu.cuda import Array, Cuda, DeviceMemoryError
from recli.kernels.gpu.transfers import Returning, arriving
from recli.kernels.spec import Floats, Nums

TILE, DEEP, PITCH, THREADS, BINS, FACTS = 128, 64, 72, 128, 256, 4  # as in nominate.cu and topk.cu
COLUMNS = 16  # of halves, which a tensor core takes at a time
TILES = 8  # of items, at most, that a block goes through
BLOCKS = 4  # a processor, at least, where there are tiles enough
USERS = 1 << 15  # of a block
# Candidates that a user may have waiting: for each of its list, and at least. The first span is half of that; each span
# is twice what came before, so that about 2 k of its items pass the limit that those before have set.
PER_K, CANDIDATES, GROWTH = 8, 1024, 3
LEAST_CANDIDATES = 128  # which a search without candidates works with
SHARED_BYTES = 32 << 10  # of a user's candidates: more are worked with where they are
CLIP = 126  # 2^-126 is float32's smallest normal number
SLACK = 1 + 2.0**-9

Excluded: TypeAlias = tuple[Array | None, int, Array | None]  # indptr, origin, indices: see compress in topk.cu


class OnDevice(NamedTuple):
    """An index's copies.

    rows float32[m, width]; halves float16[m, any], scales, norms float32[m]: see nominate.cu; order, places int32[m]:
    the item of each row, the row of each item. reach: no scaled row is longer; exponent: of the norm that is 1 in
    `norms`.
    """

    rows: Array
    halves: Array
    scales: Array
    norms: Array
    order: Array
    places: Array
    reach: float
    exponent: int

    def __len__(self) -> int:
        return int(self.order.size)

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self[:6])


class ItemIndex:
    """rows float32[m, width], norms float64[m], order int32[m]: see `spec.Kernels.index_arrays`. Copies are on the
    device from the first search on.
    """

    def __init__(self, cuda: Cuda, rows: Floats, norms: NDArray[np.float64], order: Nums) -> None:
        self.rows, self.norms, self.order = rows, norms, order
        self._cuda = cuda
        self._copies: OnDevice | None = None
        cuda.keep(self)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"rows": self.rows, "norms": self.norms, "order": self.order}

    def evict(self) -> int:
        freed = self._copies.nbytes if self._copies else 0
        self._copies = None
        return freed

    @contextmanager
    def on_device(self) -> Iterator[OnDevice]:
        """The copies, which nobody evicts meanwhile."""
        copies, self._copies = self._copies or self._copy(), None
        try:
            yield copies
        finally:
            self._copies = copies

    def _copy(self) -> OnDevice:
        cuda, norms, m = self._cuda, np.asarray(self.norms), len(self.order)
        exponents = np.where(norms > 0, np.frexp(norms)[1] - 1, -CLIP)
        top = int(np.clip(exponents[:1].sum(), -CLIP, CLIP))
        exponents = np.clip(exponents, max(-CLIP, top - CLIP), top)
        units = np.ldexp(1.0, -exponents)
        places = np.empty(m, np.int32)
        places[self.order] = np.arange(m, dtype=np.int32)
        table = tables.upload(cuda, self.rows)
        halves = cuda.empty((m, halves_width(table.width)), np.uint16)
        size = m * int(halves.shape[1])
        cuda.launch(
            "nominate.round_items",
            tables.blocks_of(size),
            tables.THREADS,
            *(table.rows, table.width, cuda.upload(units.astype(np.float32)), halves, m, int(halves.shape[1])),
        )
        return OnDevice(
            table.rows,
            halves,
            cuda.upload(np.ldexp(1.0, exponents - top).astype(np.float32)),
            cuda.upload(np.nextafter((norms * 2.0**-top).astype(np.float32), np.float32(np.inf))),
            cuda.upload(np.array(self.order)),
            cuda.upload(places),
            float((norms * units).max(initial=0.0)) * SLACK,
            top,
        )


def index_items(cuda: Cuda, items: Floats) -> ItemIndex:
    norms = np.sqrt(np.einsum("ir,ir->i", items, items, dtype=np.float64))
    order = np.argsort(-norms, kind="stable").astype(np.int32)
    return ItemIndex(cuda, items[order], norms[order], order)


def index_from(cuda: Cuda, arrays: Mapping[str, NDArray[Any]]) -> ItemIndex:
    return ItemIndex(cuda, arrays["rows"], arrays["norms"], arrays["order"])


def halves_width(rank: int) -> int:
    return max(1, -(-rank // COLUMNS)) * COLUMNS


def topk(cuda: Cuda, index: ItemIndex, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
    """See `spec.Kernels.topk`."""
    n, m = len(users), len(index.order)
    nums, scores = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    nums[:, m:], scores[:, m:] = -1, -np.inf  # behind all items there are
    if not n or not m:
        return nums, scores
    with index.on_device() as copies:
        search, pieces, size = _begin(cuda, copies, users, min(k, m), excluded)
        for start, piece in zip(range(0, n, size), pieces, strict=True):
            count = min(size, n - start)
            origin = int(excluded.indptr[start]) if excluded else 0
            search.run(piece[0], count, (piece[1], origin, piece[2]) if excluded else (None, 0, None))
            search.lists.send([side[start : start + count, :m] for side in (nums, scores)])
        search.lists.finish()
    return nums, scores


def _begin(
    cuda: Cuda, items: OnDevice, users: Floats, k: int, excluded: Csr | None
) -> tuple[_Search, Iterator[list[Array]], int]:
    """Memory for blocks of users as large as fit, what comes to the device with each, and their size."""
    size = min(USERS, -(-len(users) // TILE) * TILE)
    search: _Search | None = None
    while True:
        try:
            search = _Search(cuda, items, min(size, len(users)), users.shape[1], k)
            pieces = _pieces(cuda, users, excluded, size)
            return search, chain([next(pieces)], pieces), size
        except DeviceMemoryError:
            if size == TILE:
                raise
        search = None  # before its successor takes memory
        size = max(TILE, size // 2 // TILE * TILE)


def _pieces(cuda: Cuda, users: Floats, excluded: Csr | None, size: int) -> Iterator[list[Array]]:
    """Of each block of users the rows, and where there are any the bounds and numbers of what is left out."""
    pieces: list[list[NDArray[Any]]] = []
    for start in range(0, len(users), size):
        pieces.append([users[start : start + size].reshape(-1)])
        if excluded:
            bounds = excluded.indptr[start : start + size + 1]
            pieces[-1] += [bounds, excluded.indices[bounds[0] : bounds[-1]]]
    return arriving(cuda, pieces)


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
