"""Pairs in batches: an order for each epoch, negatives, and the rows that a batch touches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.compiled import nb
from recli.ids import Csr, row_numbers
from recli.kernels.spec import Floats, Nums
from recli.sorting import group


class PairBatch(NamedTuple):
    """n pairs with m negatives each: items int32[n, 1 + m], the pair's own first; kept: bool[n, 1 + m], False for a
    negative that the user has. users: int32[n]; targets: float32[n].
    """

    users: Nums
    items: Nums
    targets: Floats
    kept: NDArray[np.bool_]


class Batches:
    """Every pair once an epoch, in batches of about `size` that depend on the seed and the epoch alone."""

    def __init__(self, matrix: Csr, had: Csr, items: int, size: int, negatives: int, popular: bool, seed: int) -> None:
        """had: [users, items] that are no negatives. popular: negatives are drawn as often as pairs have them, else all
        items alike.
        """
        self._users = row_numbers(matrix.indptr).astype(np.int32)
        self._matrix, self._had, self._items, self._size = matrix, had, items, size
        self._negatives, self._popular, self._seed = negatives, popular, seed
        counts = np.bincount(matrix.indices, minlength=items) if popular else np.ones(items)
        self.log_odds = np.log(np.maximum(counts, 1) / counts.sum())

    def __len__(self) -> int:
        return -(-len(self._users) // self._size)

    def epoch(self, number: int) -> Iterator[PairBatch]:
        rng = np.random.default_rng([self._seed, number])
        count = len(self._users)
        bounds, order = np.zeros(len(self) + 1, np.int64), np.empty(count, np.int32 if count < 2**31 else np.int64)
        # A batch has no order: its pairs stay by user, which keeps rows that follow each other in the cache.
        group(rng.integers(len(self), size=count, dtype=np.uint32), bounds, order)
        for start, end in itertools.pairwise(bounds.tolist()):
            at = order[start:end]
            if not len(at):
                continue
            users = self._users[at]
            items = np.empty((len(at), 1 + self._negatives), np.int32)
            items[:, 0] = self._matrix.indices[at]
            kept = np.ones(items.shape, bool)
            if self._negatives:
                items[:, 1:] = self._drawn(rng, (len(at), self._negatives))
                mark_others(self._had.indptr, self._had.indices, users, items, kept)
            yield PairBatch(users, items, self._matrix.values[at], kept)

    def _drawn(self, rng: np.random.Generator, shape: tuple[int, int]) -> Nums:
        if self._popular:
            return self._matrix.indices[rng.integers(len(self._matrix.indices), size=shape)]
        return rng.integers(self._items, size=shape, dtype=np.int32)


@nb.njit(nogil=True, cache=True)
def mark_others(indptr: Any, indices: Any, users: Any, items: Any, kept: Any) -> None:
    """kept (OUT): which of each user's items, from the second on, are neither the first nor in the user's row."""
    for n in range(len(users)):
        start, end = indptr[users[n]], indptr[users[n] + 1]
        for m in range(1, items.shape[1]):
            item, low, high = items[n, m], start, end
            while low < high:
                middle = (low + high) // 2
                if indices[middle] < item:
                    low = middle + 1
                else:
                    high = middle
            kept[n, m] = item != items[n, 0] and (low == end or indices[low] != item)


class Distinct:
    """Which of `count` numbers are in a batch, and where: int64 ascending, and the place of each entry int32[n]."""

    def __init__(self, count: int) -> None:
        self._places = np.zeros(count, np.int32)

    def __call__(self, nums: Nums) -> tuple[NDArray[np.int64], Nums]:
        distinct, at = np.empty(len(nums), np.int64), np.empty(len(nums), np.int32)
        count = number(np.sort(nums), nums, self._places, distinct, at)
        return distinct[:count], at


@nb.njit(nogil=True, cache=True)
def number(ordered: Any, nums: Any, places: Any, distinct: Any, at: Any) -> Any:
    """How many different numbers there are; distinct int64[n], at int32[n] (OUT); places int32, of every number, is
    written where there are some.
    """
    count = 0
    for n in range(len(ordered)):
        if n == 0 or ordered[n] != ordered[n - 1]:
            distinct[count] = ordered[n]
            places[ordered[n]] = count
            count += 1
    for n in range(len(nums)):
        at[n] = places[nums[n]]
    return count
