"""Users that a model has never seen, folded in: their rows are the exact minimisers of their problems, the items' rows
held.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors
from recli.errors import DataError
from recli.ids import Csr, take_rows
from recli.kernels.spec import Floats, Kernels
from recli.least_squares import ExactSolver, Problems
from recli.linalg import procrustes
from recli.score.audience import Audience
from recli.score.row_problem import RowProblem

STEPS = 32  # conjugate-gradient steps, twice: enough for all but users with far larger weights than regularisation
SETTLED = 1e-5  # of the row's largest entry: rows that the second half-sweep moved further are solved exactly


def fold_in(audience: Audience, factors: Factors, kernels: Kernels) -> Audience:
    """The audience with rows for users that the model says nothing about, but who have a history. Its history's values
    are as `RowProblem.learned` gives them.

    Raises DataError where rows overflow float32, or where the model does not say how its rows came about.
    """
    if audience.history is None:
        return audience
    folded = audience.without_rows(factors) & (np.diff(audience.history.indptr) > 0)
    rows = folded_rows(factors, take_rows(audience.history, np.flatnonzero(folded), values=True), kernels)
    return replace(audience, folded=rows, folded_at=np.where(folded, np.cumsum(folded) - 1, -1))


def folded_rows(factors: Factors, history: Csr, kernels: Kernels) -> Floats:
    """The rows of the users of a history, as Factors.user_rows gives them: float32[n, width].

    history: CSR [n, I] as `RowProblem.learned` gives it; no row is empty.
    """
    problem = RowProblem(factors)
    with threadpool_limits(1):  # the products here are short: threads that wait for each other make them slower
        rows = _minimisers(problem, problem.problems(history), kernels)
    if not np.isfinite(rows).all():
        raise DataError("the rows of its users overflow float32: are its weights or ratings as large as the model's?")
    P, b_u = (rows[:, :-1], rows[:, -1]) if problem.biased else (rows, problem.levels(history))
    return factors.laid_out(P, b_u)


@np.errstate(over="ignore", invalid="ignore")  # what overflows shows in the rows
def _minimisers(problem: RowProblem, problems: Problems, kernels: Kernels) -> Floats:
    users = kernels.table(np.zeros((len(problems.regularization), problem.items.shape[1]), np.float32))
    items, matrix = kernels.table(problem.items), kernels.matrix(problems.matrix)
    swept, data = [], 0.0
    for _ in range(2):
        data += kernels.half_sweep(
            matrix,
            users,
            items,
            targets=problems.targets,
            alpha0=problem.alpha0,
            regularization=problems.regularization,
            steps=STEPS,
            relaxation=1.0,
        ).data
        swept.append(kernels.host(users) @ procrustes(kernels.host(items), problem.items).astype(np.float32))
    first, rows = swept
    settled = np.abs(rows - first).max(axis=1, initial=0) <= SETTLED * np.abs(rows).max(axis=1, initial=0)
    slow = np.flatnonzero(~settled | ~np.isfinite(data)).tolist()
    if slow:
        solver = ExactSolver(problem.items, problem.alpha0)
        for user in slow:
            rows[user] = solver.row(problems, user)
    return rows
