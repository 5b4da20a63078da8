"""rows, full, bias: what is trained is added to the base's own numbers, row by row: those that the new data touches, or
all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.checks import Arrays, check_array
from recli.config import FinetuneConfig
from recli.finetune.base import Base, BaseRows, Side
from recli.finetune.data import Nums
from recli.finetune.learner import FrozenRows, Learner, Some, TrainedBiases, TrainedRows, gradient_of
from recli.finetune.optimizer import Gradient, Parameter
from recli.finetune.tables import Tables, added, checked_nums
from recli.kernels.spec import Kernels


class FreeRows:
    """Some rows of a side, each of them free: the change of each is a parameter."""

    def __init__(self, side: Side, nums: NDArray[np.int64], kernels: Kernels) -> None:
        self._base, self._kernels, self._some = BaseRows(side, kernels), kernels, Some(side, nums)
        self.parameter = Parameter.zeros(len(nums), side.rank, kernels)

    def take(self, nums: NDArray[np.int64]) -> Any:
        return self._base.take(nums, self.parameter.table, self._some.at(nums))

    def gradients(self, nums: NDArray[np.int64], gain: Any) -> Sequence[Gradient]:
        return [gradient_of(self.parameter, self._some.at(nums), gain, self._kernels)]


def rows_learner(base: Base, nums: Nums, config: FinetuneConfig, kernels: Kernels) -> Learner:
    """Rows of these users and items; their biases, too, where the base has biases."""
    users, items = (FreeRows(side, some, kernels) for side, some in zip((base.users, base.items), nums, strict=True))
    return _learner(base, nums, users, items, {"P": users.parameter, "Q": items.parameter}, kernels)


def bias_learner(base: Base, nums: Nums, config: FinetuneConfig, kernels: Kernels) -> Learner:
    """Biases of these users and items, and b. A base without biases starts from zero."""
    users, items = FrozenRows(base.users, kernels), FrozenRows(base.items, kernels)
    return _learner(base, nums, users, items, {}, kernels, biased=True)


def _learner(
    base: Base,
    nums: Nums,
    users: TrainedRows,
    items: TrainedRows,
    parameters: dict[str, Parameter],
    kernels: Kernels,
    *,
    biased: bool = False,
) -> Learner:
    biases = TrainedBiases(base, kernels, nums if biased or base.biased else None)
    constants: Arrays = {"users": nums[0], "items": nums[1]}
    return Learner(users, items, biases, {**parameters, **biases.parameters}, constants)


def apply_rows(arrays: Arrays, tables: Tables) -> Tables:
    """Of rows, full and bias."""
    users = checked_nums("users", arrays["users"], len(tables.P))
    items = checked_nums("items", arrays["items"], len(tables.Q))
    if "P" in arrays or "Q" in arrays:
        rank = tables.P.shape[1]
        check_array("P", arrays["P"], np.float32, (len(users), rank), finite=True)
        check_array("Q", arrays["Q"], np.float32, (len(items), rank), finite=True)
        P, Q = added(tables.P, users, arrays["P"]), added(tables.Q, items, arrays["Q"])
        tables = Tables(P, Q, tables.b_u, tables.b_v, tables.b)
    if "b_u" in arrays:
        check_array("b_u", arrays["b_u"], np.float32, (len(users), 1), finite=True)
        check_array("b_v", arrays["b_v"], np.float32, (len(items), 1), finite=True)
        check_array("b", arrays["b"], np.float32, (1, 1), finite=True)
        b_u, b_v = np.zeros_like(tables.b_u), np.zeros_like(tables.b_v)
        b_u[users], b_v[items] = arrays["b_u"][:, 0], arrays["b_v"][:, 0]
        tables = tables.with_biases(b_u, b_v, arrays["b"][0, 0])
    return tables
