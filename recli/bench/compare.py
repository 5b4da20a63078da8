"""How two contestants differ, and how sure that is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

RESAMPLES = 2000
BATCH_NUMBERS = 1 << 22  # resampled at a time
CONFIDENCE = 0.95


class Difference(NamedTuple):
    """The mean of theirs minus ours over users, and the ends of its 95% interval."""

    mean: float
    low: float
    high: float


def paired_difference(theirs: NDArray[np.float64], ours: NDArray[np.float64], seed: int) -> Difference:
    """The percentile bootstrap over users: both contestants' values of a user stay together (Efron & Tibshirani 1993,
    "An Introduction to the Bootstrap", section 13.3). float64[n] each, the same users, n >= 1.
    """
    differences = theirs - ours
    mean = float(differences.mean())
    if len(differences) < 2 or not np.ptp(differences):
        return Difference(mean, mean, mean)
    interval = bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_NUMBERS // len(differences)),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Difference(mean, float(interval.low), float(interval.high))
