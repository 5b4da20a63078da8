"""What every solver returns and reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray


class Progress(NamedTuple):
    """After iteration `done` of at most `total`; objective: the latest value known."""

    done: int
    total: int
    objective: float


OnProgress: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """P float32[U, r], Q float32[I, r], item biases float32[I]; settings: those that the data decided; objectives: one
    an iteration.
    """

    P: NDArray[np.float32]
    Q: NDArray[np.float32]
    b_v: NDArray[np.float32]
    settings: dict[str, float] = field(default_factory=dict)
    objectives: list[float] = field(default_factory=list)
