"""SciPy's svds: ARPACK, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from recli.bench.clock import Clock
from recli.bench.problem import Problem

Work = Callable[..., dict[str, Any]]


def svd(problem: Problem) -> Work:
    found = problem.csr("train")
    matrix = sp.csr_array((found.values, found.indices, found.indptr), shape=problem["shape"])

    def work(clock: Clock, iterations: int = 0) -> dict[str, Any]:
        with clock, threadpool_limits(problem.threads):
            start = np.random.default_rng(problem["seed"]).standard_normal(min(matrix.shape))
            U, s, V = svds(matrix.astype(np.float64), k=problem["rank"], v0=start)
        problem.deliver({"U": U[:, ::-1], "s": s[::-1], "V": V.T[:, ::-1]})
        return {}

    return work
