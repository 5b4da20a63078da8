"""Who gets lists: users of the model, users folded in from a history, and users that nothing is known about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import HISTORY, MODEL, POPULAR, Factors
from recli.ids import Csr, slice_rows, take_rows, union_rows
from recli.kernels.spec import Floats


class Folded(NamedTuple):
    """Users whose rows come from a history. rows: float32[f, width], as Factors.user_rows gives them; history: [f,
    items], what they have already.
    """

    rows: Floats
    history: Csr


@dataclass(frozen=True)
class Audience:
    """n users, in the order of their lists.

    nums: int64[n], their numbers in the model, -1 where it does not know them. folded_at: int64[n], rows of `folded`
    that take the place of the model's, -1 for users without one; or None: there are none. denied: [n, items], what each
    must not get, or None. A user may occur again.
    """

    nums: NDArray[np.int64]
    folded_at: NDArray[np.int64] | None = None
    folded: Folded | None = None
    denied: Csr | None = None

    def __len__(self) -> int:
        return len(self.nums)

    def part(self, start: int, end: int) -> Audience:
        """The users from position start to end, which may lie beyond the last."""
        return replace(
            self,
            nums=self.nums[start:end],
            folded_at=None if self.folded_at is None else self.folded_at[start:end],
            denied=None if self.denied is None else slice_rows(self.denied, start, end),
        )

    def reasons(self, factors: Factors) -> NDArray[np.uint8]:
        """Where each list comes from: uint8[n], numbers of artifacts.REASONS.

        A user of the model whose row is zero and who has nothing there (one that only an older model, from which it
        started, had seen) gets the popular items like an unknown one: a zero row ranks by item biases alone, and where
        there are none, by item number.
        """
        known = np.flatnonzero(self.nums >= 0)
        nums = self.nums[known]
        if factors.seen is not None:
            nothing = factors.seen.indptr[nums] == factors.seen.indptr[nums + 1]
            known, nums = known[nothing], nums[nothing]
        reasons = np.where(self.nums < 0, POPULAR, MODEL).astype(np.uint8)
        if len(nums) and not factors.b_v.any():
            reasons[known[~factors.P[nums].any(axis=1)]] = POPULAR
        if self.folded_at is not None:
            reasons[self.folded_at >= 0] = HISTORY
        return reasons

    def rows(self, factors: Factors, at: NDArray[np.intp]) -> Floats:
        """The rows of the users at these positions, none of them POPULAR: float32[len(at), width]."""
        if self.folded is None or self.folded_at is None:
            return factors.user_rows(self.nums[at])
        folded_at = self.folded_at[at]
        rows = factors.user_rows(np.where(folded_at < 0, self.nums[at], 0))
        rows[folded_at >= 0] = self.folded.rows[folded_at[folded_at >= 0]]
        return rows

    def left_out(self, factors: Factors, *, keep_seen: bool) -> Csr | None:
        """What each user does not get: items had, in the model or the history, unless keep_seen, and items denied."""
        parts = [] if self.denied is None else [self.denied]
        if not keep_seen and factors.seen is not None:
            parts.append(take_rows(factors.seen, self.nums))
        if not keep_seen and self.folded is not None and self.folded_at is not None:
            parts.append(take_rows(self.folded.history, self.folded_at))
        return union_rows(parts, len(factors.item_ids)) if parts else None
