"""The model that is adapted: its rows, with those of ids that the new data brings, and what the data says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.kernels.spec import Floats, Kernels


@dataclass(frozen=True)
class Side:
    """Users, or items: rows float32[n, r], which are never written; those of new ids, added float32[m, r], numbered
    behind them; and the biases of all, float32[n + m]. touched: ascending numbers of those in the new data.
    """

    rows: Floats
    added: Floats
    biases: Floats
    touched: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows) + len(self.added)

    @property
    def rank(self) -> int:
        return int(self.rows.shape[1])

    def all_rows(self) -> Floats:
        return np.vstack([self.rows, self.added]) if len(self.added) else self.rows


@dataclass(frozen=True)
class Base:
    """A model: r(u, v) = p_u . q_v + b_u + b_v + b. level: b."""

    users: Side
    items: Side
    level: float

    @property
    def rank(self) -> int:
        return self.users.rank

    @property
    def biased(self) -> bool:
        """Does it have biases, or a level?"""
        return bool(self.users.biases.any() or self.items.biases.any() or self.level)

    @property
    def parameters(self) -> int:
        """Of the model before anything was added: factors and those biases that it has."""
        biases = sum(len(side.rows) for side in (self.users, self.items) if side.biases[: len(side.rows)].any())
        return (len(self.users.rows) + len(self.items.rows)) * self.rank + biases + bool(self.level)


class BaseRows:
    """Fetches rows of a side for a batch."""

    def __init__(self, side: Side, kernels: Kernels) -> None:
        self._known, self._rows, self._kernels = len(side.rows), side.rows, kernels
        self._added = kernels.table(side.added) if len(side.added) else None

    def take(
        self, nums: NDArray[np.int64], changes: Any | None = None, changed_at: NDArray[np.int64] | None = None
    ) -> Any:
        """Rows of these numbers, plus changes[changed_at]: see Kernels.take."""
        if self._added is None:
            return self._kernels.take(self._rows, nums, changes, changed_at)
        here = nums < self._known
        added_at = np.where(here, -1, nums - self._known)
        rows = self._kernels.take(self._rows, np.where(here, nums, -1), self._added, added_at)
        if changes is not None and changed_at is not None:
            self._kernels.add_rows(rows, changes, changed_at)
        return rows
