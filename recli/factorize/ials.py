"""iALS: implicit alternating least squares, in half-sweeps of preconditioned conjugate gradients (objective:
kernels/spec.py).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from recli.config import UNOBSERVED_SHARE, FactorizeConfig
from recli.errors import DataError, DivergedError
from recli.factorize.model import Fit, OnProgress, Progress
from recli.ids import Csr, transpose
from recli.kernels.spec import Floats, Kernels

STEPS = 2  # conjugate-gradient steps a half-sweep, warm-started: more make iterations dearer, not fewer
RELAXATION = (
    1.4  # of all half-sweeps but the first iteration's, which start from noise: saves a quarter of the iterations
)
INITIAL_SCALE = 0.1  # standard deviation of initial rows' norms (Rendle et al. 2022, section 4)


def fit_ials(
    matrix: Csr, items: int, weighted: bool, config: FactorizeConfig, kernels: Kernels, on_progress: OnProgress
) -> Fit:
    """matrix: [users, items]; weighted: its values are the confidence weights (see `confidence`).

    The regularisation of a user with n entries is reg (n + alpha0 items)^nu, an item's likewise (Rendle et al. 2022,
    eq. 4). Raises DataError for negative weights, DivergedError where float32 overflows.
    """
    users = len(matrix.indptr) - 1
    by_user = matrix._replace(values=confidence(matrix.values, weighted, config.alpha))
    by_item = transpose(by_user, items)
    alpha0 = UNOBSERVED_SHARE * len(matrix.indices) / (users * items) if config.alpha0 is None else config.alpha0
    user_reg, item_reg = (
        (config.reg * (np.diff(indptr) + alpha0 * others) ** config.nu).astype(np.float32)
        for indptr, others in ((by_user.indptr, items), (by_item.indptr, users))
    )
    rng = np.random.default_rng(config.seed)
    start = rng.standard_normal((items, config.rank), np.float32) * np.float32(INITIAL_SCALE / np.sqrt(config.rank))
    P, Q = kernels.table(np.zeros((users, config.rank), np.float32)), kernels.table(start)
    user_matrix, item_matrix = kernels.matrix(by_user), kernels.matrix(by_item)
    shift = alpha0 if config.loss == "hu" else 0.0
    objectives: list[float] = []
    for iteration in range(config.iterations):
        sweep = partial(
            kernels.half_sweep, alpha0=alpha0, shift=shift, steps=STEPS, relaxation=RELAXATION if iteration else 1.0
        )
        user_side = sweep(user_matrix, P, Q, regularization=user_reg)
        item_side = sweep(item_matrix, Q, P, regularization=item_reg)
        # known for nothing: the objective between the two half-sweeps
        objectives.append(item_side.data + item_side.penalty_before + user_side.penalty_after)
        if not np.isfinite(objectives[-1]):
            raise DivergedError(
                f"the objective is {objectives[-1]} in iteration {iteration + 1}: "
                "use a larger --reg, or smaller weights (--alpha, --weight)"
            )
        on_progress(Progress(iteration + 1, config.iterations, objectives[-1]))
        if config.tol and iteration and objectives[-2] - objectives[-1] < config.tol * abs(objectives[-1]):
            break
    P, Q = canonical(kernels.host(P), kernels.host(Q))
    return Fit(P=P, Q=Q, b_v=np.zeros(items, np.float32), settings={"alpha0": alpha0}, objectives=objectives)


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
