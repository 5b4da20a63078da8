"""lora: the change of the tables is of low rank, dP = A_P B_P and dQ = A_Q B_Q (Hu et al. 2022, "LoRA", eq. 3; there of
weight matrices). Each user and item of the new data has s numbers of its own, and the s directions are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.checks import Arrays, check_array
from recli.config import FinetuneConfig
from recli.errors import DataError
from recli.finetune.base import Base, BaseRows, Side
from recli.finetune.data import Nums
from recli.finetune.learner import Learner, Some, TrainedBiases, gradient_of
from recli.finetune.optimizer import Gradient, Parameter
from recli.finetune.tables import Tables, added, checked_nums
from recli.kernels.spec import Floats, Kernels


class LowRankRows:
    """Rows p + a B. A starts at zero, so that training starts at the base, and B with orthonormal directions: for
    gradients to reach A as they are.
    """

    def __init__(
        self, side: Side, nums: NDArray[np.int64], rank: int, rng: np.random.Generator, kernels: Kernels
    ) -> None:
        self._base, self._kernels, self._some = BaseRows(side, kernels), kernels, Some(side, nums)
        self.own = Parameter.zeros(len(nums), rank, kernels)
        self.shared = Parameter.of(directions(rank, side.rank, rng), kernels)
        self._taken: Any = None

    def take(self, nums: NDArray[np.int64]) -> Any:
        rows = self._base.take(nums)
        self._taken = self._kernels.take(self.own.table, self._some.at(nums))
        self._kernels.add_product(rows, self._taken, self._shared)
        return rows

    def gradients(self, nums: NDArray[np.int64], gain: Any) -> Sequence[Gradient]:
        own = self._kernels.combine([gain], self._shared.T)
        shared = self._kernels.table(self._kernels.gram([self._taken], gain).astype(np.float32))
        return [
            gradient_of(self.own, self._some.at(nums), own, self._kernels),
            Gradient(self.shared, None, shared),
        ]

    @property
    def _shared(self) -> NDArray[np.float64]:
        return self._kernels.host(self.shared.table).astype(np.float64)


def directions(rank: int, width: int, rng: np.random.Generator) -> Floats:
    """Orthonormal rows: float32[rank, width]."""
    basis = np.linalg.qr(rng.standard_normal((width, rank)))[0]
    return np.ascontiguousarray(basis.T, np.float32)


def lora_learner(base: Base, nums: Nums, config: FinetuneConfig, kernels: Kernels) -> Learner:
    """Raises DataError where the rank exceeds the base's."""
    if config.rank > base.rank:
        raise DataError(f"--rank {config.rank}: the model has rank {base.rank}: give at most that")
    rng = np.random.default_rng(config.seed)
    users, items = (
        LowRankRows(side, some, config.rank, rng, kernels)
        for side, some in zip((base.users, base.items), nums, strict=True)
    )
    parameters = {"A_P": users.own, "B_P": users.shared, "A_Q": items.own, "B_Q": items.shared}
    constants: Arrays = {"users": nums[0], "items": nums[1]}
    return Learner(users, items, TrainedBiases(base, kernels, None), parameters, constants)


def apply_lora(arrays: Arrays, tables: Tables) -> Tables:
    """B may have a last column for biases, where the base's solver fits them with the rows."""
    width, changed = tables.P.shape[1], []
    for rows, biases, role, name in (
        (tables.P, tables.b_u, "users", "P"),
        (tables.Q, tables.b_v, "items", "Q"),
    ):
        nums = checked_nums(role, arrays[role], len(rows))
        own, shared = arrays[f"A_{name}"], arrays[f"B_{name}"]
        rank, columns = own.shape[1] if own.ndim == 2 else -1, width + (shared.shape[-1:] == (width + 1,))
        check_array(f"A_{name}", own, np.float32, (len(nums), rank), finite=True)
        check_array(f"B_{name}", shared, np.float32, (rank, columns), finite=True)
        moves = own @ shared
        changed.append(added(rows, nums, moves[:, :width]))
        changed.append(added(biases, nums, moves[:, width]) if columns > width else biases)
    return Tables(changed[0], changed[2], changed[1], changed[3], tables.b)
