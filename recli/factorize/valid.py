"""Validation during training: pairs held out, and the metric on them that decides which iteration is kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.config import FactorizeConfig
from recli.factorize.model import Fit
from recli.ids import Csr, row_numbers, take_rows
from recli.kernels.spec import Floats, Kernels
from recli.metrics import RatingErrors, Truth, per_user

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
        users, train, truth = self._judged
        index = self.kernels.index_items(np.ascontiguousarray(Q))
        items, _ = self.kernels.topk(index, np.ascontiguousarray(P[users]), min(int(k), len(Q)), train)
        return float(per_user(items, truth)[name].mean())

    @cached_property
    def _judged(self) -> tuple[NDArray[np.int64], Csr, Truth]:
        """Users with something held out, or a sample of them; what they have, and what they should get."""
        users = np.flatnonzero(np.diff(self.held.indptr))
        if len(users) > MOST_USERS:
            users = np.sort(np.random.default_rng(self.seed).choice(users, MOST_USERS, replace=False))
        truth = take_rows(self.held, users)
        return users, take_rows(self.train, users), Truth(truth, np.diff(truth.indptr))

    def _rmse(self, P: Floats, Q: Floats) -> float:
        users, items = row_numbers(self.held.indptr), self.held.indices.astype(np.int64)
        errors = RatingErrors()
        errors.add(self.kernels.score_pairs(P, np.ascontiguousarray(Q), users, items), self.held.values)
        return errors.result()["rmse"]


def metric_of(config: FactorizeConfig) -> str:
    if config.metric != "auto":
        return config.metric
    return "rmse" if config.solver == "als" else "ndcg@10"


def no_pairs(users: int) -> Csr:
    return Csr(np.zeros(users + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
