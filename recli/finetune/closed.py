"""Rows by least squares: the base's own objective, of which the new pairs are known exactly and the old ones by what
they have made of the base.

A row p that was the minimiser of its old pairs' objective has no slope there, only curvature: about

    A = (alpha0 + stay n c) Y^T Y + regularization I

n being its number of old pairs and c Y^T Y their mean y y^T: c = mean |y|^2 over pairs / sum |y|^2 over rows. With the
new pairs' weights w and targets t, the row's move d minimises

    sum_new [ w s^2 - 2 t s ] + d^T A d,   s = (p + d) . y,

which divided by alpha0 + stay n c is the problem of `Kernels.half_sweep`. Nothing old is read, so a sweep costs what
the new pairs cost. stay = 1 trusts the old pairs as the new ones; with tastes that drift, less is better
(docs/quality.md). Rows of new ids start at zero and have no old pairs: they are folded in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recli.errors import DivergedError
from recli.finetune.data import NewData
from recli.ids import Csr, take_rows
from recli.kernels.spec import Floats, Kernels
from recli.score.row_problem import Settings

STAY = 0.05  # where none is given: the middle of what is good with and without drift (docs/quality.md)
STEPS, TOLERANCE = 4, 0.01  # of conjugate gradients: rows move by little
LEAST = 0.01  # an old pair's share of the curvature at least, for solvers without alpha0
SAMPLE = 2048  # rows that tell how a sweep has rotated its tables
SOLVERS = ("ials", "als", "svd")  # that say how their rows came about, and of which the above is true


@dataclass(frozen=True)
class Pairs:
    """Of some rows of one side. matrix: CSR [n, others], values their weights w; targets: float32[nnz], t - w s, what
    the scores s of the rows as they are leave of them.
    """

    matrix: Csr
    targets: Floats


def usable(settings: Settings) -> bool:
    """Is there a closed form for a base of such settings?"""
    return settings.solver in SOLVERS and settings.normalize != "degree"


class ClosedForm:
    """The state between sweeps. tables: rows of both sides, with a column for biases where the solver has fitted
    them.
    """

    def __init__(
        self,
        sides: tuple[Floats, Floats],
        biases: tuple[Floats, Floats, float],
        data: NewData,
        counts: tuple[NDArray[np.int64], NDArray[np.int64]],
        settings: Settings,
        stay: float,
        kernels: Kernels,
    ) -> None:
        """sides: rows of all users and of all items, zero for new ones; biases: b_u, b_v of all and b."""
        self._data, self._counts, self._settings, self._stay = data, counts, settings, stay
        self._kernels, self._biases, self._level = kernels, biases[:2], np.float32(biases[2])
        self.biased = settings.solver == "als"
        self._start = [
            np.column_stack([rows, bias]) if self.biased else rows for rows, bias in zip(sides, biases[:2], strict=True)
        ]
        self.tables = list(self._start)
        self._known_scores = dict[int, Floats]()
        self._alpha0 = 1.0 if settings.solver == "svd" else settings.alpha0

    def moves(self, side: int, nums: NDArray[np.int64], basis: Floats | None = None) -> Floats:
        """How far rows nums (of users: side 0, or of items) are to go: float32[n, r (+ 1 for a bias)], or, in a basis
        float32[s, r] of orthonormal rows, its coefficients float32[n, s].

        Raises DivergedError where numbers overflow.
        """
        others = self._facing(side)
        with threadpool_limits(1):  # the products here are short: threads that wait for each other make them slower
            pairs = self._pairs(side, nums, self._scores(side, others))
            return self._swept(side, nums, pairs, others, basis)

    def _scores(self, side: int, others: Floats) -> Floats:
        """Of all new pairs, in the order of this side, with its rows where they started. Dots are taken by user: items
        are few enough to stay in a cache.
        """
        if side not in self._known_scores:
            matrix = self._data.matrix
            ends = [self._kernels.view(self._start[side]), self._kernels.view(others)]
            at = np.repeat(
                np.arange(self._data.users, dtype=np.int32)[: len(matrix.indptr) - 1], np.diff(matrix.indptr)
            )
            scores = self._kernels.pair_dots(ends[side], ends[1 - side], at, matrix.indices)
            self._known_scores[side] = scores[self._data.item_order] if side else scores
        return self._known_scores[side]

    def move(self, side: int, nums: NDArray[np.int64], moves: Floats) -> None:
        """Puts rows nums so far from the base, for later sweeps of the other side."""
        if self.tables[side] is self._start[side]:
            self.tables[side] = self._start[side].copy()
        self.tables[side][nums] = self._start[side][nums] + moves
        self._known_scores.pop(1 - side, None)

    def _swept(self, side: int, nums: NDArray[np.int64], pairs: Pairs, others: Floats, basis: Floats | None) -> Floats:
        old, new = self._counts[side][nums], np.diff(pairs.matrix.indptr)
        weights = self._others_counts(side)
        squares = np.einsum("mr,mr->m", others, others)
        mean = (
            float(weights @ squares) / max(1.0, float(weights.sum())) / max(float(squares.sum(dtype=np.float64)), 1e-30)
        )
        curvature = self._alpha0 + self._stay * old * mean
        if not self._alpha0:
            curvature = np.maximum(curvature, LEAST * mean)
        settings = self._settings
        penalty = settings.reg * (self._stay * old + new + settings.alpha0 * len(others)) ** settings.nu
        if settings.solver == "svd":
            penalty = np.full(len(nums), 1e-6 * float(squares.mean()))
        each = np.repeat(1 / curvature, new).astype(np.float32)
        view = self._kernels.view(others)
        if basis is None:
            fixed, width = self._kernels.table(others), others.shape[1]
        else:
            fixed, width = self._kernels.combine([view], basis.T.astype(np.float64)), len(basis)
        some = np.arange(0, len(others), max(1, len(others) // SAMPLE))
        before = self._kernels.host(self._kernels.take(fixed, some))
        solve = self._kernels.table(np.zeros((len(nums), width), np.float32))
        stats = self._kernels.half_sweep(
            self._kernels.matrix(pairs.matrix._replace(values=pairs.matrix.values * each)),
            solve,
            fixed,
            targets=pairs.targets * each,
            alpha0=1.0,
            regularization=np.maximum(penalty / curvature, 1e-30).astype(np.float32),
            steps=STEPS,
            tolerance=TOLERANCE,
            relaxation=1.0,
        )
        moves = self._kernels.host(solve)
        if not (np.isfinite(stats.data) and np.isfinite(moves).all()):
            raise DivergedError("the closed solution overflows float32: are the new values as large as the base's?")
        after = self._kernels.host(self._kernels.take(fixed, some))
        return np.asarray(moves @ _rotation(after, before), np.float32)

    def _facing(self, side: int) -> Floats:
        """The other side's rows y, as rows of this side are learned from them."""
        others = self.tables[1 - side]
        if not self.biased:
            return others
        return np.column_stack([others[:, :-1], np.ones(len(others), np.float32)])

    def _others_counts(self, side: int) -> NDArray[np.float64]:
        other = 1 - side
        counts = self._counts[other].astype(np.float64)
        new = np.diff((self._data.matrix, self._data.by_item)[other].indptr)
        counts[: len(new)] += new  # the matrix may end before users who have attributes alone
        return counts

    def _pairs(self, side: int, nums: NDArray[np.int64], scores: Floats) -> Pairs:
        every = (self._data.matrix, self._data.by_item)[side]
        matrix, settings = take_rows(every, nums, values=True), self._settings
        values, scores = matrix.values, take_rows(every._replace(values=scores), nums, values=True).values
        if settings.solver == "ials":
            shift = np.float32(settings.alpha0 if settings.loss == "hu" else 0)
            return Pairs(matrix, values + shift - values * scores)
        theirs = self.tables[1 - side][:, -1] if self.biased else self._biases[1 - side]
        targets = values - self._level - theirs[matrix.indices]
        if self.biased:
            return Pairs(matrix._replace(values=np.ones_like(values)), targets - scores)
        targets -= np.repeat(self._biases[side][nums], np.diff(matrix.indptr))
        return Pairs(matrix._replace(values=np.zeros_like(values)), targets)


def principal(moves: Floats, rank: int) -> Floats:
    """The directions in which rows move most: float32[rank, r], orthonormal."""
    vectors = np.linalg.eigh((moves.T @ moves).astype(np.float64))[1][:, ::-1]
    return np.ascontiguousarray(vectors[:, :rank].T, np.float32)


def _rotation(rotated: Floats, rows: Floats) -> Floats:
    """The orthonormal matrix that undoes what a half-sweep may do to both its tables (orthogonal Procrustes)."""
    left, _, right = np.linalg.svd(rotated.T.astype(np.float64) @ rows)
    return np.asarray(left @ right, np.float32)
