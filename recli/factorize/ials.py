"""iALS: implicit alternating least squares, in half-sweeps of preconditioned conjugate gradients (objective:
kernels/spec.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recli.checks import Arrays
from recli.config import ACTIVITY_POWER, REGULARIZATION, UNOBSERVED_SHARE, FactorizeConfig
from recli.errors import DivergedError
from recli.factorize.loop import train
from recli.factorize.model import Data, Fit, Watch
from recli.factorize.start import initial_rows, leading_rows, warm_rows
from recli.ids import transpose
from recli.kernels.spec import Floats, Kernels, SweepStats
from recli.least_squares import confidence, regularization

# Conjugate-gradient steps a half-sweep, warm-started, until the squared residual is so much smaller: short rows take
# two, long ones four. Where rows are short more save no iterations, where they are long fewer cost one in four.
STEPS, TOLERANCE = 6, 0.01
USUAL_STEPS = 2.5  # an entry, on average: 1.9 to 2.8 on gowalla, ml-1m and synthetic pairs with the default settings
RELAXATION = 1.5  # of all half-sweeps but the first iteration's, which start far away: saves a third of the iterations
# A model's users are settled: the minimisers given its items, so that a user folded in from the same history gets the
# same row, and explanations leave no rest. It costs as much as two or three iterations and is worth one.
SETTLING_STEPS = 12


def fit_ials(data: Data, config: FactorizeConfig, kernels: Kernels, watch: Watch) -> Fit:
    """The regularisation of a user with n entries is reg (n + alpha0 items)^nu, an item's likewise (Rendle et al. 2022,
    eq. 4). Raises DataError for negative weights, DivergedError where float32 overflows.
    """
    return train(Ials(data, config, kernels), config, watch)


class Ials:
    """See loop.Alternating."""

    def __init__(self, data: Data, config: FactorizeConfig, kernels: Kernels) -> None:
        users, items, rank = data.users, data.items, config.rank
        by_user = data.matrix._replace(values=confidence(data.matrix.values, data.weighted, config.alpha))
        by_item = transpose(by_user, items)
        self._kernels = kernels
        self._alpha0 = (
            UNOBSERVED_SHARE * len(by_user.indices) / (users * items) if config.alpha0 is None else config.alpha0
        )
        self._reg = REGULARIZATION["ials"] if config.reg is None else config.reg
        self._nu = ACTIVITY_POWER["ials"] if config.nu is None else config.nu
        shift = np.float32(self._alpha0 if config.loss == "hu" else 0)
        self._sides = (by_user, by_item)
        self._targets = [csr.values + shift if shift else csr.values for csr in self._sides]
        self._penalties = [
            regularization(csr.indptr, self._reg, self._nu, self._alpha0, others)
            for csr, others in zip(self._sides, (items, users), strict=True)
        ]
        self._matrices = [kernels.matrix(csr) for csr in self._sides]
        self._constant = float(self._targets[0].sum(dtype=np.float64))  # of the objective: spec.py leaves it out
        P, Q = np.zeros((users, rank), np.float32), initial_rows(items, rank, config.seed)
        self._is_cold = data.start is None
        if data.start is not None:
            P, Q = warm_rows(data.start.P[:], P), warm_rows(data.start.item_factors(), Q)
        self._P, self._Q = kernels.table(P), kernels.table(Q)

    def iterate(self, iteration: int) -> float:
        if iteration == 0 and self._is_cold:
            self._Q = self._leading_rows()
        relaxation = RELAXATION if iteration else 1.0
        user_side = self._half_sweep(0, self._P, self._Q, STEPS, TOLERANCE, relaxation)
        item_side = self._half_sweep(1, self._Q, self._P, STEPS, TOLERANCE, relaxation)
        # known for nothing: the objective between the two half-sweeps
        return self._constant + item_side.data + item_side.penalty_before + user_side.penalty_after

    def _leading_rows(self) -> Any:
        """Of who has what, whatever the weights: one heavy pair would be a direction of its own."""
        by_user, by_item = self._matrices
        if (self._sides[0].values != 1).any():
            by_user, by_item = (
                self._kernels.matrix(side._replace(values=np.sign(side.values))) for side in self._sides
            )
        return leading_rows(self._kernels, by_user, by_item, self._Q)

    def _half_sweep(
        self, side: int, solve: Any, fixed: Any, steps: int, tolerance: float, relaxation: float
    ) -> SweepStats:
        return self._kernels.half_sweep(
            self._matrices[side],
            solve,
            fixed,
            targets=self._targets[side],
            alpha0=self._alpha0,
            regularization=self._penalties[side],
            steps=steps,
            tolerance=tolerance,
            relaxation=relaxation,
        )

    def state(self) -> Arrays:
        return {"P": self._kernels.host(self._P), "Q": self._kernels.host(self._Q)}

    def restore(self, state: Arrays) -> None:
        self._P, self._Q = self._kernels.table(state["P"]), self._kernels.table(state["Q"])

    def fit(self) -> Fit:
        users, items = (self._kernels.table(self._kernels.host(side)) for side in (self._P, self._Q))
        self._half_sweep(0, users, items, SETTLING_STEPS, 0.0, 1.0)
        P, Q = canonical(self._kernels.host(users), self._kernels.host(items))
        return Fit(P=P, Q=Q, settings={"alpha0": self._alpha0, "reg": self._reg, "nu": self._nu})


def canonical(P: Floats, Q: Floats) -> tuple[Floats, Floats]:
    """The same model in one basis of the many: Q^T Q diagonal and falling, the largest entry of each column of Q
    positive. Raises DivergedError where its numbers overflow float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        gram = (Q.T @ Q).astype(np.float64)
        if not np.isfinite(gram).all():
            raise DivergedError("the factors overflow float32: use a larger --reg")
        basis = np.linalg.eigh(gram)[1][:, ::-1].astype(np.float32)
        P, Q = P @ basis, Q @ basis
    if not (np.isfinite(P).all() and np.isfinite(Q).all()):
        raise DivergedError("the factors overflow float32: use a larger --reg")
    peak = Q[np.argmax(np.abs(Q), axis=0), np.arange(Q.shape[1])]
    signs = np.where(peak < 0, np.float32(-1), np.float32(1))
    return P * signs, Q * signs
