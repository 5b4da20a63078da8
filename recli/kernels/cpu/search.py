"""Exact top-K (numba): bytes nominate within a proven margin, candidates wait, and few of them are rescored.

With c the items' middle, y' = y - c rotated, and x^ and y^ what bytes make of a user x, rotated, and of y':

    x.y = x.c + x^.y^ + (x - x^).y' + x^.(y' - y^),    so    |x.y - (x.c + x^.y^)| <= |x - x^| |y'| + |x^| |y' - y^|

(Cauchy-Schwarz). x^.y^ is a product of integers, and exact. With m the margin, a score is at least x.c + x^.y^ - m; a
histogram of these lower bounds says above which edge there are k of them already, and an item that cannot reach that
limit is no candidate. So the limit rises at the cost of a few instructions a candidate, and of those that are left in
the end, little more than k, the scores are computed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.compiled import nb
from recli.kernels.cpu.byte_tile import ITEM_LEVELS, ITEMS, USER_LEVELS, USERS, byte_tile, lowest_bit
from recli.kernels.cpu.keys import EMPTY, key_of, score_of
from recli.kernels.cpu.simd import dot_exact, prefetch
from recli.kernels.spec import Floats, Nums

BINS = 512
AHEAD = 4  # candidates whose rows are fetched while one is scored
# Of |x| |y|: the roundings of a rotation in float32 (at most 129 2^-24 sqrt(128); Higham 2002, "Accuracy and Stability
# of Numerical Algorithms", section 3.1), of scores to float32, and of the arithmetic here, in float64.
ROUNDOFF = 2.0**-13
TINY = 2.0**-126  # below float32's smallest normal number, roundings are not relative
NEVER = np.int32(2**31 - 1)
HUGE = 1e300  # in place of 1 / 0: any score above zero is out of reach then


class Tiles(NamedTuple):
    """A span of an ItemIndex.

    first: its first row. codes uint8[t, groups, ITEMS, 4], bounds float64[t, 3]: as there. norms float64[t]: of the
    first row of each tile, falling. nums int32[m]: the items of all rows. rows_at: the address of all rows, float32[m,
    width].
    """

    first: int
    codes: NDArray[np.uint8]
    bounds: NDArray[np.float64]
    norms: NDArray[np.float64]
    nums: Nums
    rows_at: int


class Block(NamedTuple):
    """The users of a search, and how far each has come.

    rows float32[n, width]; codes int8[n, width]. facts float64[n, 8], marks int64[n, 5]: columns below. counts int32[n,
    BINS]: of lower bounds in steps above the score x.c. waiting int32[n, capacity], most float64[n, capacity]: rows
    that are candidates, and what their scores are at most. cuts int64[n + 1], places int32: rows left out, ascending.
    best uint64[n, k]: see keys.py, ascending. keys uint64[k + capacity]: scratch.
    """

    rows: Floats
    codes: NDArray[np.int8]
    facts: NDArray[np.float64]
    marks: NDArray[np.int64]
    counts: Nums
    waiting: Nums
    most: NDArray[np.float64]
    cuts: NDArray[np.int64]
    places: Nums
    best: NDArray[np.uint64]
    keys: NDArray[np.uint64]


# facts: |x|, x.c, the scale of x^ and its inverse, |x - x^|, |x^|, the width of a bin, and the limit of the search.
NORM, CENTRE, UNIT, PER_UNIT, LOST, KEPT, STEP, LIMIT = range(8)
# marks: the sum of products that stands for zero, candidates that wait, the bin of the limit, how many lower bounds are
# in it or above, and the first row left out that is still ahead.
OFFSET, WAITING, EDGE, ABOVE, NEXT_OUT = range(5)


def new_block(rows: Floats, k: int, capacity: int, cuts: NDArray[np.int64], places: Nums) -> Block:
    n, width = rows.shape
    return Block(
        rows=rows,
        codes=np.empty((n, width), np.int8),
        facts=np.empty((n, 8)),
        marks=np.empty((n, 5), np.int64),
        counts=np.zeros((n, BINS), np.int32),
        waiting=np.empty((n, capacity), np.int32),
        most=np.empty((n, capacity)),
        cuts=cuts,
        places=places,
        best=np.zeros((n, k), np.uint64),
        keys=np.empty(k + capacity, np.uint64),
    )


@nb.njit(nogil=True, error_model="numpy", cache=True)
def begin(users: Any, rotated: Any, centre: Any, reach: Any, indices: Any, place: Any) -> None:
    """Fills the users' codes, facts, marks and places. rotated float64[n, width]: their rows; centre, reach: see
    ItemIndex; indices int32: the items left out; place int32[m]: the row of each item.
    """
    facts, marks = users.facts, users.marks
    for u in range(len(rotated)):
        largest, square, middle = 0.0, 0.0, 0.0
        for k in range(rotated.shape[1]):
            x = rotated[u, k]
            largest = max(largest, abs(x))
            square += x * x
            middle += x * centre[k]
        unit = largest / USER_LEVELS
        per_unit = 1 / unit if unit > 0 else HUGE
        lost, kept, total = 0.0, 0.0, np.int64(0)
        for k in range(rotated.shape[1]):
            level = np.rint(rotated[u, k] * per_unit)
            users.codes[u, k] = np.int8(level)
            total += np.int64(level)
            lost += (rotated[u, k] - level * unit) ** 2
            kept += (level * unit) ** 2
        facts[u, NORM], facts[u, CENTRE] = np.sqrt(square), middle
        facts[u, UNIT], facts[u, PER_UNIT] = unit, per_unit
        facts[u, LOST], facts[u, KEPT] = np.sqrt(lost), np.sqrt(kept)
        facts[u, STEP], facts[u, LIMIT] = np.sqrt(square) * reach / BINS, -np.inf
        marks[u, OFFSET] = total * (ITEM_LEVELS + 1)
        marks[u, WAITING], marks[u, EDGE], marks[u, ABOVE] = 0, 0, 0
        start, end = users.cuts[u], users.cuts[u + 1]
        marks[u, NEXT_OUT] = start
        for e in range(start, end):
            users.places[e] = place[indices[e]]
        users.places[start:end].sort()


@nb.njit(nogil=True, error_model="numpy", cache=True)
def search(tiles: Any, users: Any, active: Any) -> Any:
    """Searches a span for the users `active` int32 (IN/OUT): returns how many of them, at its start, must go on."""
    facts, marks = users.facts, users.marks
    capacity, width = users.waiting.shape[1], users.rows.shape[1]
    room = len(active) + USERS
    addresses, least, margins = np.empty(room, np.uint64), np.empty(room, np.int32), np.empty(room)
    sums, hits = np.empty((USERS, ITEMS), np.int32), np.empty(USERS, np.uint64)
    addresses_at, least_at = np.uint64(addresses.ctypes.data), np.uint64(least.ctypes.data)
    sums_at, hits_at = np.uint64(sums.ctypes.data), np.uint64(hits.ctypes.data)
    tiles_at, users_at = np.uint64(tiles.codes.ctypes.data), np.uint64(users.codes.ctypes.data)
    groups = tiles.codes.shape[1]
    tile_bytes = np.uint64(groups * ITEMS * 4)
    left = len(active)
    for tile in range(len(tiles.codes)):
        scale, longest, worst = tiles.bounds[tile, 0], tiles.bounds[tile, 1], tiles.bounds[tile, 2]
        per_scale = 1 / scale if scale > 0 else HUGE
        longest_row = tiles.norms[tile]
        kept = 0
        for a in range(left):
            u = active[a]
            norm, limit = facts[u, NORM], facts[u, LIMIT]
            margin = facts[u, LOST] * longest + facts[u, KEPT] * worst
            margin += ROUNDOFF * norm * (longest + longest_row) + TINY * (1 + norm)
            # the smallest sum that may reach the limit: NEVER where none does
            sum_ = np.floor((limit - margin - facts[u, CENTRE]) * facts[u, PER_UNIT] * per_scale) + marks[u, OFFSET]
            active[kept] = u
            addresses[kept] = users_at + np.uint64(u) * np.uint64(width)
            least[kept] = np.int32(min(max(sum_, -(2.0**31)), 2.0**31 - 1))
            margins[kept] = margin
            kept += norm * longest_row * (1 + 1e-6) + TINY >= limit  # else no row from here on can
        left = kept
        if left == 0:
            break
        for a in range(left, left + USERS):
            addresses[a], least[a] = addresses[0], NEVER
        next_at = tiles_at + np.uint64(min(tile + 1, len(tiles.codes) - 1)) * tile_bytes
        piece = tile_bytes // np.uint64((left + USERS - 1) // USERS) + np.uint64(64)
        for a in range(0, left, USERS):
            prefetch(next_at + np.uint64(a // USERS) * piece, piece)
            rows, enough = addresses_at + np.uint64(8 * a), least_at + np.uint64(4 * a)
            if not byte_tile(rows, tiles_at + np.uint64(tile) * tile_bytes, groups, enough, sums_at, hits_at):
                continue
            for i in range(min(USERS, left - a)):
                if hits[i]:
                    u = active[a + i]
                    nominate(users, u, tiles, tile, hits[i], sums[i], margins[a + i])
                    if marks[u, WAITING] > capacity - ITEMS:
                        drop(users, u)
                        if marks[u, WAITING] > capacity // 2:
                            rescore(users, u, tiles.nums, tiles.rows_at)
    return left


@nb.njit(nogil=True, error_model="numpy", cache=True)
def nominate(users: Any, u: Any, tiles: Any, tile: Any, hits: Any, sums: Any, margin: Any) -> None:
    """Counts and keeps the candidates of user u among the rows of a tile, those of the bits `hits`."""
    facts, marks = users.facts, users.marks
    first = tiles.first + tile * ITEMS
    if len(tiles.nums) - first < ITEMS:
        hits &= (np.uint64(1) << np.uint64(len(tiles.nums) - first)) - np.uint64(1)
    out, end = marks[u, NEXT_OUT], users.cuts[u + 1]
    while out < end and users.places[out] < first + ITEMS:
        if users.places[out] >= first:
            hits &= ~(np.uint64(1) << np.uint64(users.places[out] - first))
        out += 1
    marks[u, NEXT_OUT] = out
    k, edge, above = users.best.shape[1], marks[u, EDGE], marks[u, ABOVE]
    unit, step = facts[u, UNIT] * tiles.bounds[tile, 0], facts[u, STEP]
    per_step = 1 / step if step > 0 else 0.0
    zero = marks[u, OFFSET]
    bits = hits
    while bits:
        bound = unit * (sums[lowest_bit(bits)] - zero) - margin
        cell = np.int64(min(max(bound * per_step, 0.0), BINS - 1.0))
        users.counts[u, cell] += 1
        above += cell >= edge
        bits &= bits - np.uint64(1)
    if above - users.counts[u, edge] >= k:
        while above - users.counts[u, edge] >= k:
            above -= users.counts[u, edge]
            edge += 1
        # a hundredth of a bin below the edge, for the roundings of `cell`
        facts[u, LIMIT] = max(facts[u, LIMIT], facts[u, CENTRE] + (edge - 0.01) * step)
    marks[u, EDGE], marks[u, ABOVE] = edge, above
    waits, limit = marks[u, WAITING], facts[u, LIMIT]
    bits = hits
    while bits:
        j = lowest_bit(bits)
        most = facts[u, CENTRE] + unit * (sums[j] - zero) + margin
        if most >= limit:
            users.waiting[u, waits], users.most[u, waits] = first + j, most
            waits += 1
        bits &= bits - np.uint64(1)
    marks[u, WAITING] = waits


@nb.njit(nogil=True, error_model="numpy", cache=True)
def drop(users: Any, u: Any) -> None:
    """Lets candidates of user u go that no longer count."""
    kept, limit = 0, users.facts[u, LIMIT]
    for w in range(users.marks[u, WAITING]):
        most = users.most[u, w]
        users.waiting[u, kept], users.most[u, kept] = users.waiting[u, w], most
        kept += most >= limit  # no branch: it would be a coin's toss
    users.marks[u, WAITING] = kept


@nb.njit(nogil=True, error_model="numpy", cache=True)
def rescore(users: Any, u: Any, nums: Any, rows_at: Any) -> None:
    """Takes the candidates of user u that still count among the best k; none waits then."""
    drop(users, u)
    best, keys, waiting = users.best, users.keys, users.waiting
    k, width, waits = best.shape[1], users.rows.shape[1], users.marks[u, WAITING]
    user_at, stride = np.uint64(users.rows[u].ctypes.data), np.uint64(4 * width)
    rows_at = np.uint64(rows_at)
    for w in range(waits):
        prefetch(rows_at + np.uint64(waiting[u, min(w + AHEAD, waits - 1)]) * stride, stride)
        row = waiting[u, w]
        keys[w] = key_of(np.float32(dot_exact(user_at, rows_at + np.uint64(row) * stride, width)), nums[row])
    count = waits
    for j in range(k):
        if best[u, j] != EMPTY:
            keys[count] = best[u, j]
            count += 1
    keys[:count].sort()
    for j in range(min(k, count)):
        best[u, k - 1 - j] = keys[count - 1 - j]
    if count >= k:
        users.facts[u, LIMIT] = max(users.facts[u, LIMIT], np.float64(score_of(best[u, 0])))
    users.marks[u, WAITING] = 0


@nb.njit(nogil=True, error_model="numpy", cache=True)
def finish(users: Any, nums: Any, rows_at: Any) -> None:
    """Rescores what still waits."""
    for u in range(len(users.rows)):
        rescore(users, u, nums, rows_at)
