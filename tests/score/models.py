"""A small model, its lists as one, and its predictions in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import POPULAR, Factors, Scores
from recli.ids import Csr, Ids
from recli.score import Audience, Catalogue

USERS, ITEMS, RANK = 30, 25, 4
EVERYONE = np.arange(USERS)
WITH_STRANGERS = np.append(EVERYONE, [-1, -1, 3])
ALL = Catalogue()
EVERYBODY = Audience(EVERYONE)


def model(**changes: Any) -> Factors:
    """Random factors, read-only as from a file; user u has u mod 7 items, user 29 all but two; the popularities tie."""
    rng = np.random.default_rng(0)
    lengths = EVERYONE % 7
    lengths[29] = ITEMS - 2
    seen = [np.sort(rng.choice(ITEMS, n, replace=False)) for n in lengths]
    arrays: dict[str, Any] = {
        "P": rng.standard_normal((USERS, RANK)).astype(np.float32),
        "Q": rng.standard_normal((ITEMS, RANK)).astype(np.float32),
        "b_u": np.zeros(USERS, np.float32),
        "b_v": np.zeros(ITEMS, np.float32),
        "b": np.array(0, np.float32),
        "item_counts": np.arange(ITEMS) % 5,
        "seen_indptr": np.append(0, np.cumsum(lengths)),
        "seen_indices": np.concatenate(seen).astype(np.int32),
        **changes,
    }
    for array in arrays.values():
        if array is not None:
            array.flags.writeable = False
    return Factors(**arrays, user_ids=Ids(EVERYONE), item_ids=Ids(np.arange(ITEMS)))


def lists(blocks: Iterator[Scores]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """All blocks as one, after a look at where each starts."""
    parts, at = [], 0
    for block in blocks:
        assert block.start == at
        at += len(block.items)
        parts.append((block.items, block.scores, block.reasons == POPULAR))
    items, scores, popular = (np.concatenate(part) for part in zip(*parts, strict=True))
    return items, scores, popular


def predictions(of: Factors) -> NDArray[np.float64]:
    P, Q, b_u, b_v = (array.astype(float) for array in (of.P, of.Q, of.b_u, of.b_v))
    return P @ Q.T + b_u[:, None] + b_v + float(of.b)


def csr(rows: list[list[int]]) -> Csr:
    """Lists of numbers, without values."""
    indptr = np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64)
    return Csr(indptr, np.array([num for row in rows for num in row], np.int32), np.zeros(0, np.float32))
