"""Exact top-K lists of chosen users, block by block, so that memory does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from recli.artifacts import POPULAR, Factors, Scores
from recli.config import PROCESS_BYTES, ScoreConfig
from recli.errors import BusyError, DataError, UsageError
from recli.ids import take_rows
from recli.kernels.spec import Floats, Kernels, Nums
from recli.score.audience import Audience
from recli.score.caps import CANDIDATES, MASK_BYTES, capped_top
from recli.score.catalogue import Catalogue, Ranking

BLOCK_USERS = 1 << 14
BLOCK_ROWS = 1 << 21  # users times k
ROW_BYTES = 64  # a row of a list on its way to a file: heap, number, score, ids
WIDTH = 18  # columns that padding and biases may add
POPULARITY_BYTES = 144  # an item in the ranking by popularity: a padded row, twice for a while, norm and number
LEFT_OUT_BYTES = 64  # an item that a user does not get, while lists of such are merged


def block_users(
    factors: Factors, audience: Audience, catalogue: Catalogue, config: ScoreConfig, limit: int | None
) -> int:
    """How many users to score at a time: memory stays below `limit` bytes, if given. Raises BusyError (75) where that
    is impossible.
    """
    items, caps = len(factors.item_ids), len(catalogue.caps)
    places = config.k * (CANDIDATES + 1 if caps else 1)
    size = max(1, min(BLOCK_USERS, BLOCK_ROWS // places))
    if limit is None:
        return size
    item_bytes = 4 * (factors.Q.shape[1] + WIDTH)
    tables = [table for table in (factors.seen, audience.denied, audience.folded and audience.folded.history) if table]
    fixed = PROCESS_BYTES + factors.P.nbytes + (3 * item_bytes + POPULARITY_BYTES) * items
    fixed += 0 if catalogue.items is None else len(catalogue.items) * item_bytes
    fixed += caps * 4 * items + (MASK_BYTES if caps else 0)
    fixed += sum(len(table.indices) * 4 for table in tables) + (
        0 if audience.folded is None else audience.folded.rows.nbytes
    )
    left_out = sum(len(table.indices) / max(1, len(table.indptr) - 1) for table in tables)
    one_user = math.ceil(ROW_BYTES * places + 8 * caps * places + 2 * item_bytes + LEFT_OUT_BYTES * left_out)
    if fixed + one_user > limit:
        enough = math.ceil((fixed + one_user) / 2**30 * 100) / 100  # rounded up, so that what is said will do
        raise BusyError(f"scoring needs at least {enough:.2f}G: give a larger --memory-limit")
    return int(min(size, (limit - fixed) // one_user))


def recommend(
    factors: Factors,
    audience: Audience,
    catalogue: Catalogue,
    config: ScoreConfig,
    kernels: Kernels,
    block: int = BLOCK_USERS,
) -> Iterator[Scores]:
    """The k best items of the catalogue for each user, best first: higher score, then lower item number. Users without
    a row get the most popular items.

    Raises at once UsageError where k exceeds the model's items, DataError where the model lacks seen lists that are to
    be left out, or where scores would overflow float32.
    """
    if config.k > len(factors.item_ids):
        most = len(factors.item_ids)
        raise UsageError(f"-k {config.k}: the model has {most} items: give at most -k {most}")
    if not config.keep_seen and factors.seen is None:
        raise DataError(
            "the model has no seen lists (factorize --no-seen, or --import without INPUT): give --keep-seen"
        )
    items = factors.item_rows()
    if catalogue.items is not None:
        items = items[catalogue.items]
    _check_range(factors, audience, items, block)
    return _blocks(factors, audience, catalogue, config, _Rankings(factors, catalogue, kernels, items), block)


class _Rankings:
    """The catalogue by score and by popularity, each prepared when it is asked for first."""

    def __init__(self, factors: Factors, catalogue: Catalogue, kernels: Kernels, items: Floats) -> None:
        self._factors, self._numbers, self._kernels, self._items = factors, catalogue.items, kernels, items

    @cached_property
    def by_score(self) -> Ranking:
        return Ranking(self._kernels, self._items, self._numbers, len(self._factors.item_ids))

    @cached_property
    def by_popularity(self) -> Ranking:
        """For users of the row (1)."""
        counts = self._factors.item_counts.astype(np.float32)[:, None]
        counts = counts if self._numbers is None else counts[self._numbers]
        return Ranking(self._kernels, counts, self._numbers, len(self._factors.item_ids))


def _blocks(
    factors: Factors, audience: Audience, catalogue: Catalogue, config: ScoreConfig, rankings: _Rankings, size: int
) -> Iterator[Scores]:
    k, caps = config.k, catalogue.caps
    for start in range(0, len(audience), size):
        users = audience.part(start, start + size)
        out = users.left_out(factors, keep_seen=config.keep_seen)
        shape, reasons = (len(users), k), users.reasons(factors)
        block = Scores(
            start=start, items=np.empty(shape, np.int32), scores=np.empty(shape, np.float32), reasons=reasons
        )
        for at in (np.flatnonzero(reasons != POPULAR), np.flatnonzero(reasons == POPULAR)):
            if not len(at):
                continue
            popular = reasons[at[0]] == POPULAR
            ranking = rankings.by_popularity if popular else rankings.by_score
            rows = np.ones((len(at), 1), np.float32) if popular else users.rows(factors, at)
            theirs = None if out is None else take_rows(out, at)
            found = capped_top(ranking, rows, k, theirs, caps) if caps else ranking.top(rows, k, theirs)
            block.items[at], block.scores[at] = found if popular else _cut(*found, config.min_score)
        yield block


def _cut(items: Nums, scores: Floats, least: float | None) -> tuple[Nums, Floats]:
    """Lists that end where scores fall below the least."""
    if least is None:
        return items, scores
    ended = scores < least
    return np.where(ended, np.int32(-1), items), np.where(ended, np.float32(-np.inf), scores)


def _check_range(factors: Factors, audience: Audience, items: Floats, block: int) -> None:
    """|score| <= |x| |y|: the largest norms bound every score."""
    longest = 0.0
    with np.errstate(over="ignore"):
        for start in range(0, len(audience), block):
            users = audience.part(start, start + block)
            listed = np.flatnonzero(users.reasons(factors) != POPULAR)
            longest = float(np.maximum(longest, _longest(users.rows(factors, listed))))
    if not max(longest, 1) * _longest(items) <= float(np.finfo(np.float32).max) / 4:
        raise DataError("the model's scores overflow float32: factorize with a larger --reg")


def _longest(rows: Floats) -> float:
    return float(np.sqrt(np.einsum("nr,nr->n", rows, rows, dtype=np.float64).max(initial=0)))
