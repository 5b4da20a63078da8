"""Lists with caps: walking down a user's ranking, an item is skipped if a group of its own is full."""

from __future__ import annotations

import numpy as np

from recli.ids import Csr, take_rows
from recli.kernels.spec import Floats, Nums
from recli.score.catalogue import Cap, Ranking

CANDIDATES = 4  # times k: how far down a ranking to look at once
MASK_ENTRIES = 1 << 22  # users times items: what the later looks exclude, at a time
MASK_BYTES = 10 * MASK_ENTRIES


def capped_top(
    ranking: Ranking, users: Floats, k: int, excluded: Csr | None, caps: tuple[Cap, ...]
) -> tuple[Nums, Floats]:
    """The k items of each user that a walk down the whole ranking takes, as `Ranking.top` gives them.

    With one cap that is the list of the highest scores that a list within the cap can have: its groups are a partition
    matroid, for which greed is optimal (Edmonds 1971, "Matroids and the greedy algorithm"). The walk goes CANDIDATES k
    items at a time. Where a list is not full then, the next look leaves out all items of the groups that are, which no
    walk will take: so each look fills the list, or one more group, or finds the end of the ranking.
    """
    step = min(CANDIDATES * k, len(caps[0].groups))
    found, scores = ranking.top(users, step, excluded)
    items, best = _walk(found, scores, k, caps)
    waiting = np.flatnonzero((items[:, -1] < 0) & (found[:, -1] >= 0))
    at_once = max(1, MASK_ENTRIES // len(caps[0].groups))
    while len(waiting):
        later = []
        for start in range(0, len(waiting), at_once):
            some = waiting[start : start + at_once]
            out = _left_out(items[some], None if excluded is None else take_rows(excluded, some), caps)
            found, scores = ranking.top(users[some], step, out)
            more = np.hstack([items[some], found]), np.hstack([best[some], scores])
            items[some], best[some] = _walk(*more, k, caps)
            later.append(some[(items[some, -1] < 0) & (found[:, -1] >= 0)])
        waiting = np.concatenate(later)
    return items, best


def _walk(found: Nums, scores: Floats, k: int, caps: tuple[Cap, ...]) -> tuple[Nums, Floats]:
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
    row, place = np.nonzero(items >= 0)
    out[row, items[row, place]] = True
    if excluded is not None:
        out[np.repeat(np.arange(n), np.diff(excluded.indptr)), excluded.indices] = True
    for cap in caps:
        groups = int(cap.groups.max()) + 1
        sizes = np.zeros((n, groups + 1), np.int64)  # the last column: items in no group, number -1
        np.add.at(sizes, (row, cap.groups[items[row, place]]), 1)
        sizes[:, -1] = 0
        out |= (sizes >= cap.most)[:, cap.groups]
    lists = [np.flatnonzero(one).astype(np.int32) for one in out]
    indptr = np.append(0, np.cumsum([len(one) for one in lists]))
    return Csr(indptr, np.concatenate(lists), np.zeros(0, np.float32))
