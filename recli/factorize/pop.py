"""Popularity, the baseline: a model of rank 0 whose item biases are the numbers of users of each item."""

from __future__ import annotations

import numpy as np

from recli.config import FactorizeConfig
from recli.factorize.model import Fit, OnProgress
from recli.ids import Csr
from recli.kernels.spec import Kernels


def fit_pop(
    matrix: Csr, items: int, weighted: bool, config: FactorizeConfig, kernels: Kernels, on_progress: OnProgress
) -> Fit:
    counts = np.bincount(matrix.indices, minlength=items).astype(np.float32)
    return Fit(P=np.zeros((len(matrix.indptr) - 1, 0), np.float32), Q=np.zeros((items, 0), np.float32), b_v=counts)
