"""Rows by least squares: the base's own objective, of which the new pairs are known exactly and the old ones by what
they have made of the base.

A row p that was the minimiser of its old pairs' objective has no slope there, only curvature: about

    A = (alpha0 + stay n c) Y^T Y + regularization I

n being the weight of its old pairs and c Y^T Y their mean y y^T: c = mean |y|^2 over pairs / sum |y|^2 over rows (at
least LEAST c Y^T Y, where alpha0 is 0). With the new pairs' weights w and targets t, the row's move d minimises

    sum_new [ w s^2 - 2 t s ] + d^T A d,   s = (p + d) . y,

which divided by alpha0 + stay n c is the problem of `Kernels.half_sweep`. Nothing old is read, so a sweep costs what
the new pairs cost. stay = 1 trusts the old pairs as the new ones; with tastes that drift, less is better
(docs/quality.md). Rows of new ids start at zero and have no old pairs: they are folded in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.errors import DivergedError
from recli.finetune.data import NewData
from recli.ids import Csr, take_rows
from recli.kernels.spec import Floats, Kernels
from recli.linalg import procrustes
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
    them; counts: of old pairs.
    """

    def __init__(
        self,
        sides: tuple[Floats, Floats],
        biases: tuple[Floats, Floats, float],
        data: NewData,
        counts: tuple[NDArray[np.int64], NDArray[np.int64]],
        weights: tuple[NDArray[Any], NDArray[Any]],
        settings: Settings,
        stay: float,
        kernels: Kernels,
    ) -> None:
        """sides: rows of all users and of all items, zero for new ones; biases: b_u, b_v of all and b; counts, weights:
        see NewData.
        """
        self.weights = weights
        self.data, self.counts, self.settings, self.stay = data, counts, settings, stay
        self._kernels, self._biases, self._level = kernels, list(biases[:2]), np.float32(biases[2])
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
        return self._swept(side, nums, self._pairs(side, nums, others), others, basis)

    def _scores(self, side: int, others: Floats) -> Floats:
        """p . q (and the row's own bias, where it is part of it) of all new pairs, in the order of this side, with its
        rows where they started. Dots are taken by user: items are few enough to stay in a cache.
        """
        if side not in self._known_scores:
            users, items = (self._start[0], others) if side == 0 else (others, self._start[1])
            scores = self._dots(users, items)
            self._known_scores[side] = scores[self.data.item_order] if side else scores
        return self._known_scores[side]

    def _dots(self, users: Floats, items: Floats) -> Floats:
        """Of all new pairs, by user."""
        return self._kernels.pair_dots(
            self._kernels.view(users), self._kernels.view(items), self.data.pair_users, self.data.matrix.indices
        )

    def predictions(self) -> Floats:
        """r = p . q + b_u + b_v + b of all new pairs as the model is now: float32[nnz], by user."""
        return self._dots(self.tables[0], self._facing(0)) + self._levels_beside(0, self.data.matrix, None)

    def predicted_sums(self, side: int, nums: NDArray[np.int64], over: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of ials: the sum of r of each row of nums over rows `over` of the other side, float64[n]."""
        present = np.zeros((len(self.tables[1 - side]), 1), np.float32)
        present[over] = 1
        sums = self._kernels.gram([self._kernels.view(present)], self._kernels.view(self._facing(side)))[0]
        own = self._biases[side][nums].astype(np.float64)
        theirs = self.biases(1 - side)[over].sum(dtype=np.float64)
        found: NDArray[np.float64] = self.tables[side][nums] @ sums
        return np.asarray(found + len(over) * (own + float(self._level)) + theirs, np.float64)

    def biases(self, side: int) -> Floats:
        """b_u of all users, or b_v of all items: float32[n]."""
        return self.tables[side][:, -1] if self.biased else self._biases[side]

    def _levels_beside(self, side: int, matrix: Csr, nums: NDArray[np.int64] | None) -> Floats | np.float32:
        """What r is more than the dot products of rows: float32[nnz], of the rows nums (None: all)."""
        own, theirs = self._biases[side], self.biases(1 - side)
        if not (own.any() or theirs.any()):
            return self._level
        levels = theirs[matrix.indices] + self._level
        if not self.biased:  # else they are in the rows
            lengths = np.diff(matrix.indptr)
            levels += np.repeat(own[: len(lengths)] if nums is None else own[nums], lengths)
        return np.asarray(levels, np.float32)

    def move(self, side: int, nums: NDArray[np.int64], moves: Floats) -> None:
        """Puts rows nums so far from the base, for later sweeps of the other side."""
        if self.tables[side] is self._start[side]:
            self.tables[side] = self._start[side].copy()
        self.tables[side][nums] = self._start[side][nums] + moves
        self._known_scores.pop(1 - side, None)

    def shift(self, side: int, nums: NDArray[np.int64], moves: NDArray[np.float64]) -> None:
        """Adds so much to the biases of rows nums."""
        if not self.biased:
            self._biases[side] = self._biases[side].copy()
        elif self.tables[side] is self._start[side]:
            self.tables[side] = self._start[side].copy()
        self.biases(side)[nums] += moves.astype(np.float32)

    @np.errstate(over="ignore", invalid="ignore")  # what overflows shows in the moves
    def _swept(self, side: int, nums: NDArray[np.int64], pairs: Pairs, others: Floats, basis: Floats | None) -> Floats:
        old, new = self.counts[side][nums], np.diff(pairs.matrix.indptr)
        curvature = np.full(len(nums), self._alpha0, np.float64)
        if old.any() or not self._alpha0:
            mean = self._mean_square(side, others)
            curvature += self.stay * self.weights[side][nums] * mean
            curvature = np.maximum(curvature, 0 if self._alpha0 else LEAST * mean)
        settings = self.settings
        penalty = settings.reg * (self.stay * old + new + settings.alpha0 * len(others)) ** settings.nu
        if settings.solver == "svd":
            squares = float(np.square(others, dtype=np.float64).sum())
            penalty = np.full(len(nums), 1e-6 * squares / len(others))
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
        return np.asarray(moves @ procrustes(after, before).astype(np.float32), np.float32)

    def _facing(self, side: int) -> Floats:
        """The other side's rows y, as rows of this side are learned from them."""
        others = self.tables[1 - side]
        if not self.biased:
            return others
        return np.column_stack([others[:, :-1], np.ones(len(others), np.float32)])

    def _mean_square(self, side: int, others: Floats) -> float:
        """c: the mean |y|^2 over pairs, old and new, as a share of its sum over rows."""
        weights = (self.counts[1 - side] + self.data.new_counts[1 - side]).astype(np.float64)
        squares = np.einsum("mr,mr->m", others, others)
        total = float(squares.sum(dtype=np.float64))
        return float(weights @ squares) / max(1.0, float(weights.sum())) / max(total, 1e-30)

    def _pairs(self, side: int, nums: NDArray[np.int64], others: Floats) -> Pairs:
        matrix, scores = self._some_pairs(side, nums, others)
        values, beside = matrix.values, self._levels_beside(side, matrix, nums)
        if self.settings.solver == "ials":
            shift = np.float32(self.settings.alpha0 if self.settings.loss == "hu" else 0)
            return Pairs(matrix, values + shift - values * (scores + beside))
        if self.biased:
            return Pairs(matrix._replace(values=np.ones_like(values)), values - beside - scores)
        return Pairs(matrix._replace(values=np.zeros_like(values)), values - beside)

    def _some_pairs(self, side: int, nums: NDArray[np.int64], others: Floats) -> tuple[Csr, Floats]:
        """The new pairs of rows nums, and `_scores` of them."""
        if not self._start[side][nums].any():  # new ones
            data = self.data
            matrix = data.pairs_of_items(nums) if side else take_rows(data.matrix, nums, values=True)
            return matrix, np.zeros(len(matrix.indices), np.float32)
        every = (self.data.matrix, self.data.by_item)[side]
        if np.array_equal(nums, self.data.touched[side]):  # the other rows are empty: entries need not be moved
            ends = np.append(every.indptr[nums], every.indptr[-1])
            return every._replace(indptr=ends), self._scores(side, others)
        matrix = take_rows(every, nums, values=True)
        scores = take_rows(every._replace(values=self._scores(side, others)), nums, values=True).values
        return matrix, scores


def principal(moves: Floats, rank: int) -> Floats:
    """The directions in which rows move most: float32[rank, r], orthonormal."""
    vectors = np.linalg.eigh((moves.T @ moves).astype(np.float64))[1][:, ::-1]
    return np.ascontiguousarray(vectors[:, :rank].T, np.float32)
