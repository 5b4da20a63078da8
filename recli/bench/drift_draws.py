# ruff: noqa: NPY002  (numba seeds only NumPy's old generator; it has one for each thread)
"""The loop of drift.py, compiled: moments at which a user is there, and for each an item that is popular and to the
user's taste at that moment.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recli.bench.draws import PATIENCE, mixed
from recli.compiled import nb


@nb.njit(cache=True, nogil=True)
def draw_pairs(
    first: int,
    last: int,
    indptr: NDArray[np.int64],
    begins: NDArray[np.float32],
    ends: NDArray[np.float32],
    steady: NDArray[np.bool_],
    burst: tuple[int, float],
    cumulative: NDArray[np.float64],
    guide: NDArray[np.int64],
    catalogues: NDArray[np.int32],
    move: float,
    births: NDArray[np.float32],
    lasting: NDArray[np.float32],
    decay: float,
    P: NDArray[np.float32],
    Q: NDArray[np.float32],
    user_turns: NDArray[np.float32],
    item_turns: NDArray[np.float32],
    bar: float,
    seed: int,
    indices: NDArray[np.int32],
    times: NDArray[np.float32],
) -> None:
    """Fills the rows of users first to last, ascending by time. A user's draws depend on the seed and the user alone.

    begins, ends, steady, user_turns: [users]; burst: pairs in one, and how long it is. cumulative: float64[items], of
    the popularity by rank, to 1; guide: int64[items], where it reaches 0, 1/items, 2/items, ...; catalogues: int32[2,
    items], who has that rank in the old ranking and in the new one, which decides the share `move` t of the proposals
    at time t. births, lasting, item_turns: [items]; an item has of its popularity what is lasting, and of the rest
    e^(-age/decay). P, Q: float32[users or items, 2, rank], old and new tastes; turns: radians from the one towards the
    other by t = 1.
    """
    items, rank = len(births), P.shape[2]
    owner = np.full(items, -1, np.int64)  # the last user who was given the item
    taste = np.empty(rank, np.float32)
    for user in range(first, last):
        np.random.seed(mixed(seed, user))
        start, end = indptr[user], indptr[user + 1]
        if start == end:
            continue
        _draw_times(times[start:end], begins[user], ends[user], steady[user], burst)
        left = PATIENCE * (end - start)
        for at in range(start, end):
            t = times[at]
            old, new = np.cos(user_turns[user] * t), np.sin(user_turns[user] * t)
            for k in range(rank):
                taste[k] = old * P[user, 0, k] + new * P[user, 1, k]
            found = -1
            while found < 0 and left > 0:
                left -= 1
                ranking = 1 if np.random.random() < move * t else 0
                point = np.random.random()
                place = guide[int(point * items)]  # near the end of what a binary search would go through
                while cumulative[place] < point and place < items - 1:
                    place += 1
                item = catalogues[ranking, place]
                age = t - births[item]
                if age < 0 or owner[item] == user:
                    continue
                kept = lasting[item] + (1 - lasting[item]) * np.exp(-age / decay)
                chance = np.random.random()
                if chance >= kept:
                    continue
                was, becomes = np.float32(0), np.float32(0)
                for k in range(rank):
                    was += taste[k] * Q[item, 0, k]
                    becomes += taste[k] * Q[item, 1, k]
                logit = np.cos(item_turns[item] * t) * was + np.sin(item_turns[item] * t) * becomes
                if chance < kept / (1 + np.exp(bar - logit)):
                    found = item
            place = 0
            while found < 0:  # the most popular item that is there; more are from the start than one user may have
                item = catalogues[0, place]
                place += 1
                if owner[item] != user and births[item] <= t:
                    found = item
            owner[found] = user
            indices[at] = found


@nb.njit(cache=True, nogil=True)
def _draw_times(times: NDArray[np.float32], begin: float, end: float, steady: bool, burst: tuple[int, float]) -> None:
    """One user's, ascending, the first at `begin`: all over the lifetime, or in bursts that begin all over it."""
    size, width = burst
    n = len(times)
    starts = np.random.uniform(begin, end, 1 + (n - 1) // size)
    starts[0] = begin
    for at in range(n):
        time = np.random.uniform(begin, end)
        if not steady:
            in_burst = starts[np.random.randint(len(starts))] + width * np.random.exponential()
            time = in_burst if in_burst < end else time
        times[at] = time
    times.sort()
    times[0] = begin
