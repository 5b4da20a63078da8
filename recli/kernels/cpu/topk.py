"""Exact top-K lists, block by block of users, each on one thread."""

from __future__ import annotations

import numpy as np

from recli.ids import Csr
from recli.kernels.cpu.byte_tile import ITEMS, USERS
from recli.kernels.cpu.heaps import read_heaps
from recli.kernels.cpu.item_index import ItemIndex
from recli.kernels.cpu.product import pad
from recli.kernels.cpu.search import BINS, places_out, prepare_users, rescore_all, search
from recli.kernels.cpu.workers import Workers
from recli.kernels.spec import Floats, Nums

BLOCK_USERS = 32 * USERS  # that share a tile of items in the cache
PER_K, SPARE = 8, 4 * ITEMS  # candidates that a user may have waiting
WAITING_BYTES = 8 << 20  # of a block's candidates, where k is large
SPAN_TILES = 16  # to begin with; each span is twice the last, so that those who stop early have little rounded for them


def topk(run: Workers, index: ItemIndex, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
    """See `spec.Kernels.topk`."""
    n, rows, tiles = len(users), pad(users), len(index.codes)
    indptr = excluded.indptr if excluded else np.zeros(n + 1, np.int64)
    places = np.empty(indptr[-1] if n else 0, np.int32)
    place = index.places if len(places) else places
    items, scores = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    capacity = PER_K * k + SPARE
    size = min(BLOCK_USERS, -(-n // run.threads), WAITING_BYTES // (20 * capacity))
    size = max(1, -(-size // USERS)) * USERS

    def block(start: int) -> None:
        mine = rows[start : start + size]
        count = len(mine)
        cuts = indptr[start : start + count + 1]
        if excluded:
            places_out(cuts, excluded.indices, place, places)
        user_codes, facts = np.empty(mine.shape, np.int8), np.empty((count, 8))
        marks, counts = np.empty((count, 5), np.int64), np.zeros((count, BINS), np.int32)
        waiting, ranges = np.empty((count, capacity), np.int32), np.empty((count, capacity, 2))
        heaps = np.zeros((count, k), np.uint64)
        prepare_users(mine, index.centre, index.reach, user_codes, facts, marks)
        active = np.arange(count, dtype=np.int32)
        users_state = (mine, user_codes, facts, marks, counts, waiting, ranges, cuts, places)
        first, last = 0, min(SPAN_TILES, tiles)
        while first < last and len(active):
            index.round_up_to(last)
            span = slice(first, last)
            left = search(
                first * ITEMS,
                index.codes[span],
                index.bounds[span],
                np.array(index.norms[first * ITEMS : last * ITEMS : ITEMS]),
                index.nums,
                index.rows.ctypes.data,
                *users_state,
                active,
                heaps,
            )
            active = active[:left]
            first, last = last, min(3 * last, tiles)
        rescore_all(mine, index.rows.ctypes.data, index.nums, waiting, ranges, facts, marks, heaps)
        read_heaps(heaps, items[start : start + count], scores[start : start + count])

    run(block, range(0, n, size))
    return items, scores
