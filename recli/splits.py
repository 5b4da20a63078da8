"""Interactions apart: what to learn from, and what to judge by. Matrices are CSR [users, items], parts as the whole."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.errors import DataError
from recli.ids import Csr, row_counts

SPLITS = ("random", "last", "time", "users")
FOLD_IN = 0.8  # of a held-out user's pairs: what the model may look at (Liang et al. 2018, section 4.1)


class Split(NamedTuple):
    """train and test are disjoint; fold_in: what is known of users who are in neither training nor anything else, or
    None where the split is not by users.
    """

    train: Csr
    test: Csr
    fold_in: Csr | None = None


def split(matrix: Csr, how: str, share: float, seed: int, times: NDArray[np.int64] | None = None) -> Split:
    """What `apart` sets apart, as matrices. Raises DataError where no pair is left on one side."""
    test, known = apart(matrix, how, share, seed, times)
    fold_in = take_pairs(matrix, known) if how == "users" else None
    parts = Split(take_pairs(matrix, ~(test | known)), take_pairs(matrix, test), fold_in)
    if not (len(parts.train.indices) and len(parts.test.indices)):
        sizes = f"{len(parts.train.indices)} to learn from and {len(parts.test.indices)} to judge by"
        raise DataError(f"--split {how}, --test-share {share:g}: of {len(matrix.indices)} pairs there are {sizes}")
    return parts


def apart(
    matrix: Csr, how: str, share: float, seed: int, times: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which pairs are the test, and which are what is known of held-out users: bool[nnz] each.

    random: that share of the pairs. last: the last share of each user's, one at least. time: whatever is later than one
    moment, at most that share. users: that share of the users, with all they have (strong generalisation); a fifth of
    theirs is the test. Users are left with one pair to learn from, but by time.

    times: int64[nnz], when each pair was, for last and time; equal ones are not ordered.
    """
    if how == "users":
        return _by_users(matrix, share, seed)
    nothing = np.zeros(len(matrix.indices), bool)
    if how == "random":
        return _at_random(matrix, share, seed), nothing
    assert times is not None
    return (_last(matrix, times, share) if how == "last" else _later(times, share)), nothing


def hold_out(matrix: Csr, share: float, seed: int, known: int | None = None) -> tuple[Csr, Csr]:
    """A random share of the pairs apart from the rest: (train, held). Every user keeps at least one pair, and so does
    every item from number `known` on, if it is given: where its row is learned from nothing else.
    """
    held = _at_random(matrix, share, seed)
    if known is not None:
        bare = np.bincount(matrix.indices[~held], minlength=int(matrix.indices.max(initial=-1)) + 1) == 0
        bare[:known] = False
        held &= ~bare[matrix.indices]
    return take_pairs(matrix, ~held), take_pairs(matrix, held)


def take_pairs(matrix: Csr, kept: NDArray[np.bool_]) -> Csr:
    """The entries where kept: bool[nnz], in a matrix of the same size."""
    indptr = np.append(0, np.cumsum(row_counts(matrix.indptr, kept)))
    return Csr(indptr, matrix.indices[kept], matrix.values[kept])


def _at_random(matrix: Csr, share: float, seed: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    held: NDArray[np.bool_] = rng.random(len(matrix.indices)) < share
    lengths = np.diff(matrix.indptr)
    bare = (row_counts(matrix.indptr, held) == lengths) & (lengths > 0)
    held[matrix.indptr[:-1][bare]] = False
    return held


def _last(matrix: Csr, times: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    lengths = np.diff(matrix.indptr)
    wanted = np.minimum(np.maximum(np.rint(share * lengths), 1), lengths - 1).astype(np.int64)
    return ~_first(matrix, times, lengths - wanted)


def _later(times: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Pairs of the moment at the cut itself stay in the past."""
    if not len(times):
        return np.zeros(0, bool)
    cut = np.partition(times, at := len(times) - 1 - min(int(share * len(times)), len(times) - 1))[at]
    late: NDArray[np.bool_] = times > cut
    return late


def _by_users(matrix: Csr, share: float, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    lengths = np.diff(matrix.indptr)
    able = np.flatnonzero(lengths > 1)
    chosen = np.zeros(len(lengths), bool)
    chosen[rng.permutation(able)[: round(share * len(able))]] = True
    known = np.clip(np.rint(FOLD_IN * lengths), 1, np.maximum(lengths - 1, 1)).astype(np.int64)
    theirs = np.repeat(chosen, lengths)
    folded = _first(matrix, rng.random(len(matrix.indices)), known)
    return theirs & ~folded, theirs & folded


def _first(matrix: Csr, by: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which entries are among the first so many of their user's, ordered by something; ties stay as they are."""
    from recli import sorting  # numba, for which not all who split have to wait

    marked = np.empty(len(matrix.indices), bool)
    sorting.over_rows(
        matrix.indptr, lambda first, last: sorting.mark_first(matrix.indptr, first, last, by, counts, marked)
    )
    return marked
