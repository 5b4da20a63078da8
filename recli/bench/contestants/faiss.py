"""faiss, flat: exact inner products. It cannot leave out what each user has, and does not try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss

from recli.bench.clock import Clock
from recli.bench.problem import Problem

Work = Callable[..., dict[str, Any]]


def topk(problem: Problem) -> Work:
    factors = problem.arrays("topk", "P", "Q")
    P, Q = factors["P"], factors["Q"]
    faiss.omp_set_num_threads(problem.threads)

    def work(clock: Clock) -> dict[str, Any]:
        with clock:
            index = faiss.IndexFlatIP(Q.shape[1])
            index.add(Q)
            index.search(P, problem["k"])
        return {}

    return work
