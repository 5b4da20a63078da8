"""Lists with caps: walking down a user's ranking, an item is skipped if a group of its own is full.

With one cap that gives the list of the highest scores within the cap: its groups are a partition matroid, for which
greed is optimal (Edmonds 1971, "Matroids and the greedy algorithm"). With several, the walk is the definition.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from recli.ids import Csr, row_numbers, slice_rows, take_rows
from recli.kernels.spec import Floats, Nums
from recli.score.catalogue import Cap, Ranking

CANDIDATES = 4  # how much further than without other caps to look at once
PARTS = 256  # at most so many groups are ranked apart and merged
MERGED = 64  # times k: and at most so many items of all together; else they are looked for on walks
ENTRIES = 1 << 19  # users times items looked at: at a time
MASK_ENTRIES = 1 << 22  # users times items of the model: what later looks exclude, at a time
CAPS_BYTES = 96 * ENTRIES + 10 * MASK_ENTRIES


class CappedRanking:
    """A ranking with caps, at least one; `top` as Ranking's."""

    def __init__(self, ranking: Ranking, caps: tuple[Cap, ...]) -> None:
        self._ranking, self._caps, self._count = ranking, caps, len(caps[0].groups)
        self._lead = min(caps, key=lambda cap: cap.count)

    def top(self, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        depth = self._lead.most * (CANDIDATES if len(self._caps) > 1 else 1)
        merged = self._lead.count * depth + k
        merges = self._lead.count <= PARTS and merged <= MERGED * k
        at_once = max(1, ENTRIES // (merged if merges else (CANDIDATES + 1) * k))
        lists = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
        for start in range(0, len(users), at_once):
            end = min(start + at_once, len(users))
            out = None if excluded is None else slice_rows(excluded, start, end)
            found = self._merge(users[start:end], k, out, depth) if merges else self._walk(users[start:end], k, out)
            for whole, part in zip(lists, found, strict=True):
                whole[start:end] = part
        return lists

    @cached_property
    def _parts(self) -> dict[int, Ranking]:
        return self._ranking.split(self._lead.groups)

    def _merge(self, users: Floats, k: int, excluded: Csr | None, depth: int) -> tuple[Nums, Floats]:
        """Walks down the best of each of the lead cap's groups, `depth` or more of them, merged.

        That is the whole ranking's walk, unless it ends, before the list is full, past what was merged of a group that
        is not full and goes on: then what is merged is doubled. With one cap, as many of a group as a list may have are
        always enough.
        """
        pools = [
            (group, part.top(users, min(max(depth, k) if group < 0 else depth, len(part) + 1), excluded))
            for group, part in self._parts.items()
        ]
        found, scores = (np.hstack(arrays) for arrays in zip(*(pool for _, pool in pools), strict=True))
        order = np.lexsort((found, -scores), axis=1)
        found, scores = (np.take_along_axis(array, order, axis=1) for array in (found, scores))
        items, best = _take(found, scores, k, self._caps)
        taken = np.where(items < 0, -2, self._lead.groups[items])
        unsure = np.zeros(len(users), bool)
        for group, (last, last_score) in pools:
            last, last_score = last[:, -1], last_score[:, -1]
            past = (best[:, -1] < last_score) | ((best[:, -1] == last_score) & (items[:, -1] > last))
            open_ = (group < 0) | ((taken == group).sum(axis=1) < self._lead.most)
            unsure |= open_ & past & (last >= 0)
        again = np.flatnonzero(unsure)
        half = max(1, len(again) // 2)  # twice as deep for at most half as many at once
        for some in (again[:half], again[half:]):
            if len(some):
                out = None if excluded is None else take_rows(excluded, some)
                items[some], best[some] = self._merge(users[some], k, out, 2 * depth)
        return items, best

    def _walk(self, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        """Walks down the ranking CANDIDATES k items at a time. Where a list is not full then, the next look leaves out
        all items of full groups, which the walk would skip: so each look fills the list, or one more group, or finds
        the end of the ranking.
        """
        step = min(CANDIDATES * k, self._count)
        found, scores = self._ranking.top(users, step, excluded)
        items, best = _take(found, scores, k, self._caps)
        waiting = np.flatnonzero((items[:, -1] < 0) & (found[:, -1] >= 0))
        at_once = max(1, MASK_ENTRIES // self._count)
        while len(waiting):
            later = []
            for start in range(0, len(waiting), at_once):
                some = waiting[start : start + at_once]
                out = _left_out(items[some], None if excluded is None else take_rows(excluded, some), self._caps)
                found, scores = self._ranking.top(users[some], step, out)
                more = np.hstack([items[some], found]), np.hstack([best[some], scores])
                items[some], best[some] = _take(*more, k, self._caps)
                later.append(some[(items[some, -1] < 0) & (found[:, -1] >= 0)])
            waiting = np.concatenate(later)
        return items, best


def _take(found: Nums, scores: Floats, k: int, caps: tuple[Cap, ...]) -> tuple[Nums, Floats]:
    """The first k items of each row of found int32[n, width] (-1: none) that the caps let through, and their scores."""
    n, width = found.shape
    rows, length = np.arange(n), np.zeros(n, np.int32)
    taken = np.zeros((n, width), bool)
    groups = [_numbered(np.where(found < 0, np.int32(-1), cap.groups[found])) for cap in caps]
    counts = [np.zeros((n, width + 1), np.int32) for _ in caps]  # the last column: items in no group, number -1
    for place in range(width):
        take = (found[:, place] >= 0) & (length < k)
        for cap, group, count in zip(caps, groups, counts, strict=True):
            take &= (group[:, place] < 0) | (count[rows, group[:, place]] < cap.most)
        for group, count in zip(groups, counts, strict=True):
            count[rows, group[:, place]] += take
        taken[:, place] = take
        length += take
        if (length == k).all():
            break
    items, best = np.full((n, k), -1, np.int32), np.full((n, k), -np.inf, np.float32)
    row, column = np.nonzero(taken)
    at = (np.cumsum(taken, axis=1) - 1)[row, column]
    items[row, at], best[row, at] = found[row, column], scores[row, column]
    return items, best


def _numbered(groups: Nums) -> Nums:
    """Groups int32[n, width], -1 for none, under numbers below width that tell those of one row apart."""
    if groups.max(initial=-1) < groups.shape[1]:
        return groups
    order = np.argsort(groups, axis=1, kind="stable")
    ascending = np.take_along_axis(groups, order, axis=1)
    steps = np.zeros(groups.shape, np.int32)
    np.cumsum(ascending[:, 1:] != ascending[:, :-1], axis=1, out=steps[:, 1:])
    numbers = np.empty_like(groups)
    np.put_along_axis(numbers, order, steps, axis=1)
    return np.where(groups < 0, np.int32(-1), numbers)


def _left_out(items: Nums, excluded: Csr | None, caps: tuple[Cap, ...]) -> Csr:
    """What is excluded, in the lists items int32[n, k] already, or in a group that is full there."""
    n, count = len(items), len(caps[0].groups)
    out = np.zeros((n, count), bool)
    row, column = np.nonzero(items >= 0)
    out[row, items[row, column]] = True
    if excluded is not None:
        out[row_numbers(excluded.indptr), excluded.indices] = True
    for cap in caps:
        sizes = np.zeros((n, cap.count + 1), np.int64)  # the last column: items in no group, number -1
        np.add.at(sizes, (row, cap.groups[items[row, column]]), 1)
        sizes[:, -1] = 0
        out |= (sizes >= cap.most)[:, cap.groups]
    lists = [np.flatnonzero(one).astype(np.int32) for one in out]
    indptr = np.append(0, np.cumsum([len(one) for one in lists]))
    return Csr(indptr, np.concatenate(lists), np.zeros(0, np.float32))
