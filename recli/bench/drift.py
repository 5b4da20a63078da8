"""Interactions that drift in time, of any size, from a seed: tastes turn, popularity passes from some items to others,
new users and items keep coming. As synthetic.py otherwise: few users and items have most of the pairs, and who has what
follows planted tastes of low rank.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.bench.synthetic import POPULARITY, RANK, Size, activity, falling, over_users

# As in synthetic.py, but sharper: a list of 20 from 10k items, of what is left to a user at the end, hits little else.
TASTE, BAR = 8.0, 12.0
LATE = 0.7  # a time before which most is there: NEW_USERS of the users come after it, NEW_ITEMS of the items
NEW_USERS, NEW_ITEMS = 0.10, 0.05
START = 0.1  # until when those come who had been there before: whoever looks sees them at their first pair
STAY, STEADY = 0.5, 0.3  # shares of users: not gone before the end; active all the time, not in bursts
BURST = (12, 0.004)  # pairs in one, on average; its length in time
USER_TURN, ITEM_TURN = np.pi / 2, np.pi / 4  # how far the tastes of those who change most turn, of pi / 2 to another
MOVE = 0.5  # share of what is popular that another ranking decides at the end
FADE, DECAY = (
    0.5,
    0.15,
)  # items keep uniform^FADE of the popularity that they are born with, after a time of about DECAY
LOYALTY = 1.0  # how much those who are there for longer have more pairs


class Drifting(NamedTuple):
    """Distinct pairs, ascending by time: users int32[n], items int32[n], times float32[n] in [0, 1)."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.float32]


def drifting(size: Size, seed: int, threads: int = 1, drift: float = 1.0) -> Drifting:
    """Exactly size.pairs distinct pairs. drift: how far tastes and popularity move, each user and item by an amount of
    its own; 0: not at all, but users and items come all the same. Each user's are drawn on their own, so the number of
    threads changes nothing.
    """
    from recli.bench.drift_draws import draw_pairs  # imports numba

    users, items, pairs = size
    rng = np.random.default_rng(seed)
    begins, ends = _lifetimes(users, rng)
    lengths = np.empty(users, np.int64)
    lengths[np.argsort(-LOYALTY * np.log(ends - begins) - rng.gumbel(size=users))] = activity(users, items, pairs)
    indptr = np.append(0, np.cumsum(lengths))
    popularity = np.cumsum(falling(items, POPULARITY))
    popularity /= popularity[-1]
    guide = np.searchsorted(popularity, np.arange(items) / items)
    catalogues = np.stack([rng.permutation(items), rng.permutation(items)]).astype(np.int32)
    births, lasting = _births(items, rng), rng.random(items, np.float32) ** np.float32(FADE * drift)
    P, Q = (rng.standard_normal((count, 2, RANK), np.float32) for count in (users, items))
    P *= np.float32(np.sqrt(RANK)) / np.linalg.norm(P, axis=2, keepdims=True)  # all are choosy alike
    Q *= np.float32(TASTE / np.sqrt(RANK))
    user_turns, item_turns = (
        np.float32(drift * most) * rng.random(count, np.float32)
        for count, most in ((users, USER_TURN), (items, ITEM_TURN))
    )
    steady = rng.random(users) < STEADY
    found, times = np.empty(pairs, np.int32), np.empty(pairs, np.float32)

    def draw(first: int, last: int) -> None:
        spans = indptr, begins, ends, steady, BURST
        ranking = popularity, guide, catalogues, min(1.0, drift * MOVE), births, lasting, DECAY
        draw_pairs(first, last, *spans, *ranking, P, Q, user_turns, item_turns, BAR, seed, found, times)

    over_users(indptr, draw, threads)
    np.minimum(times, np.nextafter(np.float32(1), np.float32(0)), out=times)  # what rounding took to 1
    order = np.argsort(times, kind="stable")
    owners = np.repeat(np.arange(users, dtype=np.int32), lengths)
    return Drifting(owners[order], found[order], times[order])


def _lifetimes(users: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """When each user has the first pair, and before when the last: float32[users] each."""
    coming = NEW_USERS * (1 - START) / (1 - LATE)  # at a steady pace from START on
    place = (rng.permutation(users) + 0.5) / users
    begins = np.interp(place, [0, 1 - coming, 1], [0, START, 1]).astype(np.float32)
    share = np.where(rng.random(users) < STAY, 1, rng.uniform(0.05, 1, users)).astype(np.float32)
    return begins, begins + (1 - begins) * share


def _births(items: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """float32[items]; below 0 for those there from the start."""
    coming = NEW_ITEMS / (1 - LATE)
    place = (rng.permutation(items) + 0.5) / items
    return np.interp(place, [0, 1 - coming, 1], [-1, 0, 1]).astype(np.float32)
