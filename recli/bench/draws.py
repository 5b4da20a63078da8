# ruff: noqa: NPY002  (numba seeds only NumPy's old generator; it has one for each thread)
"""The loop of synthetic.py, compiled: items proposed by popularity, taken if they are to the user's taste."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recli.compiled import nb

PATIENCE = 400  # proposals for each item that a user is to have; then the most popular of the others are taken
SPREAD, NOISE = 0.8, 0.6  # of ratings: how much is taste, how much is chance


@nb.njit(cache=True, nogil=True)
def draw_items(
    first: int,
    last: int,
    indptr: NDArray[np.int64],
    cumulative: NDArray[np.float64],
    catalogue: NDArray[np.int32],
    P: NDArray[np.float32],
    Q: NDArray[np.float32],
    bar: float,
    seed: int,
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    """Fills the rows of users first to last, ascending. cumulative: of the items' popularity, most popular first;
    catalogue: their numbers. A user's draws depend on the seed and the user alone.
    """
    items, rank = len(catalogue), P.shape[1]
    owner = np.full(items, -1, np.int64)  # the last user who was given the item
    for user in range(first, last):
        np.random.seed(mixed(seed, user))
        start, end = indptr[user], indptr[user + 1]
        at, left = start, PATIENCE * (end - start)
        while at < end and left > 0:
            left -= 1
            place = min(int(np.searchsorted(cumulative, np.random.random())), items - 1)
            item = catalogue[place]
            if owner[item] == user:
                continue
            taste = np.float32(0)
            for k in range(rank):
                taste += P[user, k] * Q[item, k]
            if np.random.random() < 1 / (1 + np.exp(bar - taste)):
                owner[item] = user
                indices[at] = item
                at += 1
        place = 0
        while at < end:
            item = catalogue[place]
            place += 1
            if owner[item] != user:
                owner[item] = user
                indices[at] = item
                at += 1
        indices[start:end].sort()
        for at in range(start, end):
            taste = np.float32(0)
            for k in range(rank):
                taste += P[user, k] * Q[indices[at], k]
            rating = np.rint(2.5 + SPREAD * taste / bar + NOISE * np.random.normal())
            values[at] = min(max(rating, 1), 5)


@nb.njit(cache=True)
def mixed(seed: int, user: int) -> int:
    """32 bits of both (SplitMix64: Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number Generators")."""
    z = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(user + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int((z ^ (z >> np.uint64(31))) & np.uint64(0xFFFFFFFF))
