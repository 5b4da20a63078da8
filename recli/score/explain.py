"""Why an item is recommended: the items of the user's past that contribute most to its score.

With x = A^-1 sum_j t_j y_j (least_squares.py), x . y_v = sum_j t_j y_v^T A^-1 y_j: a term for each item j that the user
has (Hu, Koren, Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets", section 5). A stored row that
is not quite the minimiser leaves a remainder, (x_stored - x) . y_v.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from recli.artifacts import HISTORY, MODEL, Factors, Scores
from recli.errors import DataError
from recli.ids import Csr, take_rows
from recli.kernels.spec import Floats, Nums
from recli.least_squares import Doubles, ExactSolver, Problems
from recli.score.audience import Audience
from recli.score.row_problem import RowProblem


class Terms(NamedTuple):
    """A user's scores of k items, taken apart: base + contributions.sum(axis=1) + remainder, float64.

    past: int32[n], the user's items; contributions: [k, n]; base [k]: biases that do not come from the past; remainder
    [k].
    """

    past: Nums
    contributions: Doubles
    base: Doubles
    remainder: Doubles


class Explainer:
    """Takes the scores of one model apart."""

    def __init__(self, factors: Factors) -> None:
        """Raises DataError for a model whose scores are not sums over users' items."""
        if factors.provenance.config.get("solver") == "pop":
            raise DataError("a model of popularity (--solver pop) recommends alike to all: there is nothing to explain")
        self._factors, self._problem = factors, RowProblem(factors)
        self._solver = ExactSolver(self._problem.items, self._problem.alpha0)
        self._blas = ThreadpoolController()

    def terms(self, history: Csr, row: Floats, items: Nums) -> Terms:
        """Of a user with this history (CSR [1, I], see `RowProblem.learned`) and row (see Factors.user_rows), for items
        int32[k].
        """
        past, contributions = self._contributions(self._problem.problems(history), 0, items)
        factors = self._factors
        score = factors.item_rows(items).astype(np.float64) @ row.astype(np.float64)
        base = float(factors.b) + factors.b_v[items].astype(np.float64) + self._problem.levels(history)[0]
        return Terms(past, contributions, base, score - base - contributions.sum(axis=1))

    def explain(self, lists: Iterator[Scores], audience: Audience, count: int) -> Iterator[Scores]:
        """The same blocks of the audience's lists, with the `count` items that contribute most to each score.

        Popular lists have none. Raises at once DataError where the model has no seen lists to explain from.
        """
        if self._factors.seen is None and (audience.reasons(self._factors) == MODEL).any():
            raise DataError("the model has no seen lists to explain from: factorize without --no-seen")
        return (self._explained(block, audience, count) for block in lists)

    def _explained(self, block: Scores, audience: Audience, count: int) -> Scores:
        users = audience.part(block.start, block.start + len(block.items))
        because = np.full((*block.items.shape, count), -1, np.int32)
        parts = np.zeros(because.shape, np.float32)
        sources = ((MODEL, self._factors.seen, users.nums), (HISTORY, users.history, np.arange(len(users))))
        with self._blas.limit(limits=1):  # a user's matrices are too small to share
            for reason, pasts, nums in sources:
                at = np.flatnonzero(block.reasons == reason)
                if pasts is not None and len(at):
                    histories = take_rows(pasts, nums[at], values=True)
                    because[at], parts[at] = self._most(histories, block.items[at], count)
        return dataclasses.replace(block, because=because, because_scores=parts)

    def _most(self, histories: Csr, items: Nums, count: int) -> tuple[Nums, Floats]:
        """For each item of n users' lists int32[n, k] (-1: none) the items of the user's history that contribute most,
        best first, and their terms: int32[n, k, count], float32[n, k, count], -1 and 0 where there are fewer.
        """
        because = np.full((*items.shape, count), -1, np.int32)
        parts = np.zeros(because.shape, np.float32)
        problems = self._problem.problems(histories)
        for user in np.flatnonzero(np.diff(histories.indptr)).tolist():
            listed = np.flatnonzero(items[user] >= 0)
            past, contributions = self._contributions(problems, user, items[user, listed])
            order = np.argsort(-contributions, axis=1, kind="stable")[:, :count]
            because[user, listed, : order.shape[1]] = past[order]
            parts[user, listed, : order.shape[1]] = np.take_along_axis(contributions, order, axis=1)
        return because, parts

    def _contributions(self, problems: Problems, user: int, items: Nums) -> tuple[Nums, Doubles]:
        return self._solver.terms(problems, user, self._solver.items[items])
