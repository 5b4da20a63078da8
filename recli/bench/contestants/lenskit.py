"""LensKit (https://lenskit.org): its data set from a data frame, its implicit and explicit ALS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from lenskit.als import BiasedMFScorer, ImplicitMFScorer
from lenskit.data import ItemList, from_interactions_df
from lenskit.parallel import initialize
from lenskit.training import TrainingOptions

from recli.bench.clock import Clock
from recli.bench.contestants.pandas import read
from recli.bench.problem import Problem
from recli.ids import row_numbers

Work = Callable[..., dict[str, Any]]
SCORERS = {"ials": ImplicitMFScorer, "als": BiasedMFScorer}


def index(problem: Problem) -> Work:
    columns = problem["columns"]
    named = {f"{role}_col": name for role, name in columns.items()}

    def work(clock: Clock) -> dict[str, Any]:
        with clock:
            frame = read(problem["files"], problem["format"], list(columns.values()))
            data = from_interactions_df(frame, **named)
            matrix = data.interactions().matrix().scipy(layout="csr")
        return {"pairs": int(matrix.nnz)}

    return work


def train(problem: Problem) -> Work:
    """As it comes: nothing but the rank and the seed is set."""
    found, (users, items) = problem.csr("train"), problem["shape"]
    frame = pd.DataFrame(
        {
            "user_id": row_numbers(found.indptr).astype(np.int32),
            "item_id": found.indices,
            "rating": found.values,
        }
    )
    data = from_interactions_df(frame, users=np.arange(users), items=np.arange(items))
    fold_in = problem.csr("fold_in") if problem["fold_in"] else None
    initialize(threads=problem.threads, backend_threads=1)

    def work(clock: Clock, save: bool = False) -> dict[str, Any]:
        scorer = SCORERS[problem["solver"]](embedding_size=problem["rank"])
        with clock:
            scorer.train(data, TrainingOptions(rng=problem["seed"]))
        epochs = int(scorer.config.epochs)
        if save:
            problem.deliver(_model(scorer, data, fold_in, users, items))
        return {"iterations": epochs, "seconds_per_iteration": clock.seconds / epochs}

    return work


def _model(scorer: Any, data: Any, fold_in: Any, users: int, items: int) -> dict[str, Any]:
    P = np.zeros((users, scorer.item_embeddings.shape[1]), np.float32)
    Q = np.zeros((items, P.shape[1]), np.float32)
    P[scorer.users.ids()] = scorer.user_embeddings
    Q[scorer.items.ids()] = scorer.item_embeddings
    found = {"P": P, "Q": Q}
    bias = getattr(scorer, "bias", None)
    if bias is not None:
        found["b"] = np.array(bias.global_bias, np.float32)
        found["b_u"], found["b_v"] = np.zeros(users, np.float32), np.zeros(items, np.float32)
        if bias.user_biases is not None:
            found["b_u"][bias.users.ids()] = bias.user_biases
        if bias.item_biases is not None:
            found["b_v"][bias.items.ids()] = bias.item_biases
    if fold_in is not None:
        for user in np.flatnonzero(np.diff(fold_in.indptr)):
            at = slice(fold_in.indptr[user], fold_in.indptr[user + 1])
            history = ItemList(item_ids=fold_in.indices[at], rating=fold_in.values[at])
            row, offset = scorer.new_user_embedding(None, history)
            P[user] = row
            if offset is not None and "b_u" in found:
                found["b_u"][user] = offset
    return found
