"""Exact top-K (numba): bytes nominate within a proven margin, candidates wait, and few of them are rescored.

For a user x and an item y of a tile with centre c, y' = y - c, and x^ and y^ what bytes make of x and y':

    x.y = x.c + x^.y^ + (x - x^).y' + x^.(y' - y^),    so    |x.y - (x.c + x^.y^)| <= |x - x^| |y'| + |x^| |y' - y^|

(Cauchy-Schwarz). x^.y^ is a product of integers, exact. With m the margin, a candidate's score is at least its
approximation - m; a histogram of these lower bounds says above which edge there are k of them already, and whatever
cannot reach that edge is no candidate. So a rising threshold costs a few instructions a candidate, and what is left in
the end, little more than k items, is scored exactly.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from recli.kernels.cpu.byte_tile import ITEM_LEVELS, ITEMS, USER_LEVELS, USERS, byte_tile, lowest_bit
from recli.kernels.cpu.heaps import EMPTY, key_of, replace_smallest, score_of
from recli.kernels.cpu.simd import dot_exact, prefetch

BINS = 256
AHEAD = 2  # candidates whose rows are fetched while one is scored
ROUNDOFF = 2.0**-22  # of |x| |y|: a score's rounding to float32, and those of this arithmetic in float64
TINY = 2.0**-126  # a score below float32's smallest normal number loses more
NEVER = np.int32(2**31 - 1)

# Columns of a user's facts (float64) and marks (int64).
NORM, CENTRE, UNIT, LOST, KEPT, LOW, STEP, LIMIT = range(8)
OFFSET, WAITING, EDGE, ABOVE, NEXT_OUT = range(5)
LEAST, MOST = range(2)  # of a candidate's range


@nb.njit(nogil=True, error_model="numpy", cache=True)
def prepare_users(users: Any, centre: Any, reach: Any, codes: Any, facts: Any, marks: Any) -> None:
    """codes int8[n, width], facts float64[n, 8] and marks int64[n, 5] (OUT) of users float32[n, width]. reach: the
    largest norm of items less the centre.
    """
    for u in range(len(users)):
        largest, square, middle = 0.0, 0.0, 0.0
        for k in range(users.shape[1]):
            x = np.float64(users[u, k])
            largest = max(largest, abs(x))
            square += x * x
            middle += x * centre[k]
        unit = largest / USER_LEVELS
        inverse = 1 / unit if unit > 0 else 0.0
        lost, kept, total = 0.0, 0.0, 0
        for k in range(users.shape[1]):
            x = np.float64(users[u, k])
            level = np.rint(x * inverse)
            codes[u, k] = np.int8(level)
            total += np.int64(level)
            lost += (x - level * unit) ** 2
            kept += (level * unit) ** 2
        norm = np.sqrt(square)
        facts[u, NORM], facts[u, CENTRE], facts[u, UNIT] = norm, middle, unit
        facts[u, LOST], facts[u, KEPT] = np.sqrt(lost), np.sqrt(kept)
        facts[u, LOW], facts[u, STEP] = middle, norm * reach / BINS
        facts[u, LIMIT] = -np.inf
        marks[u, OFFSET] = total * (ITEM_LEVELS + 1)
        marks[u, WAITING:] = 0


@nb.njit(nogil=True, error_model="numpy", cache=True)
def places_out(indptr: Any, indices: Any, place: Any, places: Any) -> None:
    """places int32 (OUT): where the items `indices` of each row are, ascending; place int32[m]: of each item."""
    for u in range(len(indptr) - 1):
        for e in range(indptr[u], indptr[u + 1]):
            places[e] = place[indices[e]]
        places[indptr[u] : indptr[u + 1]].sort()


@nb.njit(nogil=True, error_model="numpy", cache=True)
def rescore(
    u: Any, users: Any, rows_at: Any, order: Any, waiting: Any, ranges: Any, facts: Any, marks: Any, heaps: Any
) -> None:
    """The candidates of user u that may still count, into the heap; none waits then."""
    heap, width, limit, waits = heaps[u], users.shape[1], facts[u, LIMIT], marks[u, WAITING]
    rows, mine = waiting[u], ranges[u]
    sure = 0  # those that are among the best so far come first: the others then meet a higher limit
    for w in range(waits):
        if mine[w, LEAST] >= limit:
            rows[w], rows[sure] = rows[sure], rows[w]
            for end in (LEAST, MOST):
                mine[w, end], mine[sure, end] = mine[sure, end], mine[w, end]
            sure += 1
    user_at, stride = np.uint64(users[u].ctypes.data), np.uint64(4 * width)
    for w in range(waits):
        if mine[w, MOST] < limit:
            continue
        if w + AHEAD < waits:
            prefetch(rows_at + np.uint64(rows[w + AHEAD]) * stride, stride)
        key = key_of(np.float32(dot_exact(user_at, rows_at + np.uint64(rows[w]) * stride, width)), order[rows[w]])
        if key > heap[0]:
            replace_smallest(heap, key)
            if heap[0] != EMPTY:
                limit = max(limit, np.float64(score_of(heap[0])))
    facts[u, LIMIT] = limit
    marks[u, WAITING] = 0


@nb.njit(nogil=True, error_model="numpy", cache=True)
def rescore_all(
    users: Any, rows_at: Any, order: Any, waiting: Any, ranges: Any, facts: Any, marks: Any, heaps: Any
) -> None:
    for u in range(len(users)):
        rescore(u, users, rows_at, order, waiting, ranges, facts, marks, heaps)


@nb.njit(nogil=True, error_model="numpy", cache=True)
def search(
    first: Any,
    codes: Any,
    bounds: Any,
    norms: Any,
    order: Any,
    rows_at: Any,
    users: Any,
    user_codes: Any,
    facts: Any,
    marks: Any,
    counts: Any,
    waiting: Any,
    ranges: Any,
    indptr: Any,
    places: Any,
    active: Any,
    heaps: Any,
) -> Any:
    """Searches the tiles `codes` uint8[t, groups, ITEMS, 4], the first of which begins with row `first`, for the users
    `active` int32 (IN/OUT); returns how many of them need to look further.

    bounds float64[t, 3]: see ItemIndex. norms float64[t]: the largest of each tile, falling. order int32[m]: item
    numbers of all rows. rows_at: the address of all items' float32[m, width]. users float32[n, width], user_codes,
    facts, marks: see prepare_users (IN/OUT). counts int32[n, BINS] (IN/OUT). waiting int32[n, c], ranges
    float64[n, c, 2]: rows that are candidates, and between what their scores are (IN/OUT). indptr int64[n + 1], places
    int32: rows left out, ascending. heaps uint64[n, k], by `key_of` (IN/OUT).
    """
    k, capacity, width = heaps.shape[1], waiting.shape[1], users.shape[1]
    groups = codes.shape[1]
    addresses, least = np.empty(USERS, np.uint64), np.empty(USERS, np.int32)
    sums, hits = np.empty((USERS, ITEMS), np.int32), np.empty(USERS, np.uint64)
    margins = np.empty(USERS)
    addresses_at, least_at = np.uint64(addresses.ctypes.data), np.uint64(least.ctypes.data)
    sums_at, hits_at = np.uint64(sums.ctypes.data), np.uint64(hits.ctypes.data)
    tiles_at, tile_bytes = np.uint64(codes.ctypes.data), np.uint64(groups * ITEMS * 4)
    users_at = np.uint64(user_codes.ctypes.data)
    left = len(active)
    for tile in range(len(codes)):
        scale, longest, worst = bounds[tile, 0], bounds[tile, 1], bounds[tile, 2]
        begin = first + tile * ITEMS
        kept = 0
        for a in range(left):
            u = active[a]
            if facts[u, NORM] * norms[tile] * (1 + 1e-6) + TINY >= facts[u, LIMIT]:
                active[kept] = u
                kept += 1
        left = kept
        if left == 0:
            break
        for a in range(0, left, USERS):
            here = min(USERS, left - a)
            for i in range(USERS):
                u = active[a + min(i, here - 1)]
                addresses[i] = users_at + np.uint64(u) * np.uint64(width)
                margin = facts[u, LOST] * longest + facts[u, KEPT] * worst
                margin += ROUNDOFF * facts[u, NORM] * (longest + norms[tile]) + TINY
                margins[i] = margin
                least[i] = NEVER
                if i < here:
                    least[i] = least_sum(
                        facts[u, LIMIT] - margin - facts[u, CENTRE], facts[u, UNIT] * scale, marks[u, OFFSET]
                    )
            if not byte_tile(addresses_at, tiles_at + np.uint64(tile) * tile_bytes, groups, least_at, sums_at, hits_at):
                continue
            for i in range(here):
                if hits[i] == 0:
                    continue
                u = active[a + i]
                nominate(
                    hits[i],
                    sums[i],
                    begin,
                    min(ITEMS, len(order) - begin),
                    facts[u, UNIT] * scale,
                    margins[i],
                    k,
                    facts[u],
                    marks[u],
                    counts[u],
                    waiting[u],
                    ranges[u],
                    places[indptr[u] : indptr[u + 1]],
                )
                if marks[u, WAITING] > capacity - ITEMS:
                    drop(waiting[u], ranges[u], facts[u], marks[u])
                    if marks[u, WAITING] > capacity // 2:
                        rescore(u, users, rows_at, order, waiting, ranges, facts, marks, heaps)
    return left


@nb.njit(nogil=True, error_model="numpy", cache=True, inline="always")
def least_sum(score: Any, unit: Any, offset: Any) -> Any:
    """The smallest sum of products, in units, that may reach a score."""
    if unit > 0:
        return np.int32(min(max(np.floor(score / unit) + offset, -(2.0**31)), 2.0**31 - 1))
    return NEVER if score > 0 else np.int32(-(2**31))


@nb.njit(nogil=True, error_model="numpy", cache=True)
def nominate(
    bits: Any,
    sums: Any,
    begin: Any,
    count: Any,
    unit: Any,
    margin: Any,
    k: Any,
    facts: Any,
    marks: Any,
    counts: Any,
    waiting: Any,
    ranges: Any,
    out: Any,
) -> None:
    """The candidates among rows begin, ..., begin + count - 1, of one user, whose limit rises by the way to the highest
    edge with k lower bounds above it.
    """
    limit, low, step = facts[LIMIT], facts[LOW], facts[STEP]
    cells = 1 / step if step > 0 else 0.0
    base = facts[CENTRE] - unit * marks[OFFSET]
    waits, edge, above, next_out = marks[WAITING], marks[EDGE], marks[ABOVE], marks[NEXT_OUT]
    while bits:
        j = lowest_bit(bits)
        bits &= bits - np.uint64(1)
        if j >= count:
            break
        at = begin + j
        while next_out < len(out) and out[next_out] < at:
            next_out += 1
        if next_out < len(out) and out[next_out] == at:
            continue
        middle = base + unit * sums[j]
        if middle + margin < limit:
            continue
        waiting[waits], ranges[waits, LEAST], ranges[waits, MOST] = at, middle - margin, middle + margin
        waits += 1
        cell = np.int64(min(max((middle - margin - low) * cells, 0.0), BINS - 1.0))
        counts[cell] += 1
        if cell >= edge:
            above += 1
            if above - counts[edge] >= k:
                while above - counts[edge] >= k:
                    above -= counts[edge]
                    edge += 1
                # a hundredth of a cell below the edge, for the roundings of `cell`
                limit = max(limit, low + (edge - 0.01) * step)
    facts[LIMIT], marks[WAITING], marks[EDGE], marks[ABOVE], marks[NEXT_OUT] = limit, waits, edge, above, next_out


@nb.njit(nogil=True, error_model="numpy", cache=True)
def drop(waiting: Any, ranges: Any, facts: Any, marks: Any) -> None:
    """Lets candidates go that no longer count."""
    kept = 0
    for w in range(marks[WAITING]):
        if ranges[w, MOST] >= facts[LIMIT]:
            waiting[kept], ranges[kept] = waiting[w], ranges[w]
            kept += 1
    marks[WAITING] = kept
