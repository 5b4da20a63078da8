"""Users that a model has never seen, folded in: their rows are the exact minimisers of their problems, the items' rows
held.
"""

from __future__ import annotations

import numpy as np

from recli.artifacts import Factors
from recli.errors import DataError
from recli.ids import Csr
from recli.kernels.spec import Floats, Kernels
from recli.least_squares import ExactSolver, Problems
from recli.score.row_problem import RowProblem

STEPS = 32  # conjugate-gradient steps, twice: enough for all but users with far larger weights than regularisation
SETTLED = 1e-5  # of the row's largest entry: rows that the second half-sweep moved further are solved exactly


def fold_in(factors: Factors, problem: RowProblem, history: Csr, kernels: Kernels) -> Floats:
    """The rows of the users of a history, as Factors.user_rows gives them: float32[n, width].

    history: CSR [n, I] as `RowProblem.learned` gives it; no row is empty. Raises DataError where rows overflow float32.
    """
    rows = _minimisers(problem, problem.problems(history), kernels)
    if not np.isfinite(rows).all():
        raise DataError("the rows of its users overflow float32: are its weights or ratings as large as the model's?")
    P, b_u = (rows[:, :-1], rows[:, -1]) if problem.biased else (rows, problem.levels(history))
    return factors.laid_out(P, b_u)


def _minimisers(problem: RowProblem, problems: Problems, kernels: Kernels) -> Floats:
    users = kernels.table(np.zeros((len(problems.regularization), problem.items.shape[1]), np.float32))
    items, matrix = kernels.table(problem.items), kernels.matrix(problems.matrix)
    swept = []
    for _ in range(2):
        kernels.half_sweep(
            matrix,
            users,
            items,
            targets=problems.targets,
            alpha0=problem.alpha0,
            regularization=problems.regularization,
            steps=STEPS,
            relaxation=1.0,
        )
        swept.append(kernels.host(users) @ _back(kernels.host(items), problem.items))
    first, rows = swept
    with np.errstate(invalid="ignore"):
        settled = np.abs(rows - first).max(axis=1, initial=0) <= SETTLED * np.abs(rows).max(axis=1, initial=0)
    if not settled.all():
        solver = ExactSolver(problem.items, problem.alpha0)
        for user in np.flatnonzero(~settled):
            rows[user] = solver.row(problems, user)
    return rows


def _back(rotated: Floats, rows: Floats) -> Floats:
    """The orthonormal matrix that undoes the rotation that a half-sweep may leave (orthogonal Procrustes)."""
    left, _, right = np.linalg.svd(rotated.T.astype(np.float64) @ rows)
    return (left @ right).astype(np.float32)
