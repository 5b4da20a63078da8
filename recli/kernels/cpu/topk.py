"""Exact top-K lists, block by block of users, each on one thread."""

from __future__ import annotations

import numpy as np

from recli.ids import Csr
from recli.kernels.cpu.byte_tile import ITEMS, USERS
from recli.kernels.cpu.item_index import ItemIndex
from recli.kernels.cpu.keys import read_keys
from recli.kernels.cpu.product import pad
from recli.kernels.cpu.rotation import rotate
from recli.kernels.cpu.search import begin, finish, new_block, search
from recli.kernels.cpu.workers import Workers
from recli.kernels.spec import Floats, Nums

BLOCK_USERS = 32 * USERS  # that share a tile of items in the cache
PER_K, SPARE = 8, 4 * ITEMS  # candidates that a user may have waiting
WAITING_BYTES = 8 << 20  # of a block's candidates, where k is large
# To begin with; each span is twice what came before, so that for users who stop early few items are rounded.
SPAN_TILES = 16


def topk(run: Workers, index: ItemIndex, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
    """See `spec.Kernels.topk`. BLAS is held to one thread by the caller."""
    n, rows, tiles = len(users), pad(users), len(index.codes)
    items, scores = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    left_out = excluded or Csr(np.zeros(n + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    places = np.empty(len(left_out.indices), np.int32)
    place = index.places if len(places) else places
    capacity = PER_K * k + SPARE
    size = min(BLOCK_USERS, -(-n // run.threads), WAITING_BYTES // (12 * capacity))
    size = max(1, -(-size // USERS)) * USERS

    def block(start: int) -> None:
        span = slice(start, start + size)
        mine = new_block(rows[span], k, capacity, left_out.indptr[start : start + size + 1], places)
        rotated = rotate(mine.rows.astype(np.float64))
        begin(mine, rotated, index.centre, index.reach, left_out.indices, place)
        active = np.arange(len(mine.rows), dtype=np.int32)
        first, last = 0, min(SPAN_TILES, tiles)
        while first < last and len(active):
            active = active[: search(index.tiles(first, last), mine, active)]
            first, last = last, min(3 * last, tiles)
        finish(mine, index.nums, index.rows.ctypes.data)
        read_keys(mine.best, items[span], scores[span])

    run(block, range(0, n, size))
    return items, scores
