"""ALS on explicit ratings, the biases of users and items and the global one fitted together with the factors.

    min sum_obs (r - b - b_u - b_v - p . q)^2 + sum_u reg n_u^nu (|p|^2 + b_u^2) + the same for items

(Zhou et al. 2008, "Large-Scale Parallel Collaborative Filtering for the Netflix Prize", weighted-lambda
regularisation, which is nu = 1; biases as in Koren, Bell, Volinsky 2009, "Matrix Factorization Techniques for
Recommender Systems", eq. 5.) Biases are two more columns: users [p, b_u, 1], items [q, 1, b_v], whose ones stay as
they are, so that a half-sweep solves factors and biases in one problem.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recli.checks import Arrays
from recli.config import ACTIVITY_POWER, REGULARIZATION, FactorizeConfig
from recli.errors import DataError
from recli.factorize.ials import SETTLING_STEPS, canonical
from recli.factorize.loop import train
from recli.factorize.model import Data, Fit, Watch
from recli.factorize.start import initial_rows, warm_rows
from recli.ids import transpose
from recli.kernels.spec import Kernels, SweepStats
from recli.least_squares import regularization

STEPS = 3  # conjugate-gradient steps a half-sweep: as good as exact solves on ml-100k and ml-1m


def fit_als(data: Data, config: FactorizeConfig, kernels: Kernels, watch: Watch) -> Fit:
    """Raises DataError for weighted data, DivergedError where float32 overflows."""
    if data.weighted:
        raise DataError("als fits ratings, not weights (--weight): name the rating column with --columns rating=NAME")
    return train(_Als(data, config, kernels), config, watch)


class _Als:
    """See loop.Alternating."""

    def __init__(self, data: Data, config: FactorizeConfig, kernels: Kernels) -> None:
        users, items, rank = data.users, data.items, config.rank
        sides = ((data.matrix, items), (transpose(data.matrix, items), users))
        self._kernels, self._rank = kernels, rank
        self._ratings = [csr.values for csr, _ in sides]
        self._squares = float(np.sum(data.matrix.values.astype(np.float64) ** 2))
        self._reg = REGULARIZATION["als"] if config.reg is None else config.reg
        self._nu = ACTIVITY_POWER["als"] if config.nu is None else config.nu
        self._penalties = [regularization(csr.indptr, self._reg, self._nu, 0, others) for csr, others in sides]
        self._matrices = [kernels.matrix(csr._replace(values=np.ones_like(csr.values))) for csr, _ in sides]
        P, Q = initial_rows(users, rank, config.seed + 1), initial_rows(items, rank, config.seed)
        b_u, b_v = np.zeros(users, np.float32), np.zeros(items, np.float32)
        self._b = float(data.matrix.values.mean(dtype=np.float64))
        if (start := data.start) is not None:
            P, Q = warm_rows(start.P[:], P), warm_rows(start.item_factors(), Q)
            b_u, b_v, self._b = warm_rows(start.b_u, b_u), warm_rows(start.b_v, b_v), float(start.b)
        self._users = kernels.table(np.column_stack([P, b_u, np.ones_like(b_u)]))
        self._items = kernels.table(np.column_stack([Q, np.ones_like(b_v), b_v]))

    def iterate(self, iteration: int) -> float:
        user_side = self._half_sweep(0, self._users, self._items, STEPS)
        item_side = self._half_sweep(1, self._items, self._users, STEPS)
        ratings, b = self._ratings[0], self._b
        constant = self._squares - 2 * b * float(ratings.sum(dtype=np.float64)) + len(ratings) * b**2
        objective = constant + item_side.data + item_side.penalty_before + user_side.penalty_after
        self._centre()
        return objective

    def _half_sweep(self, side: int, solve: Any, fixed: Any, steps: int) -> SweepStats:
        return self._kernels.half_sweep(
            self._matrices[side],
            solve,
            fixed,
            targets=self._ratings[side] - np.float32(self._b),
            alpha0=0,
            regularization=self._penalties[side],
            steps=steps,
            relaxation=1.0,  # more is quicker by an iteration and ends at a slightly higher rmse
            frozen=(self._rank + 1 - side,),
        )

    def _centre(self) -> None:
        """Moves into b what regularised biases need not carry: at the optimum sum_u reg_u b_u = 0, likewise for items,
        which is what the derivative by b says.
        """
        users, items = self._kernels.host(self._users), self._kernels.host(self._items)
        for table, column, penalty in ((users, -2, self._penalties[0]), (items, -1, self._penalties[1])):
            level = np.float32(np.average(table[:, column], weights=penalty))
            table[:, column] -= level
            self._b += float(level)
        self._users, self._items = self._kernels.table(users), self._kernels.table(items)

    def state(self) -> Arrays:
        return {
            "users": self._kernels.host(self._users),
            "items": self._kernels.host(self._items),
            "b": np.array(self._b),
        }

    def restore(self, state: Arrays) -> None:
        self._users, self._items = self._kernels.table(state["users"]), self._kernels.table(state["items"])
        self._b = float(state["b"])

    def fit(self) -> Fit:
        users, items = (self._kernels.table(self._kernels.host(side)) for side in (self._users, self._items))
        self._half_sweep(0, users, items, SETTLING_STEPS)
        rows, item_rows = self._kernels.host(users), self._kernels.host(items)
        P, Q = canonical(rows[:, :-2], item_rows[:, :-2])
        b_u, b_v = rows[:, -2], item_rows[:, -1]
        return Fit(P=P, Q=Q, b_u=b_u, b_v=b_v, b=self._b, settings={"reg": self._reg, "nu": self._nu})
