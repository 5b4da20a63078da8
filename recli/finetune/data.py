"""The new data as training takes it: pairs in the numbers of the base, new ids behind them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.ids import Csr, SortedPairs, row_numbers

Nums = tuple[NDArray[np.int64], NDArray[np.int64]]  # of users, and of items


@dataclass(frozen=True)
class NewData:
    """matrix: CSR [users, items] to learn from, values as the base's solver takes them (weights or ratings), known ids
    first; every: all new pairs, with what is held out for validation. users, items: how many there are, new ones
    included. ratings: the values of matrix as the table has them; None: the same.
    """

    matrix: Csr
    every: Csr
    users: int
    items: int
    ratings: NDArray[np.float32] | None = None

    @property
    def given(self) -> NDArray[np.float32]:
        """The values of `matrix` as the table has them: labels and ratings, where the solver may count ones."""
        return self.matrix.values if self.ratings is None else self.ratings

    @cached_property
    def pair_users(self) -> NDArray[np.int32]:
        """The user of each entry of `matrix`."""
        return row_numbers(self.matrix.indptr).astype(np.int32)

    @cached_property
    def _by_item(self) -> SortedPairs:
        return SortedPairs.of([self.matrix.indices], [self.pair_users], self.items)

    @property
    def item_order(self) -> NDArray[Any]:
        """Where each entry of `by_item` is in `matrix`."""
        return self._by_item.positions

    @cached_property
    def by_item(self) -> Csr:
        """The transpose of `matrix`."""
        return Csr(self._by_item.indptr, self._by_item.items, self.matrix.values[self.item_order])

    def pairs_of_items(self, nums: NDArray[np.int64]) -> Csr:
        """Rows nums of `by_item`, of which a few are found without all."""
        wanted = np.zeros(self.items, bool)
        wanted[nums] = True
        at = np.flatnonzero(wanted[self.matrix.indices])
        at = at[np.argsort(self.matrix.indices[at], kind="stable")]
        lengths = np.bincount(self.matrix.indices[at], minlength=self.items)[nums]
        return Csr(np.append(0, np.cumsum(lengths)), self.pair_users[at], self.matrix.values[at])

    @cached_property
    def touched(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ascending numbers of the users and items that there is something to learn from."""
        return np.flatnonzero(self.new_counts[0]), np.flatnonzero(self.new_counts[1])

    def new_ids(self, known: tuple[int, int]) -> Nums:
        """Those of `touched` that are new, where so many users and items are known."""
        users, items = (nums[nums >= count] for nums, count in zip(self.touched, known, strict=True))
        return users, items

    def with_new(self, nums: Nums, known: tuple[int, int]) -> Nums:
        """Users and items nums, which are known, and the new ones behind them."""
        users, items = (np.concatenate(both) for both in zip(nums, self.new_ids(known), strict=True))
        return users, items

    @cached_property
    def new_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many pairs of `matrix` each user and each item has: int64[users], int64[items]."""
        ends = (self.pair_users, self.users), (self.matrix.indices, self.items)
        of_users, of_items = (np.bincount(nums, minlength=count) for nums, count in ends)
        return of_users, of_items

    def counts(self, factors: Factors) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many pairs the base was learned from: int64[users], int64[items], 0 for new ones and where it does not
        say.
        """
        of_users, of_items = np.zeros(self.users, np.int64), np.zeros(self.items, np.int64)
        if factors.seen is not None:
            of_users[: len(factors.user_ids)] = np.diff(factors.seen.indptr)
        of_items[: len(factors.item_ids)] = factors.item_counts
        return of_users, of_items

    def weights(self, factors: Factors) -> tuple[NDArray[Any], NDArray[Any]]:
        """What those pairs weigh together in the base's loss: float64[users], float64[items]; where all weigh 1, or it
        does not say, their number.
        """
        seen, values = factors.seen, factors.seen_values
        if seen is None or values is None or factors.provenance.config.get("solver") != "ials":
            return self.counts(factors)
        ends = (row_numbers(seen.indptr), self.users), (seen.indices, self.items)
        of_users, of_items = (np.bincount(nums, values, count) for nums, count in ends)
        return of_users, of_items
