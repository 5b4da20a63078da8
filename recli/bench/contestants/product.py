"""No library: the matrix product that exact top-K without pruning cannot do without, tile by tile, results dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from recli.bench.clock import Clock
from recli.bench.problem import Problem

Work = Callable[..., dict[str, Any]]
TILE = 1024  # users


def topk(problem: Problem) -> Work:
    factors = problem.arrays("topk", "P", "Q")
    P, Q = factors["P"], factors["Q"]

    def work(clock: Clock) -> dict[str, Any]:
        with clock, threadpool_limits(problem.threads):
            tile = np.empty((TILE, len(Q)), np.float32)
            for start in range(0, len(P), TILE):
                rows = P[start : start + TILE]
                np.matmul(rows, Q.T, out=tile[: len(rows)])
        return {}

    return work
