"""Interactions that look like real ones, of any size, from a seed: few users and items have most of the pairs, and who
has what follows planted tastes of low rank.
"""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.errors import UsageError
from recli.ids import Csr

RANK = 16  # of the tastes
TASTE = 1.5  # standard deviation of a taste's logit
ACTIVITY, POPULARITY = 0.8, 0.9  # exponents: the r-th largest has (r + offset)^-exponent
OFFSET = 0.01  # of all users or items; flattens the head, which real catalogues do not have to themselves either
FULLEST = 0.25  # of the catalogue that one user may have
CHUNK = 1 << 20  # pairs made at a time: what they are depends on it, so it is no setting
ROUNDS = 40
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


def synthetic(size: Size, seed: int) -> Csr:
    """Exactly size.pairs distinct pairs; values are ratings from 1 to 5, higher where the taste is. The memory beside
    the result does not grow with the pairs.
    """
    users, items, pairs = size
    rng = np.random.default_rng([seed, 0])
    lengths = _activity(users, items, pairs)[rng.permutation(users)]
    indptr = np.zeros(users + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    popularity = np.cumsum(_falling(items, POPULARITY))
    catalogue = _Catalogue(
        popularity / popularity[-1],
        rng.permutation(items),
        rng.standard_normal((users, RANK), np.float32),
        rng.standard_normal((items, RANK), np.float32) * np.float32(TASTE / np.sqrt(RANK)),
    )
    indices, values = np.empty(pairs, np.int32), np.empty(pairs, np.float32)
    cuts = np.searchsorted(indptr, np.arange(CHUNK, pairs, CHUNK))
    bounds = np.unique(np.concatenate([[0], cuts, [users]]))
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        at = slice(indptr[start], indptr[end])
        rng = np.random.default_rng([seed, 1, number])
        indices[at], values[at] = catalogue.draw(np.arange(start, end), lengths[start:end], rng)
    return Csr(indptr, indices, values)


def _falling(count: int, exponent: float) -> NDArray[np.float64]:
    falling: NDArray[np.float64] = np.power(np.arange(count, dtype=np.float64) + 1 + OFFSET * count, -exponent)
    return falling


def _activity(users: int, items: int, pairs: int) -> NDArray[np.int64]:
    """How many pairs each user has, most first: a power law, cut where a user would have too much of the catalogue."""
    most, shares = max(1, int(FULLEST * items)), _falling(users, ACTIVITY)
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


class _Catalogue:
    """cumulative: of the items' popularity, most popular first; items: their numbers; P, Q: tastes."""

    def __init__(
        self,
        cumulative: NDArray[np.float64],
        items: NDArray[np.int64],
        P: NDArray[np.float32],
        Q: NDArray[np.float32],
    ) -> None:
        self._cumulative, self._items, self._P, self._Q = cumulative, items, P, Q

    def draw(
        self, users: NDArray[np.int64], lengths: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Items and ratings of these users: popular ones are proposed, and taken if they are to the user's taste."""
        count = len(self._items)
        kept = np.zeros(0, np.int64)  # local user * count + item, in the order of their draws
        for attempt in range(ROUNDS + 1):
            lacking = lengths - np.bincount(kept // count, minlength=len(users))
            if not lacking.any():
                break
            if attempt == ROUNDS:
                kept = np.concatenate([kept, self._fill(kept, lacking)])
                break
            local = np.repeat(np.arange(len(users)), np.where(lacking > 0, 2 * lacking + 4, 0))
            items = self._items[np.searchsorted(self._cumulative, rng.random(len(local)))]
            taken = rng.random(len(local)) < 1 / (1 + np.exp(-self._tastes(users[local], items)))
            keys = np.concatenate([kept, local[taken] * count + items[taken]])
            kept = keys[np.sort(np.unique(keys, return_index=True)[1])]
            kept = _at_most(kept, kept // count, lengths)
        kept.sort()
        items = kept % count
        tastes = self._tastes(users[kept // count], items)
        ratings = np.rint(3.5 + 0.8 * tastes / TASTE + 0.6 * rng.standard_normal(len(items), np.float32))
        return items.astype(np.int32), np.clip(ratings, 1, 5).astype(np.float32)

    def _tastes(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        tastes: NDArray[np.float32] = np.einsum("nr,nr->n", self._P[users], self._Q[items])
        return tastes

    def _fill(self, kept: NDArray[np.int64], lacking: NDArray[np.int64]) -> NDArray[np.int64]:
        """For users who have so much that proposals are in vain: the most popular items that they do not have."""
        count, parts = len(self._items), []
        for user in np.flatnonzero(lacking > 0):
            theirs = kept[kept // count == user] % count
            others = self._items[~np.isin(self._items, theirs)]
            parts.append(user * count + others[: lacking[user]])
        return np.concatenate(parts)


def _at_most(keys: NDArray[np.int64], users: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first lengths[u] keys of each user u."""
    order = np.argsort(users, kind="stable")
    sizes = np.bincount(users, minlength=len(lengths))
    place = np.empty(len(keys), np.int64)
    place[order] = np.arange(len(keys)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return keys[place < lengths[users]]
