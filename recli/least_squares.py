"""The regularised least-squares problem that a user's row solves given the items' rows: one home for what solvers,
fold-in and explanations must agree on.

With y_j the items' rows to learn from, w_j the weights and t_j the targets of the user's n items:

    A_u x_u = sum_j t_j y_j,    A_u = alpha0 Y^T Y + regularization_u I + sum_j w_j y_j y_j^T

ials: y = q; t = w + shift, shift = alpha0 for Hu's loss, else 0; regularization_u = reg (n + alpha0 items)^nu (Rendle
et al. 2022, eq. 4). als: y = [q, 1], x = [p, b_u]; w = 1, t = r - b - b_v; alpha0 = 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recli.errors import DataError
from recli.ids import Csr

Floats = NDArray[np.float32]


def regularization(indptr: NDArray[np.int64], reg: float, nu: float, alpha0: float, others: int) -> Floats:
    """reg (n + alpha0 others)^nu of each row: float32[rows]; others: the rows of the other side."""
    return np.asarray((reg * (np.diff(indptr) + alpha0 * others) ** nu).astype(np.float32))


def confidence(values: Floats, weighted: bool, alpha: float | None) -> Floats:
    """The weight of each stored pair: the weight column, else alpha times the rating, else 1."""
    if weighted:
        weights = values
    elif alpha is not None:
        with np.errstate(over="ignore"):  # the objective is infinite then
            weights = values * np.float32(alpha)
    else:
        return np.ones_like(values)
    if len(weights) and float(weights.min()) < 0:
        raise DataError(
            f"expected weights of at least 0, found {weights.min():g} (--weight, or --alpha times the rating)"
        )
    return weights


def with_values(matrix: Csr, values: Floats) -> Csr:
    """The same pairs with other values."""
    return matrix._replace(values=values)
