"""Interactions to a low-rank model: one solver, one file."""

from __future__ import annotations

import dataclasses

import numpy as np

from recli.artifacts import Factors, Interactions
from recli.config import FactorizeConfig
from recli.factorize.ials import fit_ials
from recli.factorize.model import Fit, OnProgress, Progress
from recli.factorize.plan import Plan, estimate
from recli.factorize.pop import fit_pop
from recli.kernels.spec import Kernels

__all__ = ["Fit", "OnProgress", "Plan", "Progress", "estimate", "factorize"]

SOLVERS = {"ials": fit_ials, "pop": fit_pop}


def factorize(
    interactions: Interactions,
    config: FactorizeConfig,
    kernels: Kernels,
    on_progress: OnProgress = lambda progress: None,
) -> tuple[Factors, Fit]:
    """Fits the model that config describes; every draw comes from config.seed.

    Raises DataError (negative weights), DivergedError.
    """
    matrix, items = interactions.matrix, len(interactions.item_ids)
    fit = SOLVERS[config.solver](matrix, items, interactions.weighted, config, kernels, on_progress)
    provenance = dataclasses.replace(
        interactions.provenance,
        command="factorize",
        config={**interactions.provenance.config, **config.semantic(), **fit.settings},
        device=kernels.name,
    )
    factors = Factors(
        P=fit.P,
        Q=fit.Q,
        b_u=np.zeros(len(fit.P), np.float32),
        b_v=fit.b_v,
        b=np.array(0, np.float32),
        user_ids=interactions.user_ids,
        item_ids=interactions.item_ids,
        item_counts=np.bincount(matrix.indices, minlength=items).astype(np.int64),
        seen_indptr=matrix.indptr if config.seen else None,
        seen_indices=matrix.indices if config.seen else None,
        provenance=provenance,
    )
    return factors, fit
