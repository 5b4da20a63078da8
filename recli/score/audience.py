"""Who gets lists: users of the model, users folded in from a history, and users that nothing is known about."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import HISTORY, MODEL, POPULAR, Factors
from recli.ids import Csr, slice_rows, take_rows, union_rows
from recli.kernels.spec import Floats


@dataclass(frozen=True)
class Audience:
    """n users, in the order of their lists.

    nums: int64[n], their numbers in the model, -1 where it does not know them. history: [n, items], what each has
    beside the model's seen list, or None. folded: rows from histories, float32[f, width], as Factors.user_rows gives
    them, and folded_at: int64[n], which of those takes the place of the model's row, -1 for none; or None: there are
    none. denied: [n, items], what each must not get, or None. A user may occur again.
    """

    nums: NDArray[np.int64]
    history: Csr | None = None
    folded: Floats | None = None
    folded_at: NDArray[np.int64] | None = None
    denied: Csr | None = None

    def __len__(self) -> int:
        return len(self.nums)

    def part(self, start: int, end: int) -> Audience:
        """The users from position start to end, which may lie beyond the last."""
        return replace(
            self,
            nums=self.nums[start:end],
            history=None if self.history is None else slice_rows(self.history, start, end),
            folded_at=None if self.folded_at is None else self.folded_at[start:end],
            denied=None if self.denied is None else slice_rows(self.denied, start, end),
        )

    def without_rows(self, factors: Factors) -> NDArray[np.bool_]:
        """Users that the model says nothing about: bool[n]. It does not know them, or they have a zero row and no items
        there (only an older model, from which it started, had seen them).
        """
        known = np.flatnonzero(self.nums >= 0)
        nums = self.nums[known]
        if factors.seen is not None:
            nothing = factors.seen.indptr[nums] == factors.seen.indptr[nums + 1]
            known, nums = known[nothing], nums[nothing]
        without = self.nums < 0
        without[known] = ~factors.P[nums].any(axis=1)
        return without

    def reasons(self, factors: Factors) -> NDArray[np.uint8]:
        """Where each list comes from: uint8[n], numbers of artifacts.REASONS.

        Users without rows get the popular items: a zero row ranks by item biases alone, which is left to models that
        have some, and else by item number.
        """
        without = self.without_rows(factors)
        reasons = np.where(without & ((self.nums < 0) | (not factors.b_v.any())), POPULAR, MODEL).astype(np.uint8)
        if self.folded_at is not None:
            reasons[self.folded_at >= 0] = HISTORY
        return reasons

    def rows(self, factors: Factors, at: NDArray[np.intp]) -> Floats:
        """The rows of the users at these positions, none of them POPULAR: float32[len(at), width]."""
        if self.folded is None or self.folded_at is None:
            return factors.user_rows(self.nums[at])
        folded_at = self.folded_at[at]
        rows = factors.user_rows(np.where(folded_at < 0, self.nums[at], 0))
        rows[folded_at >= 0] = self.folded[folded_at[folded_at >= 0]]
        return rows

    def left_out(self, factors: Factors, *, keep_seen: bool) -> Csr | None:
        """What each user does not get: items had, in the model or the history, unless keep_seen, and items denied."""
        parts = [] if self.denied is None else [self.denied]
        if not keep_seen and factors.seen is not None:
            parts.append(take_rows(factors.seen, self.nums))
        if not keep_seen and self.history is not None:
            parts.append(self.history)
        return union_rows(parts, len(factors.item_ids)) if parts else None
