"""Steps of all parameters of an adapter, the learning rate over time, and what pulls parameters towards nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.config import FinetuneConfig
from recli.kernels.spec import Floats, Kernels, Rule

# Where none is given: what most runs of docs/quality.md's grid liked.
RATES = {"sgd": 0.1, "adagrad": 0.05, "adam": 0.003, "adamw": 0.003}
BETAS = (0.9, 0.999)  # of adam: Kingma, Ba 2015, section 2
DECAY_OF_ADAMW = 0.01


@dataclass
class Parameter:
    """A table that is trained: [n, rank], with as many moments as the optimizer keeps."""

    table: Any
    shape: tuple[int, int]
    moments: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, values: Floats, kernels: Kernels) -> Parameter:
        return cls(kernels.table(values), (values.shape[0], values.shape[1]))

    @classmethod
    def zeros(cls, rows: int, rank: int, kernels: Kernels) -> Parameter:
        return cls(kernels.zeros(rows, rank), (rows, rank))

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]


class Gradient(NamedTuple):
    """Of rows nums of a parameter (None: all): table [n, rank]."""

    parameter: Parameter
    nums: NDArray[np.int64] | None
    table: Any


class Optimizer:
    """steps: of the whole run, for the schedule; done: steps taken."""

    def __init__(self, config: FinetuneConfig, steps: int, kernels: Kernels) -> None:
        self._config, self._steps, self._kernels = config, max(1, steps), kernels
        kind = "adam" if config.optimizer == "adamw" else config.optimizer
        decay = config.decay or (DECAY_OF_ADAMW if config.optimizer == "adamw" else 0.0)
        betas = {"sgd": (config.momentum, 0.0), "adagrad": (0.0, 0.0), "adam": BETAS}[kind]
        self._highest = config.learning_rate or RATES[config.optimizer]
        self._rule = Rule(kind, self._highest, *betas, decay=decay, l1=config.l1, l2=config.l2)
        self.done = 0

    @property
    def rate(self) -> float:
        """The learning rate of the next step: up to the highest in the warm-up, then down as scheduled."""
        at, warm = self.done + 1, self._config.warm_up * self._steps
        if at <= warm:
            return self._highest * at / warm
        left = min(1.0, (self._steps - self.done) / max(1.0, self._steps - warm))
        share = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left)))}
        return self._highest * share[self._config.schedule]

    def prepare(self, parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            parameter.moments = [self._kernels.zeros(*parameter.shape) for _ in range(self._rule.moments)]

    def step(self, gradients: Sequence[Gradient]) -> None:
        scale = 1.0
        if self._config.clip is not None:
            squares = sum(float((self._kernels.host(one.table).astype(np.float64) ** 2).sum()) for one in gradients)
            scale = min(1.0, self._config.clip / max(math.sqrt(squares), 1e-300))
        rule = self._rule._replace(rate=self.rate, step=self.done + 1, scale=scale)
        for parameter, nums, table in gradients:
            self._kernels.step(rule, parameter.table, parameter.moments, nums, table)
        self.done += 1
