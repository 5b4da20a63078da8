"""Validation during training: pairs held out, and the metric on them that decides which iteration is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.config import FactorizeConfig
from recli.factorize.model import Fit
from recli.ids import Csr, take_rows
from recli.kernels.spec import Floats, Kernels
from recli.metrics import Truth, per_user

MOST_USERS = 5000  # to be ranked after each iteration: the standard error of recall is then below 0.005


@dataclass(frozen=True)
class Validation:
    """train, held: CSR [users, items]; lists leave out what is in train. metric: name@k, or rmse of held's values."""

    train: Csr
    held: Csr
    metric: str
    seed: int
    kernels: Kernels

    def of_fit(self, fit: Fit) -> float:
        """The metric; higher is better, so rmse is negative."""
        b_u, b_v = fit.b_u, fit.b_v
        level = np.full(len(fit.P), fit.b, np.float32) + (0 if b_u is None else b_u)
        P, Q = np.column_stack([fit.P, level]), np.column_stack([fit.Q, np.ones(len(fit.Q), np.float32)])
        if b_v is not None:
            P, Q = np.column_stack([P, np.ones_like(level)]), np.column_stack([Q, b_v])
        return self._quality(P, Q)

    def of_factors(self, factors: Factors) -> float:
        return self._quality(factors.user_rows(slice(None)), factors.item_rows())

    def _quality(self, P: Floats, Q: Floats) -> float:
        if self.metric == "rmse":
            return -self._rmse(P, Q)
        name, k = self.metric.split("@")
        users = self._users()
        index = self.kernels.index_items(np.ascontiguousarray(Q))
        rows = np.ascontiguousarray(P[users])
        items, _ = self.kernels.topk(index, rows, min(int(k), len(Q)), take_rows(self.train, users))
        truth = take_rows(self.held, users)
        return float(per_user(items, Truth(truth, np.diff(truth.indptr)))[name].mean())

    def _users(self) -> NDArray[np.int64]:
        """Those with something held out, or a sample of them."""
        users = np.flatnonzero(np.diff(self.held.indptr))
        if len(users) > MOST_USERS:
            users = np.sort(np.random.default_rng(self.seed).choice(users, MOST_USERS, replace=False))
        return users

    def _rmse(self, P: Floats, Q: Floats) -> float:
        user = np.repeat(np.arange(len(P)), np.diff(self.held.indptr))
        errors = self.held.values - np.einsum("nr,nr->n", P[user], Q[self.held.indices])
        return float(np.sqrt(np.mean(errors.astype(np.float64) ** 2)))


def metric_of(config: FactorizeConfig) -> str:
    if config.metric != "auto":
        return config.metric
    return "rmse" if config.solver == "als" else "ndcg@10"


def no_pairs(users: int) -> Csr:
    return Csr(np.zeros(users + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))


def hold_out(matrix: Csr, share: float, seed: int) -> tuple[Csr, Csr]:
    """A random share of the pairs apart from the rest: (train, held). Every user keeps at least one pair."""
    rng = np.random.default_rng(seed)
    held = rng.random(len(matrix.indices)) < share
    lengths = np.diff(matrix.indptr)
    user = np.repeat(np.arange(len(lengths)), lengths)
    bare = (np.bincount(user[held], minlength=len(lengths)) == lengths) & (lengths > 0)
    held[matrix.indptr[:-1][bare]] = False
    return _pairs(matrix, ~held, user), _pairs(matrix, held, user)


def _pairs(matrix: Csr, kept: NDArray[np.bool_], user: NDArray[np.int64]) -> Csr:
    indptr = np.zeros_like(matrix.indptr)
    np.cumsum(np.bincount(user[kept], minlength=len(indptr) - 1), out=indptr[1:])
    return Csr(indptr, matrix.indices[kept], matrix.values[kept])
