"""What an adapter is to the training loop: rows and biases of both sides for a batch, and the gradients of its
parameters. The classes here are what adapters are put together from; one that they do not need stays the base's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recli.checks import Arrays
from recli.finetune.base import Base, BaseRows, Side
from recli.finetune.head import Head
from recli.finetune.optimizer import Gradient, Parameter
from recli.kernels.spec import Floats, Kernels


class TrainedRows(Protocol):
    """The rows of one side as an adapter has them."""

    def take(self, nums: NDArray[np.int64]) -> Any:
        """Rows of these numbers, each once: a table [n, r]."""
        ...

    def gradients(self, nums: NDArray[np.int64], gain: Any) -> Sequence[Gradient]:
        """Of the parameters, after `take` of the same numbers, whose rows have the gradient gain [n, r]."""
        ...


class FrozenRows:
    """The base's."""

    def __init__(self, side: Side, kernels: Kernels) -> None:
        self._rows = BaseRows(side, kernels)

    def take(self, nums: NDArray[np.int64]) -> Any:
        return self._rows.take(nums)

    def gradients(self, nums: NDArray[np.int64], gain: Any) -> Sequence[Gradient]:
        return ()


class Some:
    """The numbers of a side that have a parameter, and where in it."""

    def __init__(self, side: Side, nums: NDArray[np.int64]) -> None:
        self._places = np.full(len(side), -1, np.int64)
        self._places[nums] = np.arange(len(nums))

    def at(self, nums: NDArray[np.int64]) -> NDArray[np.int64]:
        """-1 for those that have none."""
        return np.asarray(self._places[nums])


def gradient_of(parameter: Parameter, at: NDArray[np.int64], gain: Any, kernels: Kernels) -> Gradient:
    """gain [n, r] of rows `at`, of which -1 have no parameter."""
    if (at >= 0).all():
        return Gradient(parameter, at, gain)
    there = np.flatnonzero(at >= 0)
    return Gradient(parameter, at[there], kernels.take(gain, there))


class TrainedBiases:
    """b_u, b_v and b: the base's, and what is added to them where they are trained."""

    def __init__(
        self, base: Base, kernels: Kernels, trained: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    ) -> None:
        """trained: numbers of users and items with biases of their own, or None: all stay."""
        self._base, self._kernels, self.parameters = base, kernels, dict[str, Parameter]()
        if trained is not None:
            self._some = [Some(side, nums) for side, nums in zip((base.users, base.items), trained, strict=True)]
            self.parameters = {
                name: Parameter.zeros(count, 1, kernels)
                for name, count in zip(("b_u", "b_v", "b"), (*map(len, trained), 1), strict=True)
            }

    def take(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> tuple[Floats, Floats, float]:
        """float32[n], float32[m] and b."""
        b_u, b_v, b = self._base.users.biases[users], self._base.items.biases[items], self._base.level
        if self.parameters:
            b_u, b_v = (
                known + self._kernels.host(self._kernels.take(self.parameters[name].table, some.at(nums)))[:, 0]
                for known, name, some, nums in zip((b_u, b_v), ("b_u", "b_v"), self._some, (users, items), strict=True)
            )
            b += float(self._kernels.host(self.parameters["b"].table)[0, 0])
        return b_u, b_v, b

    def gradients(
        self, users: NDArray[np.int64], items: NDArray[np.int64], gains: tuple[Floats, Floats, float]
    ) -> list[Gradient]:
        if not self.parameters:
            return []
        found = []
        for name, some, nums, gain in zip(("b_u", "b_v"), self._some, (users, items), gains[:2], strict=True):
            at = some.at(nums)
            there = at >= 0
            table = self._kernels.table(np.ascontiguousarray(gain[there, None], np.float32))
            found.append(Gradient(self.parameters[name], at[there], table))
        total = self._kernels.table(np.full((1, 1), gains[2], np.float32))
        return [*found, Gradient(self.parameters["b"], None, total)]


@dataclass(frozen=True)
class Learner:
    """parameters: by the name that the artifact stores them under; constants: what else it stores. scorer: what makes a
    score of rows and biases; None: their dot product and sum.
    """

    users: TrainedRows
    items: TrainedRows
    biases: TrainedBiases
    parameters: dict[str, Parameter]
    constants: Arrays = field(default_factory=dict)
    scorer: Head | None = None

    @property
    def size(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.size for parameter in self.parameters.values())

    def state(self, kernels: Kernels) -> Arrays:
        return {name: kernels.host(parameter.table) for name, parameter in self.parameters.items()}

    def restore(self, state: Arrays, kernels: Kernels) -> None:
        for name, parameter in self.parameters.items():
            parameter.table = kernels.table(state[name])

    def arrays(self, kernels: Kernels) -> Arrays:
        """What the artifact stores."""
        return {**self.state(kernels), **self.constants}
