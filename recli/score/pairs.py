"""Predictions of given user-item pairs, biases included."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.config import PROCESS_BYTES
from recli.errors import DataError
from recli.kernels.spec import Floats, Kernels
from recli.score.memory import fitting
from recli.score.rescored import Head

BLOCK_PAIRS = 1 << 17
PAIR_BYTES = 400  # a pair on its way from file to file: ids twice, numbers, score, reason
ID_BYTES = 100  # an id of the model, ready to be looked up
WIDTH = 2  # columns that biases may add


def block_pairs(factors: Factors, limit: int | None, *, beside: int) -> int:
    """How many pairs to predict at a time: memory stays below `limit` bytes, if given, with `beside` bytes for reading
    and for ratings. Raises BusyError (75) where that is impossible.
    """
    (users, rank), items = factors.P.shape, len(factors.item_ids)
    fixed = PROCESS_BYTES + beside + (4 * rank + ID_BYTES) * (users + items)
    each = PAIR_BYTES + 4 * 4 * (rank + WIDTH)  # two rows, each once as stored and once with its biases
    return fitting(BLOCK_PAIRS, limit, fixed=fixed, each=each, work="predicting pairs")


def predict(
    factors: Factors,
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    kernels: Kernels,
    head: Head | None = None,
) -> tuple[Floats, NDArray[np.uint8]]:
    """Scores float32[n] of pairs of numbers, -1 for what the model does not know, and numbers of PAIR_REASONS uint8[n].

    Of an unknown user or item, what is left of the model counts: b + b_v, b + b_u, or b alone; a head predicts from
    these and zero rows. Raises DataError where a score overflows float32.
    """
    known_user, known_item = users >= 0, items >= 0
    reasons = np.where(known_user, 0, 1) + np.where(known_item, 0, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        scores = np.full(len(users), factors.b, np.float32)
        scores[known_user] += factors.b_u[users[known_user]]
        scores[known_item] += factors.b_v[items[known_item]]
        both = known_user & known_item
        user_nums, user_at = np.unique(users[both], return_inverse=True)
        item_nums, item_at = np.unique(items[both], return_inverse=True)
        rows = factors.user_rows(user_nums), factors.item_rows(item_nums)
        scores[both] = kernels.score_pairs(*rows, user_at, item_at)
    if head is not None:
        scores = head.scores(users, items)
    if not np.isfinite(scores).all():
        raise DataError("the model's scores overflow float32: factorize with a larger --reg")
    return scores, reasons.astype(np.uint8)
