"""bilinear and scale: a matrix between users and items, r = p^T M q + b_u + b_v + b.

bilinear: M = I + A B^T, 2 r s numbers. scale: M = diag(m), r of them, as (IA)^3 multiplies activations (Liu et al.
2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.checks import Arrays, check_array
from recli.config import FinetuneConfig
from recli.errors import DataError
from recli.finetune.base import Base, BaseRows
from recli.finetune.data import Nums
from recli.finetune.learner import FrozenRows, Learner, TrainedBiases
from recli.finetune.lora import directions
from recli.finetune.optimizer import Gradient, Parameter
from recli.finetune.tables import Tables
from recli.kernels.spec import Kernels

Doubles = NDArray[np.float64]


class BilinearRows:
    """Items' rows M q, so that users folded in later meet them. A starts at zero, B with orthonormal columns."""

    def __init__(self, base: Base, rank: int, rng: np.random.Generator, kernels: Kernels) -> None:
        self._base, self._kernels = BaseRows(base.items, kernels), kernels
        self.left = Parameter.zeros(base.rank, rank, kernels)
        self.right = Parameter.of(np.ascontiguousarray(directions(rank, base.rank, rng).T), kernels)
        self._taken: Any = None

    def take(self, nums: NDArray[np.int64]) -> Any:
        self._taken, (left, right) = self._base.take(nums), self._matrices()
        return self._kernels.combine([self._taken], np.eye(len(left)) + right @ left.T)

    def gradients(self, nums: NDArray[np.int64], gain: Any) -> Sequence[Gradient]:
        slope, (left, right) = self._kernels.gram([self._taken], gain), self._matrices()  # by M^T
        tables = (self._kernels.table(one.astype(np.float32)) for one in (slope.T @ right, slope @ left))
        return [Gradient(*one) for one in zip((self.left, self.right), (None, None), tables, strict=True)]

    def _matrices(self) -> tuple[Doubles, Doubles]:
        left, right = (self._kernels.host(one.table).astype(np.float64) for one in (self.left, self.right))
        return left, right


class ScaledRows:
    """Items' rows, each column multiplied by 1 + a number of its own."""

    def __init__(self, base: Base, kernels: Kernels) -> None:
        self._base, self._kernels = BaseRows(base.items, kernels), kernels
        self.parameter = Parameter.zeros(1, base.rank, kernels)
        self._taken: Any = None

    def take(self, nums: NDArray[np.int64]) -> Any:
        self._taken = self._base.take(nums)
        scale = 1 + self._kernels.host(self.parameter.table)[0].astype(np.float64)
        return self._kernels.combine([self._taken], np.diag(scale))

    def gradients(self, nums: NDArray[np.int64], gain: Any) -> Sequence[Gradient]:
        slope = np.diag(self._kernels.gram([self._taken], gain))[None]
        return [Gradient(self.parameter, None, self._kernels.table(slope.astype(np.float32)))]


def bilinear_learner(base: Base, nums: Nums, config: FinetuneConfig, kernels: Kernels) -> Learner:
    """Raises DataError where the rank exceeds the base's."""
    if config.rank > base.rank:
        raise DataError(f"--rank {config.rank}: the model has rank {base.rank}: give at most that")
    items = BilinearRows(base, config.rank, np.random.default_rng(config.seed), kernels)
    parameters = {"A": items.left, "B": items.right}
    return Learner(FrozenRows(base.users, kernels), items, TrainedBiases(base, kernels, None), parameters)


def scale_learner(base: Base, nums: Nums, config: FinetuneConfig, kernels: Kernels) -> Learner:
    items = ScaledRows(base, kernels)
    parameters = {"m": items.parameter}
    return Learner(FrozenRows(base.users, kernels), items, TrainedBiases(base, kernels, None), parameters)


def apply_bilinear(arrays: Arrays, tables: Tables) -> Tables:
    """Of bilinear and scale: M goes into the items' rows."""
    rank = tables.Q.shape[1]
    if "m" in arrays:
        check_array("m", arrays["m"], np.float32, (1, rank), finite=True)
        Q = tables.Q * (1 + arrays["m"][0])
    else:
        columns = arrays["A"].shape[1] if arrays["A"].ndim == 2 else -1
        for name in ("A", "B"):
            check_array(name, arrays[name], np.float32, (rank, columns), finite=True)
        left, right = (arrays[name].astype(np.float64) for name in ("A", "B"))
        Q = tables.Q @ (np.eye(rank) + right @ left.T).astype(np.float32)
    return Tables(tables.P, Q, tables.b_u, tables.b_v, tables.b)
