"""Truncated SVD of ratings: normalised, never densified, P = U S and Q = V.

- bias: what is left of the stored ratings after b + b_u + b_v, damped means (Koren 2010, "Factor in the Neighbors",
  section 2.1); the model predicts ratings.
- degree: D_u^-1/2 R D_v^-1/2, with D the sums of rows and columns, scaled back: P = D_u^1/2 U S, Q = D_v^1/2 V. Its
  ranking is that of the ideal low-pass graph filter (Shen et al. 2021, "How Powerful is Graph Convolution for
  Recommendation?", GF-CF).
- none: the matrix as it is (Cremonesi et al. 2010, "Performance of Recommender Algorithms on Top-N Recommendation
  Tasks", PureSVD).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.config import FactorizeConfig
from recli.errors import DataError
from recli.factorize.model import Data, Fit, OnProgress, Progress, Watch
from recli.ids import Csr, row_numbers
from recli.kernels.spec import Floats, Kernels
from recli.least_squares import damped_means
from recli.linalg import truncated_svd

# Ratings that count as a bias of zero. Koren 2010 has 25 and 10; rmse on ml-100k and ml-1m is 0.008 and 0.002 lower so.
ITEM_DAMPING, USER_DAMPING = 5.0, 5.0


def fit_svd(data: Data, config: FactorizeConfig, kernels: Kernels, watch: Watch) -> Fit:
    """Raises DataError for negative values where they are divided by their sums (degree)."""
    normalize = config.normalize
    if normalize == "auto":
        constant = data.weighted or (data.matrix.values == data.matrix.values[0]).all()
        normalize = "degree" if constant else "bias"
    matrix, biases, scales = NORMALIZATIONS[normalize](data.matrix, data.items)
    P, Q, kept = low_rank(matrix, data.items, config.rank, squares_of(matrix), config, kernels, watch.on_progress)
    settings: dict[str, float | str] = {"normalize": normalize, "kept_energy": kept}
    if normalize == "bias":
        settings["user_damping"] = USER_DAMPING
    if scales is not None:
        P, Q = P * scales[0][:, None], Q * scales[1][:, None]
    return Fit(P=P, Q=Q, **biases, settings=settings)


def low_rank(
    matrix: Csr | NDArray[Any],
    columns: int,
    max_rank: int,
    squares: float,
    config: FactorizeConfig,
    kernels: Kernels,
    on_progress: OnProgress,
) -> tuple[Floats, Floats, float]:
    """P = U S, Q = V of rank max_rank, or of the smallest that keeps config.energy of the matrix's squares, and the
    share that is kept.
    """

    def on_check(converged: int, wanted: int) -> None:
        on_progress(Progress(0, 1, converged / max(1, wanted)))

    energy = np.inf if config.energy is None else config.energy * squares
    found = truncated_svd(matrix, columns, max_rank, kernels, energy=energy, seed=config.seed, on_check=on_check)
    kept = float(np.sum(found.s**2)) / (squares or 1.0)
    on_progress(Progress(1, 1, kept))
    return np.ascontiguousarray(found.U * found.s.astype(np.float32)), np.ascontiguousarray(found.V), kept


def squares_of(matrix: Csr) -> float:
    return float(np.sum(matrix.values.astype(np.float64) ** 2))


Biases = dict[str, Any]
Scales = tuple[Floats, Floats]


def _unchanged(matrix: Csr, items: int) -> tuple[Csr, Biases, Scales | None]:
    return matrix, {}, None


def _without_biases(matrix: Csr, items: int) -> tuple[Csr, Biases, Scales | None]:
    """Items first, then users by what is left of their ratings."""
    user = row_numbers(matrix.indptr)
    b = float(matrix.values.mean(dtype=np.float64))
    left = matrix.values.astype(np.float64) - b
    b_v = damped_means(left, matrix.indices, items, ITEM_DAMPING)
    b_u = damped_means(left - b_v[matrix.indices], user, len(matrix.indptr) - 1, USER_DAMPING)
    left -= b_v[matrix.indices] + b_u[user]
    return matrix._replace(values=left.astype(np.float32)), {"b_u": _f32(b_u), "b_v": _f32(b_v), "b": b}, None


def _by_degree(matrix: Csr, items: int) -> tuple[Csr, Biases, Scales | None]:
    if len(matrix.values) and matrix.values.min() < 0:
        raise DataError(f"--normalize degree: expected values of at least 0, found {matrix.values.min():g}")
    user = row_numbers(matrix.indptr)
    roots = [
        np.sqrt(np.bincount(groups, matrix.values, count))
        for groups, count in ((user, len(matrix.indptr) - 1), (matrix.indices, items))
    ]
    divisors = np.maximum(roots[0][user] * roots[1][matrix.indices], np.finfo(np.float64).tiny)
    return matrix._replace(values=_f32(matrix.values / divisors)), {}, (_f32(roots[0]), _f32(roots[1]))


def _f32(values: NDArray[np.floating]) -> Floats:
    return values.astype(np.float32)


NORMALIZATIONS = {"bias": _without_biases, "degree": _by_degree, "none": _unchanged}
