"""What every solver is given, returns and reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.checks import Arrays
from recli.ids import Csr


class Progress(NamedTuple):
    """After iteration `done` of at most `total`; objective: the latest value known (svd: the share of triplets that
    have converged, at the end of the squares that are kept); score: of validation, if any.
    """

    done: int
    total: int
    objective: float
    score: float | None = None


OnProgress: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Data:
    """matrix: CSR [users, items] to learn from; weighted: its values are confidence weights (see
    least_squares.confidence). start: a model of the same users, items and rank to start from, or None.
    """

    matrix: Csr
    items: int
    weighted: bool = False
    start: Factors | None = None

    @property
    def users(self) -> int:
        return len(self.matrix.indptr) - 1


@dataclass(frozen=True, kw_only=True)
class Fit:
    """P float32[U, r], Q float32[I, r]; biases float32[U], float32[I] (None: zero) and a number; settings: those that
    the data decided; objectives: one an iteration; scores: of validation, one an iteration, and `best` the iteration
    that was kept, from 1 (0: there was no validation).
    """

    P: NDArray[np.float32]
    Q: NDArray[np.float32]
    b_u: NDArray[np.float32] | None = None
    b_v: NDArray[np.float32] | None = None
    b: float = 0.0
    settings: dict[str, float | str] = field(default_factory=dict)
    objectives: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best: int = 0


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What happens around a solver's iterations. validate: the quality of a fit, higher is better. save: keeps a
    checkpoint, every `checkpoint_every` iterations (0: never); resume: one that was kept, to go on from.
    """

    on_progress: OnProgress = lambda progress: None
    validate: Callable[[Fit], float] | None = None
    checkpoint_every: int = 0
    save: Callable[[Arrays], None] = lambda state: None
    resume: Arrays | None = None
