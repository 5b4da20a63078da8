"""recli itself, as its commands run it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from recli import io, kernels
from recli.artifacts import Interactions, Provenance
from recli.bench.clock import Clock
from recli.bench.objective import initial, objective_value, report
from recli.bench.problem import Problem
from recli.config import FactorizeConfig, ReadConfig
from recli.factorize import Data, Progress, Watch, factorize
from recli.factorize.ials import Ials
from recli.linalg import truncated_svd

Work = Callable[..., dict[str, Any]]
MOST_ITERATIONS = 200  # until a peer's objective must be reached


def index(problem: Problem) -> Work:
    def work(clock: Clock) -> dict[str, Any]:
        with clock, io.source(problem["files"], problem["format"]) as found:
            interactions, _ = io.read_interactions(found, ReadConfig(columns=problem["columns"]))
        return {"pairs": len(interactions.matrix.indices)}

    return work


def train(problem: Problem) -> Work:
    interactions = Interactions.from_arrays(problem.arrays("train_artifact"), Provenance())
    config = FactorizeConfig(**problem["config"])

    def work(clock: Clock, save: bool = False) -> dict[str, Any]:
        done: list[float] = []
        objectives: list[float] = []

        def on_progress(progress: Progress) -> None:
            done.append(time.perf_counter())
            objectives.append(progress.objective)

        with clock, kernels.load(problem["device"], problem.threads, problem.memory_limit) as backend:
            model, fit = factorize(interactions, config, backend, Watch(on_progress=on_progress))
        if save:
            with open(problem.out / "model.npz", "wb+") as file:
                io.write_npz(model, file)
        if not fit.objectives:
            return {"iterations": 0}
        each = np.diff(done) if len(done) > 1 else np.array([clock.seconds])
        return {"iterations": len(fit.objectives), "seconds_per_iteration": float(np.median(each))}

    return work


def objective(problem: Problem) -> Work:
    """The public steps of recli's ials on the objective of implicit, from the same start.

    The first run finds out how many iterations reach the target, evaluating each; later ones do as many.
    """
    matrix, shape = problem.csr("train"), problem["shape"]
    ones = matrix._replace(values=np.ones_like(matrix.values))
    X, Y = initial(shape, problem["rank"], problem["seed"])
    config = FactorizeConfig(
        rank=problem["rank"], loss="hu", alpha0=1.0, nu=0.0, alpha=problem["alpha"], reg=problem["reg"]
    )

    def work(clock: Clock, target: float | None = None, iterations: int | None = None) -> dict[str, Any]:
        trace: list[float] = []
        done = 0
        with kernels.load("cpu", problem.threads) as backend:
            with clock:
                solver = Ials(Data(matrix=ones, items=shape[1]), config, backend)
                solver.restore({"P": X, "Q": Y})
            while done < (iterations or MOST_ITERATIONS) and not (target is not None and trace and trace[-1] <= target):
                with clock:
                    solver.iterate(done)
                done += 1
                if target is not None:
                    state = solver.state()
                    trace.append(objective_value(ones, state["P"], state["Q"], problem["alpha"], problem["reg"]))
            problem.deliver(solver.state())
        return report(np.cumsum(clock.laps)[1:], trace)

    return work


def svd(problem: Problem) -> Work:
    """The first run also notes the matrix products that it does, for the roofline."""
    matrix, (_, items) = problem.csr("train"), problem["shape"]
    products: list[tuple[int, int, int]] = []

    def work(clock: Clock, iterations: int = 0) -> dict[str, Any]:
        with kernels.load("cpu", problem.threads) as backend:
            noted: Any = backend if products else _Noted(backend, products)
            with clock:
                found = truncated_svd(matrix, items, problem["rank"], noted, seed=problem["seed"])
        problem.deliver({"U": found.U, "s": found.s, "V": found.V})
        return {"products": products}

    return work


class _Noted:
    """A backend that notes each sparse product as (rows, columns, width)."""

    def __init__(self, backend: Any, products: list[tuple[int, int, int]]) -> None:
        self._backend, self._products = backend, products

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def product(self, matrix: Any, table: Any) -> Any:
        result = self._backend.product(matrix, table)
        before, after = self._backend.host(table), self._backend.host(result)
        self._products.append((len(after), len(before), before.shape[1]))
        return result


def topk(problem: Problem) -> Work:
    factors, seen = problem.arrays("topk", "P", "Q"), problem.csr("train")
    P, Q = factors["P"], factors["Q"]

    def work(clock: Clock) -> dict[str, Any]:
        with clock, kernels.load(problem["device"], problem.threads, problem.memory_limit) as backend:
            backend.topk(backend.index_items(Q), P, problem["k"], seen)
        return {}

    return work
