"""The regularised least-squares problem that a user's row solves given the items' rows: one home for what solvers,
fold-in and explanations must agree on.

With y_j the items' rows to learn from, w_j the weights and t_j the targets of the user's n items:

    A_u x_u = sum_j t_j y_j,    A_u = alpha0 Y^T Y + regularization_u I + sum_j w_j y_j y_j^T

ials: y = q; t = w + shift, shift = alpha0 for Hu's loss, else 0; regularization_u = reg (n + alpha0 items)^nu (Rendle
et al. 2022, eq. 4). als: y = [q, 1], x = [p, b_u]; w = 1, t = r - b - b_v; alpha0 = 0. svd: y = q; w = alpha0 = 0,
regularization_u = 1, t the normalised values (score/row_problem.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.errors import DataError
from recli.ids import Csr

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


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


def damped_means(values: Doubles, groups: NDArray[np.integer], count: int, damping: float) -> Doubles:
    """The mean of each group's values and of `damping` zeros: float64[count]. It is the bias m with the least
    sum (value - m)^2 + damping m^2.
    """
    sums, sizes = np.bincount(groups, values, count), np.bincount(groups, minlength=count)
    return np.asarray(sums / (sizes + damping), np.float64)


class Problems(NamedTuple):
    """The problems of n users, the items' rows given. matrix: CSR [n, items], its values w; targets: float32[nnz], t;
    regularization: float32[n], above 0.
    """

    matrix: Csr
    targets: Floats
    regularization: Floats


class ExactSolver:
    """Users' problems one by one, in float64 and in the eigenbasis of Y^T Y, where what they share of A is diagonal."""

    def __init__(self, items: Floats, alpha0: float) -> None:
        """items: float32[I, d], Y."""
        self.items: Doubles = items.astype(np.float64)
        self._shared = np.zeros(items.shape[1])
        self._basis = np.eye(items.shape[1])
        if alpha0:
            spectrum, self._basis = np.linalg.eigh(self.items.T @ self.items)
            self._shared = alpha0 * np.maximum(spectrum, 0)
            self.items = self.items @ self._basis

    def terms(self, problems: Problems, user: int, rows: Doubles) -> tuple[NDArray[np.int32], Doubles]:
        """The user's n items, and x . row as a sum over them: t_j row^T A^-1 y_j, float64[m, n].

        rows: float64[m, d], in the basis of `items`, as some of those are.
        """
        entries = slice(problems.matrix.indptr[user], problems.matrix.indptr[user + 1])
        nums, weights = problems.matrix.indices[entries], problems.matrix.values[entries].astype(np.float64)
        y, shared = self.items[nums], self._shared + problems.regularization[user]
        if not weights.any():
            terms = (y / shared) @ rows.T
        elif len(y) < len(shared):  # Woodbury: Y (D + Y^T W Y)^-1 = (I + Y D^-1 Y^T W)^-1 Y D^-1
            scaled = y / shared
            terms = _solve(np.eye(len(y)) + (scaled @ y.T) * weights, scaled @ rows.T)
        else:
            terms = y @ _solve(np.diag(shared) + (y.T * weights) @ y, rows.T)
        return nums, terms.T * problems.targets[entries].astype(np.float64)

    def row(self, problems: Problems, user: int) -> Doubles:
        """x of the user: float64[d], in the basis of the items as they were given."""
        return np.asarray(self._basis @ self.terms(problems, user, np.eye(len(self._basis)))[1].sum(axis=1))


def _solve(A: Doubles, B: Doubles) -> Doubles:
    """A^-1 B; of many solutions, where A is singular in float64 (next to no regularisation), the smallest."""
    try:
        return np.asarray(np.linalg.solve(A, B), np.float64)
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(A, B, rcond=None)[0], np.float64)
