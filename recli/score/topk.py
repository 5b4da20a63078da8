"""Exact top-K lists of chosen users, block by block, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import POPULAR, Factors, Scores
from recli.config import PROCESS_BYTES, ScoreConfig
from recli.errors import DataError, UsageError
from recli.ids import Csr, take_rows
from recli.kernels.spec import Floats, Kernels, Nums
from recli.score.audience import Audience
from recli.score.caps import CAPS_BYTES, CappedRanking
from recli.score.catalogue import Catalogue, Ranking
from recli.score.memory import fitting
from recli.score.prepared import DAMAGED, Prepared, PreparedRanking, popularity
from recli.score.rescored import Head, RescoredRanking, reranked

BLOCK_USERS = 1 << 14
BLOCK_ROWS = 1 << 21  # users times k
ROW_BYTES = 64  # a row of a list on its way to a file: heap, number, score, ids
WIDTH = 18  # columns that padding and biases may add
POPULARITY_BYTES = 144  # an item in the ranking by popularity: a padded row, twice for a while, norm and number
EXPLAINED_BYTES = 40  # a past item of a row: number and part, as arrays, then as columns
LEFT_OUT_BYTES = 64  # an item that a user does not get, while lists of such are merged


def block_users(
    factors: Factors, audience: Audience, catalogue: Catalogue, config: ScoreConfig, limit: int | None
) -> int:
    """How many users to score at a time: memory stays below `limit` bytes, if given. Raises BusyError (75) where that
    is impossible.
    """
    items, caps = len(factors.item_ids), len(catalogue.caps)
    item_bytes = 4 * (factors.Q.shape[1] + WIDTH)
    tables = [table for table in (factors.seen, audience.denied, audience.history) if table]
    left_out = sum(len(table.indices) / max(1, len(table.indptr) - 1) for table in tables)
    return fitting(
        max(1, min(BLOCK_USERS, BLOCK_ROWS // (config.k * max(1, config.explain)))),
        limit,
        fixed=PROCESS_BYTES
        + factors.P.nbytes
        + ((4 if caps else 3) * item_bytes + POPULARITY_BYTES + 4 * caps) * items
        + item_bytes * items // 4  # as bytes, which nominate
        + (CAPS_BYTES if caps else 0)
        + sum(4 * len(table.indices) for table in tables)
        + (0 if audience.folded is None else audience.folded.nbytes)
        + (5 * item_bytes * items if config.explain else 0),  # once in float32, twice in float64
        each=(ROW_BYTES + EXPLAINED_BYTES * config.explain) * config.k + 2 * item_bytes + LEFT_OUT_BYTES * left_out,
        work="scoring",
    )


def recommend(
    factors: Factors,
    audience: Audience,
    catalogue: Catalogue,
    config: ScoreConfig,
    kernels: Kernels,
    block: int = BLOCK_USERS,
) -> Iterator[Scores]:
    """The lists of one audience: see Recommender."""
    return Recommender(factors, catalogue, config, kernels).lists(audience, block)


class Recommender:
    """The k best items of the catalogue for each user, best first: higher score, then lower item number. Users without
    a row get the most popular items. What is prepared of the items serves any number of audiences.

    Raises UsageError where k exceeds the model's items.
    """

    def __init__(
        self,
        factors: Factors,
        catalogue: Catalogue,
        config: ScoreConfig,
        kernels: Kernels,
        prepared: Prepared | None = None,
        head: Head | None = None,
    ) -> None:
        if config.k > len(factors.item_ids):
            most = len(factors.item_ids)
            raise UsageError(f"-k {config.k}: the model has {most} items: give at most -k {most}")
        self._factors, self._catalogue, self._config, self._kernels = factors, catalogue, config, kernels
        self._numbers = slice(None) if catalogue.items is None else catalogue.items
        self._prepared, self._head = prepared, head
        self._popular: dict[int, Ranking | CappedRanking] = {}

    def lists(self, audience: Audience, block: int = BLOCK_USERS) -> Iterator[Scores]:
        """Blocks of lists, in the order of the audience. Raises at once DataError where scores would overflow, or the
        model lacks seen lists that are to be left out.
        """
        if not self._config.keep_seen and self._factors.seen is None and (audience.nums >= 0).any():
            raise DataError(
                "the model has no seen lists (factorize --no-seen, or --import without INPUT): give --keep-seen"
            )
        self._check_range(audience, block)
        return (self._lists(audience, start, start + block) for start in range(0, len(audience), block))

    def _lists(self, audience: Audience, start: int, end: int) -> Scores:
        users, config = audience.part(start, end), self._config
        out = users.left_out(self._factors, keep_seen=config.keep_seen)
        reasons = users.reasons(self._factors)
        items, scores = np.empty((len(users), config.k), np.int32), np.empty((len(users), config.k), np.float32)
        for popular in (False, True):
            at = np.flatnonzero((reasons == POPULAR) == popular)
            if not len(at):
                continue
            theirs = None if out is None else take_rows(out, at)
            if popular:
                ranking = self._by_popularity(theirs)
                items[at], scores[at] = ranking.top(np.ones((len(at), 1), np.float32), config.k, theirs)
            else:
                found = self._best(users, at, theirs)
                items[at], scores[at] = _cut(*found, config.min_score)
        return Scores(start=start, items=items, scores=scores, reasons=reasons)

    def _best(self, users: Audience, at: NDArray[np.intp], out: Csr | None) -> tuple[Nums, Floats]:
        rows, k = users.rows(self._factors, at), self._config.k
        if self._head is None:
            return self._by_score.top(rows, k, out)
        return reranked(self._by_score, self._head, users.nums[at], rows, k, out, len(self._factors.item_ids))

    @cached_property
    def _items(self) -> Floats:
        return self._factors.item_rows(self._numbers)

    @cached_property
    def _by_score(self) -> Ranking | CappedRanking | PreparedRanking | RescoredRanking:
        if self._prepared is not None and self._catalogue.items is None and not self._catalogue.caps:
            return PreparedRanking(self._kernels, self._prepared)
        if self._factors.Q_rows is not None and not self._catalogue.caps:
            nominating = self._ranking(self._factors.nominating_rows(self._numbers), self._catalogue.items)
            return RescoredRanking(self._kernels, self._factors, nominating)
        return self._ranking(self._items, self._catalogue.items)

    def _by_popularity(self, out: Csr | None) -> Ranking | CappedRanking:
        """The most popular items, for users of the row (1) and without what is `out`: as many as lists can reach."""
        reach = len(self._popularity)
        if not self._catalogue.caps:
            reach = min(reach, self._config.k + (0 if out is None else int(np.diff(out.indptr).max())))
        if reach not in self._popular:
            numbers = np.sort(self._popularity[:reach])
            if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < len(self._factors.item_ids):
                raise DataError(DAMAGED)
            counts = self._factors.item_counts[numbers].astype(np.float32)[:, None]
            self._popular = {reach: self._ranking(counts, numbers)}
        return self._popular[reach]

    @cached_property
    def _popularity(self) -> Nums:
        """The catalogue, most popular items first."""
        order = popularity(self._factors) if self._prepared is None else self._prepared.by_popularity
        if self._catalogue.items is None:
            return order
        allowed = np.zeros(len(order), bool)
        allowed[self._catalogue.items] = True
        return order[allowed[order]]

    def _ranking(self, rows: Floats, numbers: Nums | None) -> Ranking | CappedRanking:
        ranking = Ranking(self._kernels, rows, numbers, len(self._factors.item_ids))
        return CappedRanking(ranking, self._catalogue.caps) if self._catalogue.caps else ranking

    @property
    def _longest_item(self) -> float:
        if self._prepared is not None and len(self._prepared.norms):
            return float(self._prepared.norms[0])
        return _longest(self._items)

    def _check_range(self, audience: Audience, block: int) -> None:
        """|score| <= |x| |y|: the largest norms bound every score."""
        longest = 1.0
        with np.errstate(over="ignore"):
            for start in range(0, len(audience), block):
                users = audience.part(start, start + block)
                listed = np.flatnonzero(users.reasons(self._factors) != POPULAR)
                longest = float(np.maximum(longest, _longest(users.rows(self._factors, listed))))
        if np.isnan(longest):  # of a model read with an index, which nobody has looked at yet
            raise DataError("array P: expected finite numbers, found NaN or infinity")
        if not longest * self._longest_item <= float(np.finfo(np.float32).max) / 4:
            raise DataError("the model's scores overflow float32: factorize with a larger --reg")


def _longest(rows: Floats) -> float:
    return float(np.sqrt(np.einsum("nr,nr->n", rows, rows, dtype=np.float64).max(initial=0)))


def _cut(items: Nums, scores: Floats, least: float | None) -> tuple[Nums, Floats]:
    """Lists that end where scores fall below the least."""
    if least is None:
        return items, scores
    ended = scores < least
    return np.where(ended, np.int32(-1), items), np.where(ended, np.float32(-np.inf), scores)
