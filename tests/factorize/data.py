"""Small interactions for the solvers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Interactions
from recli.ids import Csr, Ids


def interactions(dense: NDArray[np.floating], *, weighted: bool = False) -> Interactions:
    """Stored where not NaN."""
    there = ~np.isnan(dense)
    indptr = np.append(0, np.cumsum(there.sum(axis=1))).astype(np.int64)
    matrix = Csr(indptr, np.nonzero(there)[1].astype(np.int32), dense[there].astype(np.float32))
    users, items = dense.shape
    return Interactions(
        matrix=matrix, user_ids=Ids(np.arange(users)), item_ids=Ids(np.arange(items)), weighted=weighted
    )


def planted(users: int = 60, items: int = 40, rank: int = 3, each: int = 9, seed: int = 0) -> NDArray[np.floating]:
    """Everybody's best items by hidden tastes, rated 1 to 5; NaN elsewhere. One user has nothing but one item."""
    rng = np.random.default_rng(seed)
    liking = rng.standard_normal((users, rank)) @ rng.standard_normal((rank, items))
    dense = np.full((users, items), np.nan)
    best = np.argsort(-liking, axis=1)[:, :each]
    np.put_along_axis(dense, best, rng.integers(1, 6, best.shape).astype(float), axis=1)
    dense[0] = np.nan
    dense[0, 3] = 4
    return dense
