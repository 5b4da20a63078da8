"""The training loop: which iteration is kept, when it stops, and that going on is as never having stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from recli.artifacts import Arrays, Factors
from recli.config import FactorizeConfig
from recli.factorize import Fit, Progress, Watch, factorize
from recli.kernels import load
from recli.kernels.spec import Kernels
from tests.factorize.data import interactions, planted

DATA = interactions(planted())


@pytest.fixture(scope="module")
def kernels() -> Iterator[Kernels]:
    with load("cpu", 1) as backend:
        yield backend


class Script:
    """A validation whose scores are given; `fits` are those that it saw."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.fits = list(scores), list[Fit]()

    def __call__(self, fit: Fit) -> float:
        self.fits.append(fit)
        return self.scores[len(self.fits) - 1]


def run(kernels: Kernels, watch: Watch, **settings: Any) -> tuple[Factors, Fit]:
    config = FactorizeConfig(**{"rank": 4, "iterations": 8, **settings})
    return factorize(DATA, config, kernels, watch)


def content(factors: Factors) -> list[bytes]:
    return [np.asarray(factors.arrays()[name]).tobytes() for name in ("P", "Q", "b_u", "b_v", "b")]


@pytest.mark.parametrize("solver", ["ials", "als"])
def test_the_best_iteration_is_kept_and_patience_ends_it(kernels: Kernels, solver: str) -> None:
    script = Script(0.1, 0.3, 0.2, 0.3, 0.25, 9, 9, 9)
    reports: list[Progress] = []
    watch = Watch(validate=script, on_progress=reports.append)
    factors, fit = run(kernels, watch, solver=solver, patience=3)
    assert (fit.best, fit.scores) == (2, [0.1, 0.3, 0.2, 0.3, 0.25])  # of equals the first
    assert len(fit.objectives) == len(script.fits) == 5
    np.testing.assert_array_equal(factors.P, script.fits[1].P)
    np.testing.assert_array_equal(factors.Q, script.fits[1].Q)
    assert [at.score for at in reports] == fit.scores
    shorter, _ = run(kernels, Watch(), solver=solver, iterations=2)
    assert content(shorter) == content(factors)  # to look on changes nothing


def test_without_validation_the_last_is_kept(kernels: Kernels) -> None:
    _, fit = run(kernels, Watch())
    assert (fit.best, fit.scores, len(fit.objectives)) == (0, [], 8)


def test_a_solver_without_iterations_is_validated_once(kernels: Kernels) -> None:
    script = Script(0.4)
    _, fit = run(kernels, Watch(validate=script), solver="pop")
    assert (fit.scores, fit.best) == ([0.4], 0)


@pytest.mark.parametrize("solver", ["ials", "als"])
@pytest.mark.parametrize("scores", [None, (0.5, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)])
@pytest.mark.parametrize("stopped", [2, 4, 8])
def test_a_resumed_run_ends_with_the_bytes_of_an_uninterrupted_one(
    kernels: Kernels, solver: str, scores: tuple[float, ...] | None, stopped: int
) -> None:
    saved: dict[int, Arrays] = {}

    def watch(resume: Arrays | None, done: int) -> Watch:
        def save(state: Arrays) -> None:
            saved.setdefault(len(state["objectives"]), {name: array.copy() for name, array in state.items()})

        validate = Script(*scores[done:]) if scores else None
        return Watch(validate=validate, checkpoint_every=2, save=save, resume=resume)

    whole, whole_fit = run(kernels, watch(None, 0), solver=solver, patience=100)
    assert sorted(saved) == [2, 4, 6, 8]
    again, fit = run(kernels, watch(saved[stopped], stopped), solver=solver, patience=100)
    assert content(again) == content(whole)
    assert (fit.objectives, fit.scores, fit.best) == (whole_fit.objectives, whole_fit.scores, whole_fit.best)


def test_a_run_that_had_stopped_early_stays_stopped(kernels: Kernels) -> None:
    saved: list[Arrays] = []
    watch = Watch(validate=Script(3, 2, 1), checkpoint_every=1, save=saved.append)
    whole, _ = run(kernels, watch, patience=2)
    never = Script()
    again, fit = run(kernels, Watch(validate=never, resume=saved[-1]), patience=2)
    assert content(again) == content(whole)
    assert (never.fits, fit.best) == ([], 1)


@pytest.mark.parametrize("solver", ["ials", "als"])
def test_a_model_to_start_from_saves_iterations(kernels: Kernels, solver: str) -> None:
    config = FactorizeConfig(solver=solver, rank=4, iterations=30)
    start, long = factorize(DATA, config, kernels)
    _, warm = factorize(DATA, FactorizeConfig(solver=solver, rank=4, iterations=1), kernels, start=start)
    assert warm.objectives[0] == pytest.approx(long.objectives[-1], rel=1e-3)
    assert long.objectives[0] > 1.02 * warm.objectives[0]
