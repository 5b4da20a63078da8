"""Exact top-K lists of chosen users, block by block, so that memory does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import MODEL, POPULAR, Factors, Scores
from recli.config import PROCESS_BYTES, ScoreConfig
from recli.errors import BusyError, DataError, UsageError
from recli.ids import Csr, take_rows
from recli.kernels.spec import Kernels

BLOCK_USERS = 1 << 14
BLOCK_ROWS = 1 << 21  # users times k
ROW_BYTES = 64  # a row of a list on its way to a file: heap, number, score, ids
WIDTH = 18  # columns that padding and biases may add


def block_users(factors: Factors, config: ScoreConfig, limit: int | None) -> int:
    """How many users to score at a time: memory stays below `limit` bytes, if given. Raises BusyError (75) where that
    is impossible.
    """
    size = max(1, min(BLOCK_USERS, BLOCK_ROWS // config.k))
    if limit is None:
        return size
    item_bytes = 4 * (factors.Q.shape[1] + WIDTH)
    fixed = PROCESS_BYTES + factors.P.nbytes + 3 * item_bytes * len(factors.Q)
    one_user = ROW_BYTES * config.k + 2 * item_bytes
    if fixed + one_user > limit:
        enough = math.ceil((fixed + one_user) / 2**30 * 100) / 100  # rounded up, so that what is said will do
        raise BusyError(f"scoring needs at least {enough:.2f}G: give a larger --memory-limit")
    return int(min(size, (limit - fixed) // one_user))


def recommend(
    factors: Factors, users: NDArray[np.int64], config: ScoreConfig, kernels: Kernels, block: int = BLOCK_USERS
) -> Iterator[Scores]:
    """The k best items of each user, best first: higher score, then lower item number. users: numbers, -1 for unknown
    ones.

    Raises at once UsageError where k exceeds the catalogue, DataError where the model lacks seen lists that are to be
    left out, or where scores would overflow float32.
    """
    k, items = config.k, factors.item_rows()
    if k > len(items):
        raise UsageError(f"-k {k}: the model has {len(items)} items: give at most -k {len(items)}")
    if not config.keep_seen and factors.seen is None:
        raise DataError("the model has no seen lists (factorize --no-seen): give --keep-seen")
    _check_range(factors, items)
    return _blocks(factors, users, k, None if config.keep_seen else factors.seen, kernels, items, block)


def _blocks(
    factors: Factors,
    users: NDArray[np.int64],
    k: int,
    seen: Csr | None,
    kernels: Kernels,
    items: NDArray[np.float32],
    size: int,
) -> Iterator[Scores]:
    index = kernels.index_items(items)
    by_popularity = np.argsort(-factors.item_counts, kind="stable")[:k].astype(np.int32)
    popularity = factors.item_counts[by_popularity].astype(np.float32)
    for start in range(0, len(users), size):
        nums = users[start : start + size]
        popular = nums < 0
        known = nums[~popular]
        block = Scores(
            start=start,
            items=np.repeat(by_popularity[None], len(nums), axis=0),
            scores=np.repeat(popularity[None], len(nums), axis=0),
            reasons=np.where(popular, POPULAR, MODEL).astype(np.uint8),
        )
        if len(known):
            excluded = take_rows(seen, known) if seen else None
            found = kernels.topk(index, factors.user_rows(known), k, excluded)
            block.items[~popular], block.scores[~popular] = found
        yield block


def _check_range(factors: Factors, items: NDArray[np.float32]) -> None:
    """|score| <= |x| |y|: the largest norms bound every score."""
    longest_item = float(np.sqrt(np.einsum("ir,ir->i", items, items, dtype=np.float64).max(initial=0)))
    longest_user = float(np.sqrt(np.einsum("ur,ur->u", factors.P, factors.P, dtype=np.float64).max(initial=0)))
    level = float(np.abs(factors.b_u).max(initial=0)) + abs(float(factors.b)) + 1
    if (longest_user + level) * longest_item > float(np.finfo(np.float32).max) / 4:
        raise DataError("the model's scores overflow float32: factorize with a larger --reg")
