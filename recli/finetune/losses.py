"""What training minimises. Each loss takes the scores of pairs and of their negatives, [n, 1 + m], the pair's first,
and gives its mean over the n pairs and the derivative of that by each score.

`kept` says which of the negatives count: bool[n, 1 + m]; a negative that the user has is none.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


class Batch(NamedTuple):
    """scores: float64[n, 1 + m]; targets: float64[n], of the pairs themselves (ratings, labels 0 or 1); kept: see
    above; log_odds: float64[n, 1 + m], the logarithm of how often each item is drawn.
    """

    scores: Doubles
    targets: Doubles
    kept: NDArray[np.bool_]
    log_odds: Doubles


class Loss(Protocol):
    def __call__(self, batch: Batch) -> tuple[float, Doubles]: ...


def squared(batch: Batch) -> tuple[float, Doubles]:
    """(score - target)^2, the target of negatives being 0."""
    errors = np.where(batch.kept, batch.scores, 0)
    errors[:, 0] -= batch.targets
    n = len(errors)
    return float((errors**2).sum() / n), 2 * errors / n


def logistic(batch: Batch) -> tuple[float, Doubles]:
    """Cross-entropy of sigmoid(score) and the label: the target for the pair, 0 for negatives."""
    labels = np.zeros_like(batch.scores)
    labels[:, 0] = batch.targets
    n = len(labels)
    values = np.where(batch.kept, np.logaddexp(0, batch.scores) - labels * batch.scores, 0)
    return float(values.sum() / n), np.where(batch.kept, sigmoid(batch.scores) - labels, 0) / n


def bpr(batch: Batch) -> tuple[float, Doubles]:
    """-log sigmoid(score - score of a negative), mean over the negatives (Rendle et al. 2009, "BPR", eq. 3)."""
    gaps = batch.scores[:, :1] - batch.scores[:, 1:]
    kept = batch.kept[:, 1:]
    share = kept / np.maximum(kept.sum(axis=1, keepdims=True), 1) / len(gaps)
    slopes = np.empty_like(batch.scores)
    slopes[:, 1:] = sigmoid(-gaps) * share
    slopes[:, 0] = -slopes[:, 1:].sum(axis=1)
    return float((np.logaddexp(0, -gaps) * share).sum()), slopes


def softmax(batch: Batch) -> tuple[float, Doubles]:
    """-log softmax of the pair among itself and its negatives, each score less the logarithm of how often its item is
    drawn (Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling", eq. 3).
    """
    logits = np.where(batch.kept, batch.scores - batch.log_odds, -np.inf)
    logits -= logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits)
    totals = exponentials.sum(axis=1, keepdims=True)
    slopes = exponentials / totals
    value = float((np.log(totals[:, 0]) - logits[:, 0]).mean())
    slopes[:, 0] -= 1
    return value, slopes / len(slopes)


def sigmoid(x: Doubles) -> Doubles:
    """1 / (1 + e^-x) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), np.float64)


LOSSES: dict[str, Loss] = {"squared": squared, "logistic": logistic, "bpr": bpr, "softmax": softmax}
NEGATIVES = {"squared": 0, "logistic": 4, "bpr": 4, "softmax": 16}  # a pair, where none are given
