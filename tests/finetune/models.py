"""Fitted models, new pairs for them, and what an adapter is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors, Provenance
from recli.checks import Arrays
from recli.config import FactorizeConfig, FinetuneConfig
from recli.factorize import factorize
from recli.finetune import Adapter, NewData, Outcome, Task, finetune
from recli.finetune.features import Attributes
from recli.finetune.head import logits
from recli.finetune.losses import sigmoid
from recli.ids import Csr, Ids
from recli.kernels.spec import Floats, Kernels
from tests.factorize.data import interactions, planted

USERS, ITEMS, RANK = 60, 40, 5
NEW_USERS, NEW_ITEMS = 3, 2
SETTINGS: dict[str, dict[str, Any]] = {
    "rendle": {"solver": "ials"},
    "rendle, weights, nu": {"solver": "ials", "weighted": True, "alpha0": 0.05, "nu": 0.5},
    "rendle, nothing unobserved": {"solver": "ials", "alpha0": 0.0, "reg": 0.3},
    "hu": {"solver": "ials", "loss": "hu", "alpha": 1.5},
    "als": {"solver": "als"},
    "svd, bias": {"solver": "svd", "normalize": "bias"},
}
CHAIN = ("base",)


def fitted(kernels: Kernels, weighted: bool = False, **settings: Any) -> Factors:
    """60 users, 40 items; user 0 has one item, the others nine."""
    config = FactorizeConfig(**{"rank": RANK, "iterations": 4, **settings})
    return factorize(interactions(planted(), weighted=weighted), config, kernels)[0]


def csr(pairs: Mapping[int, Mapping[int, float]], users: int) -> Csr:
    """user -> item -> value."""
    rows = [sorted(pairs.get(user, {}).items()) for user in range(users)]
    flat = [entry for row in rows for entry in row]
    return Csr(
        np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64),
        np.array([item for item, _ in flat], np.int32),
        np.array([value for _, value in flat], np.float32),
    )


def dense(matrix: Csr, items: int) -> NDArray[np.float64]:
    """NaN where nothing is stored."""
    found = np.full((len(matrix.indptr) - 1, items), np.nan)
    for user in range(len(found)):
        entries = slice(matrix.indptr[user], matrix.indptr[user + 1])
        found[user, matrix.indices[entries]] = matrix.values[entries]
    return found


def sparse(values: NDArray[np.float64]) -> Csr:
    """The inverse of `dense`."""
    there = ~np.isnan(values)
    indptr = np.append(0, np.cumsum(there.sum(axis=1)))
    return Csr(indptr, np.nonzero(there)[1].astype(np.int32), values[there].astype(np.float32))


def new_data(
    seed: int = 0, new: tuple[int, int] = (NEW_USERS, NEW_ITEMS), each: int = 4, ones: bool = False
) -> NewData:
    """A third of the users, and all new ones, have new pairs; every new item has some. With ones, or values to 5."""
    rng = np.random.default_rng(seed)
    users, items = USERS + new[0], ITEMS + new[1]
    pairs: dict[int, dict[int, float]] = {}
    for user in (*range(0, USERS, 3), *range(USERS, users)):
        chosen = rng.choice(items, each, replace=False)
        pairs[user] = {int(item): 1.0 if ones else float(rng.integers(1, 6)) for item in chosen}
    for item in range(ITEMS, items):
        pairs[3 * (item - ITEMS)][item] = pairs[3 * (item - ITEMS) + 3][item] = 1.0 if ones else 3.0
    matrix = csr(pairs, users)
    return NewData(matrix, matrix, users, items)


def task_of(factors: Factors, data: NewData, features: Mapping[str, Attributes] | None = None) -> Task:
    return Task(
        factors=factors,
        data=data,
        user_ids=Ids(np.arange(data.users)),
        item_ids=Ids(np.arange(data.items)),
        chain=CHAIN,
        provenance=Provenance(inputs=["new"]),
        features=features or {},
    )


def tuned(
    factors: Factors,
    data: NewData,
    kernels: Kernels,
    features: Mapping[str, Attributes] | None = None,
    **settings: Any,
) -> tuple[Adapter, Outcome]:
    return finetune(task_of(factors, data, features), FinetuneConfig(**settings), kernels)


def predictions(of: Factors) -> NDArray[np.float64]:
    P, Q, b_u, b_v = (np.asarray(array[:], np.float64) for array in (of.P, of.Q, of.b_u, of.b_v))
    return np.asarray(P @ Q.T + b_u[:, None] + b_v + float(of.b), np.float64)


def probabilities(p: Floats, q: Floats, biases: Floats, arrays: Arrays) -> Floats:
    """What a stored head says of pairs of rows."""
    return sigmoid(logits(p, q, biases, arrays).astype(np.float64)).astype(np.float32)
