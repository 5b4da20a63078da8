"""What the settings and the base ask for: closed or gradient, which loss, how many negatives, what is learned."""

from __future__ import annotations

import numpy as np

from recli.artifacts import Factors
from recli.config import FinetuneConfig
from recli.errors import DataError, UsageError
from recli.finetune.closed import usable
from recli.finetune.levels import has_levels
from recli.finetune.losses import NEGATIVES
from recli.ids import Csr
from recli.kernels.spec import Floats
from recli.least_squares import confidence
from recli.score.row_problem import Settings, settings_of

CLOSED = ("bias", "rows", "lora", "features")  # adapters that have a closed form
RATERS = ("als",)  # solvers whose scores are ratings


def learned_values(factors: Factors, matrix: Csr, *, weighted: bool) -> Floats:
    """The values of new pairs as the base's solver takes them. Raises DataError for those that it cannot take."""
    settings = _said(factors)
    if settings is None or settings.solver != "ials":
        return matrix.values
    return confidence(matrix.values, weighted, settings.alpha)


def _said(factors: Factors) -> Settings | None:
    """How the base came about, where that is known."""
    try:
        return settings_of(factors.provenance.config)
    except DataError:
        return None


def settings_or_none(factors: Factors) -> Settings | None:
    """How the base came about, where that is known and has a closed form."""
    settings = _said(factors)
    return settings if settings is not None and usable(settings) and factors.P.shape[1] else None


def fit_of(config: FinetuneConfig, factors: Factors) -> str:
    """closed or gradient. Raises UsageError where there is no closed form."""
    settings = settings_or_none(factors)
    has = settings is not None and (config.adapter != "bias" or has_levels(settings))
    has = has or config.adapter == "features"
    if config.fit == "closed" and config.adapter not in CLOSED:
        raise UsageError(f"--fit closed: --adapter {config.adapter} has no closed form, {', '.join(CLOSED)} have")
    if config.fit == "closed" and not has:
        solver = factors.provenance.config.get("solver")
        raise UsageError(
            f"--fit closed: the base ({solver}) does not say which least squares its {_solved(config)} solve: give "
            "--fit gradient"
        )
    return "closed" if config.fit != "gradient" and has and config.adapter in CLOSED else "gradient"


def _solved(config: FinetuneConfig) -> str:
    return "biases" if config.adapter == "bias" else "rows"


def predicts_ratings(factors: Factors) -> bool:
    return factors.provenance.config.get("solver") in RATERS


def loss_of(config: FinetuneConfig, factors: Factors) -> str:
    if config.loss != "auto":
        return config.loss
    if config.adapter == "head":
        return "logistic"
    return "squared" if predicts_ratings(factors) else "softmax"


def negatives_of(config: FinetuneConfig, factors: Factors) -> int:
    """How many a pair."""
    if config.negatives is not None:
        return config.negatives
    loss = loss_of(config, factors)
    return 4 if loss == "squared" and not predicts_ratings(factors) else NEGATIVES[loss]


def check_rank(rank: int, config: FinetuneConfig) -> None:
    """Raises DataError where the base has no rows to adapt, UsageError for a rank above its own."""
    if not rank and config.adapter not in ("bias",):
        raise DataError("the model has rank 0 (solver pop): there are no rows to adapt, but --adapter bias can")
    if config.adapter in ("lora", "bilinear") and config.trainable is None and config.rank > rank:
        raise UsageError(f"--rank {config.rank}: the model has rank {rank}: give at most that")


def targets_of(values: Floats, loss: str, negatives: int, factors: Factors) -> Floats:
    """What pairs are learned as: labels 0 and 1 where negatives are given, 1 where they are drawn, else the ratings."""
    if loss == "logistic":
        return np.ones_like(values) if negatives else (values > 0).astype(np.float32)
    rated = predicts_ratings(factors) or not negatives
    return values if loss == "squared" and rated else np.ones_like(values)


def check_labels(labels: Floats) -> None:
    if len(labels) and labels.min() == labels.max():
        raise DataError(
            f"all {len(labels)} labels are {labels[0]:g}: there is nothing to tell apart: give --negatives, or data "
            "with values of 0 and 1"
        )
