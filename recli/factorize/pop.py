"""Popularity, the baseline: a model of rank 0 whose item biases are the numbers of users of each item."""

from __future__ import annotations

import numpy as np

from recli.config import FactorizeConfig
from recli.factorize.model import Data, Fit, Watch
from recli.kernels.spec import Kernels


def fit_pop(data: Data, config: FactorizeConfig, kernels: Kernels, watch: Watch) -> Fit:
    counts = np.bincount(data.matrix.indices, minlength=data.items).astype(np.float32)
    P, Q = np.zeros((data.users, 0), np.float32), np.zeros((data.items, 0), np.float32)
    return Fit(P=P, Q=Q, b_v=counts)
