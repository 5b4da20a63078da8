"""scikit-learn's randomized_svd, with as many power iterations as the error asked for takes (races.py finds out)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from recli.bench.clock import Clock
from recli.bench.problem import Problem

Work = Callable[..., dict[str, Any]]
OVERSAMPLES = 20


def svd(problem: Problem) -> Work:
    found = problem.csr("train")
    matrix = sp.csr_array((found.values, found.indices, found.indptr), shape=problem["shape"])

    def work(clock: Clock, iterations: int) -> dict[str, Any]:
        with clock, threadpool_limits(problem.threads):
            U, s, V = randomized_svd(
                matrix,
                problem["rank"],
                n_iter=iterations,
                n_oversamples=OVERSAMPLES,
                random_state=problem["seed"],
                power_iteration_normalizer="QR",
            )
        problem.deliver({"U": U, "s": s, "V": V.T})
        return {"iterations": iterations}

    return work
