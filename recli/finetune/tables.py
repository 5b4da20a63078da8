"""A model as plain arrays, to which adapters are applied: base and delta together are the merged model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recli.errors import DataError
from recli.kernels.spec import Floats


@dataclass(frozen=True)
class Tables:
    """P float32[U, r], Q float32[I, r], b_u float32[U], b_v float32[I], b."""

    P: Floats
    Q: Floats
    b_u: Floats
    b_v: Floats
    b: np.float32

    def with_biases(self, b_u: Floats, b_v: Floats, b: np.float32) -> Tables:
        return replace(self, b_u=self.b_u + b_u, b_v=self.b_v + b_v, b=np.float32(self.b + b))


def checked_nums(name: str, nums: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Ascending numbers below count, from a file."""
    if nums.dtype != np.int64 or nums.ndim != 1:
        raise DataError(f"array {name}: expected int64 numbers, found {nums.dtype}{list(nums.shape)}")
    if len(nums) and not (nums[0] >= 0 and nums[-1] < count and (nums[1:] > nums[:-1]).all()):
        raise DataError(f"array {name}: expected ascending numbers below {count}")
    return nums


def added(rows: Floats, nums: NDArray[np.int64], changes: Floats) -> Floats:
    """A copy of rows whose rows nums are changed by so much."""
    changed = rows.copy()
    changed[nums] += changes
    return changed
