"""Interactions that look like real ones, of any size, from a seed: few users and items have most of the pairs, and who
has what follows planted tastes of low rank.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.errors import UsageError
from recli.ids import Csr

RANK = 8  # of the tastes
TASTE, BAR = 3.0, 2.0  # an item is to a user's taste with the logit TASTE z - BAR, z normal: one in four is
ACTIVITY, POPULARITY = 0.8, 0.9  # exponents: the r-th largest has (r + offset)^-exponent
OFFSET = 0.01  # of all users or items; flattens the head, which real catalogues do not have to themselves either
FULLEST = 0.25  # of the catalogue that one user may have
BATCH = 1 << 18  # pairs that a thread makes at a time
UNITS = {"": 1, "k": 1000, "m": 1_000_000}


class Size(NamedTuple):
    users: int
    items: int
    pairs: int

    def __str__(self) -> str:
        return "x".join(map(count_text, self))


def parse_count(text: str) -> int | None:
    """7M, 100k or 5000; None for anything else."""
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([kKmM]?)\s*", text)
    return round(float(match[1]) * UNITS[match[2].lower()]) if match else None


def count_text(count: int) -> str:
    for unit in ("m", "k"):
        if count and count % (UNITS[unit] // 10) == 0 and count >= UNITS[unit]:
            return f"{count / UNITS[unit]:g}{'M' if unit == 'm' else unit}"
    return str(count)


def parse_size(text: str) -> Size:
    """Of --synthetic USERSxITEMSxPAIRS. Raises UsageError."""
    counts = [parse_count(part) for part in text.lower().split("x")]
    if len(counts) != 3 or not all(counts):
        raise UsageError(f"--synthetic {text}: expected USERSxITEMSxPAIRS, as 100kx10kx7M")
    size = Size(*(count or 0 for count in counts))
    if max(size.users, size.items) >= 2**31 - 1:
        raise UsageError(f"--synthetic {text}: expected fewer than 2^31 users and items")
    return check_density(size, f"--synthetic {text}")


def check_density(size: Size, flag: str) -> Size:
    most = int(size.users * size.items * FULLEST / 2)
    if size.items < 8 or size.pairs > most:
        raise UsageError(
            f"{flag}: expected at most an eighth of all pairs, {count_text(most)}, of 8 items or more, found {size}"
        )
    return size


def synthetic(size: Size, seed: int, threads: int = 1) -> Csr:
    """Exactly size.pairs distinct pairs; values are ratings from 1 to 5, higher where the taste is. Each user's are
    drawn on their own, so the number of threads changes nothing, and memory hardly grows beyond the result.
    """
    from recli.bench.draws import draw_items  # imports numba

    users, items, pairs = size
    rng = np.random.default_rng(seed)
    lengths = activity(users, items, pairs)[rng.permutation(users)]
    indptr = np.zeros(users + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    popularity = np.cumsum(falling(items, POPULARITY))
    catalogue = rng.permutation(items).astype(np.int32)
    P, Q = rng.standard_normal((users, RANK), np.float32), rng.standard_normal((items, RANK), np.float32)
    Q *= np.float32(TASTE / np.sqrt(RANK))
    indices, values = np.empty(pairs, np.int32), np.empty(pairs, np.float32)

    def draw(first: int, last: int) -> None:
        draw_items(first, last, indptr, popularity / popularity[-1], catalogue, P, Q, BAR, seed, indices, values)

    over_users(indptr, draw, threads)
    return Csr(indptr, indices, values)


def over_users(indptr: NDArray[np.int64], draw: Callable[[int, int], None], threads: int) -> None:
    """Calls draw(first, last) for users with about BATCH pairs in all, on so many threads. indptr: int64[users + 1]."""
    users, pairs = len(indptr) - 1, int(indptr[-1])
    cuts = np.searchsorted(indptr, np.arange(BATCH, pairs, BATCH))
    bounds = np.unique(np.concatenate([[0], cuts, [users]]))
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(draw, *part) for part in itertools.pairwise(bounds.tolist())]:
            done.result()


def falling(count: int, exponent: float) -> NDArray[np.float64]:
    falling: NDArray[np.float64] = np.power(np.arange(count, dtype=np.float64) + 1 + OFFSET * count, -exponent)
    return falling


def activity(users: int, items: int, pairs: int) -> NDArray[np.int64]:
    """How many pairs each user has, most first: a power law, cut where a user would have too much of the catalogue."""
    most, shares = max(1, int(FULLEST * items)), falling(users, ACTIVITY)
    low, high = 0.0, 2 * pairs / shares.min()
    for _ in range(100):
        scale = (low + high) / 2
        low, high = (scale, high) if np.minimum(scale * shares, most).sum() < pairs else (low, scale)
    exact = np.minimum(high * shares, most)
    lengths: NDArray[np.int64] = exact.astype(np.int64)
    lacking = pairs - int(lengths.sum())  # what rounding down took: back to those who lost most, and have room
    order = np.argsort(np.where(lengths < most, lengths - exact, np.inf), kind="stable")
    lengths[order[:lacking]] += 1
    return lengths
