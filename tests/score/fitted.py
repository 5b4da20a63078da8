"""Models that were fitted, and a user's row as the float64 minimiser of the objective that DESIGN states."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.config import FactorizeConfig
from recli.factorize import factorize
from recli.ids import Csr, take_rows
from recli.kernels.reference import ReferenceKernels
from tests.factorize.data import interactions, planted

RANK = 5
SETTINGS: dict[str, dict[str, Any]] = {
    "rendle": {"solver": "ials"},
    "rendle, alpha, nu": {"solver": "ials", "alpha": 2.0, "nu": 0.5, "alpha0": 0.3},
    "rendle, weights": {"solver": "ials", "weighted": True, "alpha0": 0.05},
    "rendle, nothing unobserved": {"solver": "ials", "alpha0": 0.0, "reg": 0.3},
    "hu": {"solver": "ials", "loss": "hu", "alpha": 1.5},
    "als": {"solver": "als"},
    "als, nu 1": {"solver": "als", "reg": 0.1, "nu": 1.0},
    "svd, bias": {"solver": "svd"},
    "svd, degree": {"solver": "svd", "normalize": "degree"},
    "svd, none": {"solver": "svd", "normalize": "none"},
}


def fitted(weighted: bool = False, **settings: Any) -> Factors:
    """60 users, 40 items; user 0 has one item, the others nine."""
    config = FactorizeConfig(rank=RANK, iterations=4, **settings)
    return factorize(interactions(planted(), weighted=weighted), config, ReferenceKernels())[0]


def past(factors: Factors, user: int) -> Csr:
    """What the user has, as a matrix of one row."""
    assert factors.seen is not None
    return take_rows(factors.seen, np.array([user]), values=True)


def minimiser(factors: Factors, history: Csr) -> NDArray[np.float64]:
    """p and b_u of a user with these items: of svd, the normalised row times V; of others, the least squares of the
    objective's terms, one row a square.
    """
    settings, Q = factors.provenance.config, factors.Q.astype(np.float64)
    items, values, (count, rank) = history.indices, history.values.astype(np.float64), Q.shape
    values = values if len(values) else np.ones(len(items))
    if settings["solver"] == "svd":
        left = values - float(factors.b) - factors.b_v[items]
        b_u = left.sum() / (len(items) + 5) if settings["normalize"] == "bias" else 0
        if settings["normalize"] == "degree":
            left = values / np.maximum(np.nansum(planted(), axis=0), 1)[items]  # an item has no user
        return np.append((left - b_u) @ Q[items], b_u)
    if settings["solver"] == "als":
        Y = np.column_stack([Q, np.ones(count)])[items]
        wanted = values - float(factors.b) - factors.b_v[items]
        penalty = settings["reg"] * len(items) ** settings["nu"]
        squares, targets = [Y, np.sqrt(penalty) * np.eye(rank + 1)], [wanted, np.zeros(rank + 1)]
        return np.linalg.lstsq(np.vstack(squares), np.concatenate(targets), rcond=None)[0]
    alpha0 = settings["alpha0"]
    weights, wanted = np.full(count, alpha0), np.zeros(count)
    if settings["loss"] == "hu":
        weights[items], wanted[items] = alpha0 + values, 1
    else:  # w (1 - s)^2 + alpha0 s^2 has its least at w / (w + alpha0), with curvature w + alpha0
        weights[items], wanted[items] = alpha0 + values, values / (alpha0 + values)
    penalty = settings["reg"] * (len(items) + alpha0 * count) ** settings["nu"]
    squares = [np.sqrt(weights)[:, None] * Q, np.sqrt(penalty) * np.eye(rank)]
    targets = [np.sqrt(weights) * wanted, np.zeros(rank)]
    return np.append(np.linalg.lstsq(np.vstack(squares), np.concatenate(targets), rcond=None)[0], 0)
