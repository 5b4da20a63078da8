"""The loop of alternating solvers: progress, stopping, validation, checkpoints."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np

from recli.checks import Arrays
from recli.config import FactorizeConfig
from recli.errors import DivergedError
from recli.factorize.model import Fit, Progress, Watch

BEST = "best_"
FITTED = ("P", "Q", "b_u", "b_v")


class Alternating(Protocol):
    """A solver between two iterations."""

    def iterate(self, iteration: int) -> float:
        """One sweep over users and items, `iteration` from 0: the objective, as known on the way."""
        ...

    def state(self) -> Arrays:
        """All that later iterations depend on, bit for bit."""
        ...

    def restore(self, state: Arrays) -> None: ...

    def fit(self) -> Fit:
        """The model now, in its canonical basis."""
        ...


def train(solver: Alternating, config: FactorizeConfig, watch: Watch) -> Fit:
    """At most config.sweeps iterations; the best validated one where there is validation, else the last.

    Raises DivergedError where the objective overflows.
    """
    objectives: list[float] = []
    scores: list[float] = []
    best: Fit | None = None
    if watch.resume is not None:
        state = watch.resume
        solver.restore(state)
        objectives, scores = state["objectives"].tolist(), state["scores"].tolist()
        if scores:
            best = dataclasses.replace(solver.fit(), b=float(state[BEST + "b"]), **_kept(state))
    while len(objectives) < config.sweeps and not _enough(objectives, scores, config):
        iteration = len(objectives)
        objectives.append(solver.iterate(iteration))
        if not np.isfinite(objectives[-1]):
            raise DivergedError(
                f"the objective is {objectives[-1]} in iteration {iteration + 1}: "
                "use a larger --reg, or smaller weights (--alpha, --weight)"
            )
        if watch.validate:
            fit = solver.fit()
            score = watch.validate(fit)
            if not scores or score > max(scores):
                best = fit
            scores.append(score)
        watch.on_progress(
            Progress(iteration + 1, config.sweeps, objectives[-1], scores[-1] if watch.validate else None)
        )
        if watch.checkpoint_every and (iteration + 1) % watch.checkpoint_every == 0:
            watch.save({**solver.state(), **_progress_arrays(objectives, scores, best)})
    return dataclasses.replace(
        best or solver.fit(),
        objectives=objectives,
        scores=scores,
        best=int(np.argmax(scores)) + 1 if scores else 0,
    )


def _enough(objectives: list[float], scores: list[float], config: FactorizeConfig) -> bool:
    if scores and len(scores) - 1 - int(np.argmax(scores)) >= config.patience:
        return True
    if config.tol and len(objectives) > 1:
        return objectives[-2] - objectives[-1] < config.tol * abs(objectives[-1])
    return False


def _progress_arrays(objectives: list[float], scores: list[float], best: Fit | None) -> Arrays:
    arrays: Arrays = {"objectives": np.array(objectives, np.float64), "scores": np.array(scores, np.float64)}
    if best is not None:
        arrays |= {BEST + name: getattr(best, name) for name in FITTED if getattr(best, name) is not None}
        arrays[BEST + "b"] = np.array(best.b)
    return arrays


def _kept(state: Arrays) -> dict[str, Any]:
    return {name: state[BEST + name] for name in FITTED if BEST + name in state}
