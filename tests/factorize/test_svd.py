"""svd: what is normalised, that P = U S and Q = V, and what the model predicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from recli.artifacts import Factors
from recli.config import FactorizeConfig
from recli.errors import DataError
from recli.factorize import Fit, factorize
from recli.factorize.svd import ITEM_DAMPING, USER_DAMPING
from recli.kernels import load
from recli.kernels.spec import Kernels
from tests.factorize.data import interactions, planted

DENSE = planted()
THERE = ~np.isnan(DENSE)


@pytest.fixture(scope="module", params=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 2) as backend:
        yield backend


def fit(kernels: Kernels, dense: np.ndarray[Any, Any] = DENSE, **settings: Any) -> tuple[Factors, Fit]:
    weighted = settings.pop("weighted", False)
    config = FactorizeConfig(**{"solver": "svd", "rank": 5, **settings})
    return factorize(interactions(dense, weighted=weighted), config, kernels)


def best(matrix: np.ndarray[Any, Any], rank: int) -> np.ndarray[Any, Any]:
    """The nearest matrix of that rank (Eckart & Young 1936)."""
    U, s, V = np.linalg.svd(matrix)
    return np.asarray((U[:, :rank] * s[:rank]) @ V[:rank])


def test_none_is_the_nearest_matrix_of_the_rank(kernels: Kernels) -> None:
    factors, _ = fit(kernels, normalize="none")
    P, Q = np.asarray(factors.P, float), np.asarray(factors.Q, float)
    np.testing.assert_allclose(P @ Q.T, best(np.nan_to_num(DENSE), 5), atol=2e-3)
    np.testing.assert_allclose(Q.T @ Q, np.eye(5), atol=1e-5)
    gram = P.T @ P
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-3 * gram.max())
    assert not factors.b_u.any()
    assert not factors.b


def test_bias_factors_what_damped_means_leave_of_the_stored_ratings(kernels: Kernels) -> None:
    factors, fitted = fit(kernels, normalize="bias")
    b = DENSE[THERE].mean()
    b_v = np.nansum(DENSE - b, axis=0) / (THERE.sum(axis=0) + ITEM_DAMPING)
    b_u = np.nansum(DENSE - b - b_v, axis=1) / (THERE.sum(axis=1) + USER_DAMPING)
    assert float(factors.b) == pytest.approx(b, rel=1e-6)
    np.testing.assert_allclose(factors.b_v, b_v, atol=1e-6)
    np.testing.assert_allclose(factors.b_u, b_u, atol=1e-6)
    left = np.where(THERE, DENSE - b - b_u[:, None] - b_v, 0)
    np.testing.assert_allclose(np.asarray(factors.P) @ np.asarray(factors.Q).T, best(left, 5), atol=2e-3)
    assert fitted.settings["normalize"] == "bias"


def test_degree_factors_the_matrix_between_roots_of_its_sums(kernels: Kernels) -> None:
    factors, _ = fit(kernels, normalize="degree")
    values = np.nan_to_num(DENSE)
    rows, columns = (np.sqrt(values.sum(axis=axis)) for axis in (1, 0))
    scaled = np.divide(values, rows[:, None] * columns, out=np.zeros_like(values), where=values > 0)
    expected = rows[:, None] * best(scaled, 5) * columns
    np.testing.assert_allclose(np.asarray(factors.P) @ np.asarray(factors.Q).T, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("dense", "weighted", "chosen"),
    [(DENSE, False, "bias"), (np.where(THERE, 1.0, np.nan), False, "degree"), (DENSE, True, "degree")],
    ids=["ratings", "events", "weights"],
)
def test_auto_takes_biases_off_ratings_alone(
    kernels: Kernels, dense: np.ndarray[Any, Any], weighted: bool, chosen: str
) -> None:
    factors, fitted = fit(kernels, dense, weighted=weighted)
    assert fitted.settings["normalize"] == factors.provenance.config["normalize"] == chosen
    assert np.abs(factors.P).max() > 0.1  # equal values are not centred to nothing


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_energy_finds_the_rank(kernels: Kernels, share: float) -> None:
    factors, fitted = fit(kernels, normalize="none", energy=share, rank=40)
    squares = np.linalg.svd(np.nan_to_num(DENSE), compute_uv=False) ** 2
    rank = int(np.searchsorted(np.cumsum(squares), share * squares.sum())) + 1
    assert factors.P.shape[1] == rank
    assert fitted.settings["kept_energy"] == pytest.approx(squares[:rank].sum() / squares.sum(), rel=1e-5)


def test_a_rank_above_the_data_is_no_trouble(kernels: Kernels) -> None:
    factors, _ = fit(kernels, normalize="none", rank=500)
    assert factors.P.shape[1] == np.linalg.matrix_rank(np.nan_to_num(DENSE))


def test_negative_values_have_no_degree() -> None:
    dense = DENSE.copy()
    dense[3, np.flatnonzero(THERE[3])[0]] = -1
    with (
        load("cpu", 1) as cpu,
        pytest.raises(DataError, match="--normalize degree: expected values of at least 0, found -1"),
    ):
        fit(cpu, dense, normalize="degree")
