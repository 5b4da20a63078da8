"""implicit (https://github.com/benfred/implicit): ALS by conjugate gradients, and its exact top-K."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.topk import topk as exact_topk
from threadpoolctl import threadpool_limits

from recli.bench.clock import Clock
from recli.bench.objective import initial, objective_value, report
from recli.bench.problem import Problem

Work = Callable[..., dict[str, Any]]
ITERATIONS = 15  # its default


def train(problem: Problem) -> Work:
    """As it comes: nothing but the rank and the seed is set; every pair counts 1, as in recli's ials."""
    found, shape = problem.csr("train"), problem["shape"]
    pairs = sp.csr_matrix((np.ones_like(found.values), found.indices, found.indptr), shape=shape)
    fold_in = problem.csr("fold_in") if problem["fold_in"] else None

    def work(clock: Clock, save: bool = False) -> dict[str, Any]:
        each: list[float] = []
        model = AlternatingLeastSquares(
            factors=problem["rank"], random_state=problem["seed"], num_threads=problem.threads
        )
        with clock, threadpool_limits(1):  # as it asks for itself
            model.fit(pairs, show_progress=False, callback=lambda iteration, seconds, loss: each.append(seconds))
        if save:
            P = np.array(model.user_factors)
            if fold_in is not None:
                new = np.flatnonzero(np.diff(fold_in.indptr))
                theirs = sp.csr_matrix((np.ones_like(fold_in.values), fold_in.indices, fold_in.indptr), shape=shape)
                P[new] = model.recalculate_user(new, theirs[new])
            problem.deliver({"P": P, "Q": model.item_factors})
        return {"iterations": len(each), "seconds_per_iteration": float(np.median(each))}

    return work


def objective(problem: Problem) -> Work:
    found, shape = problem.csr("train"), problem["shape"]
    ones = found._replace(values=np.ones_like(found.values))
    X, Y = initial(shape, problem["rank"], problem["seed"])
    confidence = sp.csr_matrix((1 + problem["alpha"] * ones.values, found.indices, found.indptr), shape=shape)

    def work(clock: Clock, trace: bool = False) -> dict[str, Any]:
        values: list[float] = []
        model = AlternatingLeastSquares(
            factors=problem["rank"],
            regularization=problem["reg"],
            alpha=1.0,
            iterations=ITERATIONS,
            num_threads=problem.threads,
        )
        model.user_factors, model.item_factors = X.copy(), Y.copy()

        def after(iteration: int, seconds: float, loss: Any) -> None:
            clock.__exit__()
            if trace:
                factors = model.user_factors, model.item_factors
                values.append(objective_value(ones, *factors, problem["alpha"], problem["reg"]))
            clock.__enter__()

        with threadpool_limits(1), clock:
            model.fit(confidence, show_progress=False, callback=after)
        problem.deliver({"P": model.user_factors, "Q": model.item_factors})
        return report(np.cumsum(clock.laps)[:-1], values)  # the last lap begins after the last iteration

    return work


def topk(problem: Problem) -> Work:
    factors, seen = problem.arrays("topk", "P", "Q"), problem.csr("train")
    P, Q = factors["P"], factors["Q"]
    filtered = sp.csr_matrix((np.ones_like(seen.values), seen.indices, seen.indptr), shape=problem["shape"])

    def work(clock: Clock) -> dict[str, Any]:
        with clock, threadpool_limits(1):
            exact_topk(Q, P, problem["k"], filter_query_items=filtered, num_threads=problem.threads)
        return {}

    return work
