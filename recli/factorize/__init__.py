"""Interactions to a low-rank model: one solver, one file."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors, Interactions
from recli.config import FactorizeConfig
from recli.factorize.als import fit_als
from recli.factorize.compress import compress
from recli.factorize.ials import fit_ials
from recli.factorize.matrix import factorize_matrix
from recli.factorize.model import Data, Fit, OnProgress, Progress, Watch
from recli.factorize.pilot import train_seconds
from recli.factorize.plan import stored_bytes, train_bytes
from recli.factorize.pop import fit_pop
from recli.factorize.svd import fit_svd
from recli.factorize.valid import Validation, metric_of, no_pairs
from recli.ids import Csr
from recli.kernels.spec import Kernels
from recli.least_squares import confidence

__all__ = [
    "Data",
    "Fit",
    "OnProgress",
    "Progress",
    "Validation",
    "Watch",
    "compress",
    "factorize",
    "factorize_matrix",
    "metric_of",
    "no_pairs",
    "stored_bytes",
    "train_bytes",
    "train_seconds",
]

SOLVERS = {"ials": fit_ials, "als": fit_als, "svd": fit_svd, "pop": fit_pop}


def factorize(
    interactions: Interactions,
    config: FactorizeConfig,
    kernels: Kernels,
    watch: Watch | None = None,
    *,
    train: Csr | None = None,
    start: Factors | None = None,
) -> tuple[Factors, Fit]:
    """Fits the model that config describes; every draw comes from config.seed.

    train: the pairs to learn from, if not all; the others are seen all the same. start: a model of the first of these
    users and items, to start from. Raises DataError (negative weights), DivergedError.
    """
    seen, items = interactions.matrix, len(interactions.item_ids)
    watch = watch or Watch()
    data = Data(matrix=train or seen, items=items, weighted=interactions.weighted, start=start)
    fit = SOLVERS[config.solver](data, config, kernels, watch)
    if watch.validate and not fit.scores:  # a solver without iterations
        fit = dataclasses.replace(fit, scores=[watch.validate(fit)])
    provenance = dataclasses.replace(
        interactions.provenance,
        command="factorize",
        config={**interactions.provenance.config, **config.semantic(), **fit.settings},
        device=kernels.name,
    )
    factors = Factors(
        P=fit.P,
        Q=fit.Q,
        b_u=np.zeros(len(fit.P), np.float32) if fit.b_u is None else fit.b_u,
        b_v=np.zeros(items, np.float32) if fit.b_v is None else fit.b_v,
        b=np.array(fit.b, np.float32),
        user_ids=interactions.user_ids,
        item_ids=interactions.item_ids,
        item_counts=np.bincount(seen.indices, minlength=items).astype(np.int64),
        seen_indptr=seen.indptr if config.seen else None,
        seen_indices=seen.indices if config.seen else None,
        seen_values=_learned_values(seen.values, interactions.weighted, config) if config.seen else None,
        provenance=provenance,
    )
    return factors, fit


def _learned_values(values: NDArray[np.float32], weighted: bool, config: FactorizeConfig) -> NDArray[np.float32] | None:
    """What the solver took each pair for, where that is not 1 for all: what explanations need."""
    if config.solver == "pop":
        return None
    learned = confidence(values, weighted, config.alpha) if config.solver == "ials" else values
    return None if (learned == 1).all() else learned
