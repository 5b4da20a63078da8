"""Explicit ALS reaches the joint optimum of factors and all biases, and predicts held-out ratings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors
from recli.config import FactorizeConfig
from recli.errors import DataError, DivergedError
from recli.factorize import factorize
from recli.kernels import load
from recli.kernels.spec import Kernels
from tests.factorize.data import interactions, planted

Dense = NDArray[np.floating]


@pytest.fixture(scope="module", params=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 2) as backend, threadpool_limits(1):
        yield backend


def predictions(of: Factors) -> NDArray[np.float64]:
    P, Q, b_u, b_v = (np.asarray(array).astype(float) for array in (of.P, of.Q, of.b_u, of.b_v))
    return np.asarray(P @ Q.T + b_u[:, None] + b_v + float(of.b))


def regularizations(dense: Dense, reg: float, nu: float) -> list[NDArray[np.float64]]:
    return [reg * (~np.isnan(dense)).sum(axis=axis) ** nu for axis in (1, 0)]


def gradient(dense: Dense, of: Factors, reg: float, nu: float) -> dict[str, NDArray[np.float64]]:
    """Half of the objective's derivative by each parameter."""
    errors = np.nan_to_num(predictions(of) - dense)
    by_user, by_item = regularizations(dense, reg, nu)
    P, Q, b_u, b_v = (np.asarray(array).astype(float) for array in (of.P, of.Q, of.b_u, of.b_v))
    return {
        "P": errors @ Q + by_user[:, None] * P,
        "Q": errors.T @ P + by_item[:, None] * Q,
        "b_u": errors.sum(axis=1) + by_user * b_u,
        "b_v": errors.sum(axis=0) + by_item * b_v,
        "b": errors.sum(),
    }


@pytest.mark.parametrize(
    "settings", [{}, {"reg": 0.05, "nu": 1.0}, {"reg": 0.5, "nu": 0.0}, {"rank": 1}, {"rank": 45}], ids=str
)
def test_at_the_end_every_derivative_is_zero(settings: dict[str, Any]) -> None:
    """That of the global bias too: all are fitted jointly."""
    dense = planted()
    config = FactorizeConfig(**{"solver": "als", "rank": 4, "iterations": 500, **settings})
    with load("cpu", 1) as cpu:
        factors, fit = factorize(interactions(dense), config, cpu)
    for name, slope in gradient(dense, factors, fit.settings["reg"], fit.settings["nu"]).items():  # type: ignore[arg-type]
        assert np.abs(slope).max() < 0.02, name  # 30 and more at the start
    residual = np.nansum((predictions(factors) - dense) ** 2)
    penalty = sum(
        float(reg @ ((np.asarray(rows).astype(float) ** 2).sum(axis=1) + biases.astype(float) ** 2))
        for reg, rows, biases in zip(
            regularizations(dense, fit.settings["reg"], fit.settings["nu"]),  # type: ignore[arg-type]
            (factors.P, factors.Q),
            (factors.b_u, factors.b_v),
            strict=True,
        )
    )
    assert fit.objectives[-1] == pytest.approx(residual + penalty, rel=1e-4)


def test_every_iteration_lowers_the_objective(kernels: Kernels) -> None:
    _, fit = factorize(interactions(planted()), FactorizeConfig(solver="als", rank=4, iterations=12), kernels)
    assert fit.objectives == sorted(fit.objectives, reverse=True)


def test_held_out_ratings_of_a_planted_model_are_predicted(kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    users, items = 120, 80
    truth = 3 + 0.5 * rng.standard_normal((users, 1)) + 0.7 * rng.standard_normal(items)
    truth = truth + rng.standard_normal((users, 2)) @ rng.standard_normal((2, items)) * 0.7
    there, held = rng.random((2, users, items)) < [[[0.5]], [[0.1]]]
    dense = np.where(there & ~held, truth + 0.1 * rng.standard_normal(truth.shape), np.nan)
    config = FactorizeConfig(solver="als", rank=2, reg=0.02, iterations=30)
    found = predictions(factorize(interactions(dense), config, kernels)[0])

    def rmse(by: Dense) -> float:
        return float(np.sqrt(np.mean((by - truth)[held] ** 2)))

    mean = np.full_like(truth, np.nanmean(dense))
    assert rmse(found) < 0.12 < 1 < rmse(mean)


def test_biases_alone_are_told_apart(kernels: Kernels) -> None:
    """Ratings that are b + b_u + b_v exactly: whatever the factors do, the predictions are these."""
    b_u, b_v = np.linspace(-1, 1, 30), np.linspace(-0.5, 0.5, 20)
    dense = 3.5 + b_u[:, None] + b_v
    config = FactorizeConfig(solver="als", rank=1, reg=1e-3, iterations=30)
    factors, _ = factorize(interactions(dense), config, kernels)
    np.testing.assert_allclose(predictions(factors), dense, atol=0.01)
    assert float(factors.b) == pytest.approx(3.5, abs=0.02)


def test_a_rating_shifted_by_a_constant_shifts_the_global_bias_alone(kernels: Kernels) -> None:
    dense, config = planted(), FactorizeConfig(solver="als", rank=3, iterations=20)
    one, other = (factorize(interactions(dense + shift), config, kernels)[0] for shift in (0, 10))
    np.testing.assert_allclose(predictions(other), predictions(one) + 10, atol=1e-3)
    np.testing.assert_allclose(other.b_u, one.b_u, atol=1e-3)


def test_ratings_are_kept_with_the_seen_lists() -> None:
    dense = planted()
    with load("cpu", 1) as kernels:
        factors, _ = factorize(interactions(dense), FactorizeConfig(solver="als", rank=2, iterations=1), kernels)
    np.testing.assert_array_equal(factors.seen_values, dense[~np.isnan(dense)].astype(np.float32))


def test_weights_are_refused() -> None:
    with load("cpu", 1) as kernels, pytest.raises(DataError, match="als fits ratings, not weights"):
        factorize(interactions(planted(), weighted=True), FactorizeConfig(solver="als", rank=2), kernels)


def test_overflow_is_an_error_with_a_remedy() -> None:
    with load("cpu", 1) as kernels, pytest.raises(DivergedError, match="larger --reg"):
        factorize(interactions(planted() * 1e25), FactorizeConfig(solver="als", rank=2), kernels)
