"""A user's row from what the user has, as the model's solver defines it: which problem of least_squares.py it solves.
Fold-in solves it for new users; explanations take its solution apart.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from recli.artifacts import Factors
from recli.config import FactorizeConfig
from recli.errors import DataError, UsageError
from recli.ids import Csr, row_numbers
from recli.kernels.spec import Floats
from recli.least_squares import Doubles, Problems, confidence, damped_means, regularization

SOLVERS = ("ials", "als", "svd", "pop")
NEEDED = {"ials": ("alpha0", "reg", "nu"), "als": ("reg", "nu")}


class Settings(NamedTuple):
    """Those that a user's row depends on; 0 where the solver has no such thing. normalize: of svd, else none."""

    solver: str
    loss: str
    normalize: str
    alpha: float | None
    alpha0: float = 0.0
    reg: float = 0.0
    nu: float = 0.0
    user_damping: float = 0.0


class RowProblem:
    """items: float32[I, d], the rows y that a user's row x is learned from; a score is x . y and b, b_v and, where x
    does not end in it, b_u. alpha0: as in least_squares.py.
    """

    def __init__(self, factors: Factors) -> None:
        """Raises DataError where the model does not say how its rows came about."""
        self._factors, self._settings = factors, settings_of(factors.provenance.config)
        self.alpha0 = self._settings.alpha0
        self.biased = self._settings.solver == "als"
        if self._settings.normalize == "degree" and factors.seen is None:
            raise DataError(
                "the model has no seen lists (factorize --no-seen), whose sums its rows are divided by "
                "(--normalize degree)"
            )

    @cached_property
    def items(self) -> Floats:
        rows = self._factors.item_factors()
        ones = [np.ones((len(rows), 1), np.float32)] if self.biased else []
        return np.ascontiguousarray(np.hstack([rows, *ones], dtype=np.float32))

    @property
    def learns_from(self) -> str:
        """What the solver takes a user's row from: weights, ratings, or only which pairs there are."""
        solver, reading = self._settings.solver, self._factors.provenance.config.get("reading")
        if solver != "pop" and isinstance(reading, dict) and reading.get("weight") is not None:
            return "weights"
        counts_all = solver == "pop" or (solver == "ials" and self._settings.alpha is None)
        ones = self._factors.seen is not None and self._factors.seen_values is None
        return "pairs" if counts_all or ones else "ratings"

    def learned(self, history: Csr, *, weighted: bool) -> Csr:
        """A history with the values that the solver takes it for, as Factors.seen_values are for the model's own users.

        weighted: its values are weights, else ratings. Raises DataError for negative ones that the solver cannot take.
        """
        values = history.values
        if self._settings.solver == "ials":
            return history._replace(values=confidence(values, weighted, self._settings.alpha))
        if self._settings.normalize == "degree" and len(values) and values.min() < 0:
            raise DataError(f"expected values of at least 0, as --normalize degree does, found {values.min():g}")
        return history

    @np.errstate(over="ignore")  # shows in the rows
    def problems(self, history: Csr) -> Problems:
        """Of n users. history: CSR [n, I] as `learned` gives it, or without values: all are 1."""
        history = _with_values(history)
        settings, values, count = self._settings, history.values, len(self._factors.item_ids)
        if settings.solver in ("ials", "als"):
            penalties = regularization(history.indptr, settings.reg, settings.nu, settings.alpha0, count)
            if settings.solver == "als":
                return Problems(history._replace(values=np.ones_like(values)), self._left(history), penalties)
            shift = np.float32(settings.alpha0 if settings.loss == "hu" else 0)
            return Problems(history, values + shift, penalties)
        # x = sum_j t_j y_j: a projection (svd), or nothing, of no columns (pop)
        targets = values
        if settings.normalize == "bias":
            users = np.repeat(self.levels(history), np.diff(history.indptr))
            targets = self._left(history) - users
        elif settings.normalize == "degree":
            sums = self._item_sums[history.indices]
            targets = np.divide(values, sums, out=np.zeros(len(values)), where=sums > 0).astype(np.float32)
        penalties = np.ones(len(history.indptr) - 1, np.float32)
        return Problems(history._replace(values=np.zeros_like(values)), targets, penalties)

    def levels(self, history: Csr) -> Floats:
        """b_u where it is no part of x: float32[n]."""
        users, damping = len(history.indptr) - 1, self._settings.user_damping
        if not damping:
            return np.zeros(users, np.float32)
        history = _with_values(history)
        groups = row_numbers(history.indptr)
        return damped_means(self._left(history).astype(np.float64), groups, users, damping).astype(np.float32)

    def _left(self, history: Csr) -> Floats:
        """Ratings after b + b_v."""
        return np.asarray(history.values - self._factors.b - self._factors.b_v[history.indices], np.float32)

    @cached_property
    def _item_sums(self) -> Doubles:
        """Of the model's users: float64[I]."""
        assert self._factors.seen is not None
        seen = _with_values(self._factors.seen)
        return np.bincount(seen.indices, seen.values, len(self._factors.item_ids)).astype(np.float64)


def _with_values(matrix: Csr) -> Csr:
    if len(matrix.values) == len(matrix.indices):
        return matrix
    return matrix._replace(values=np.ones(len(matrix.indices), np.float32))


def settings_of(header: dict[str, Any]) -> Settings:
    """What a model's header says, checked: a file may say anything."""
    solver = header.get("solver")
    if solver == "imported":
        raise DataError("an imported model does not say how its rows were learned (solver, weights, regularisation)")
    if solver not in SOLVERS:
        raise DataError(f"header: solver: expected one of {', '.join(SOLVERS)}, found {solver!r:.40}")
    names = {field.name for field in dataclasses.fields(FactorizeConfig)}
    try:
        config = FactorizeConfig(**{name: value for name, value in header.items() if name in names})
    except (TypeError, UsageError) as error:
        raise DataError(f"header: {error}") from error
    numbers = {name: getattr(config, name) for name in NEEDED.get(solver, ())}
    normalize = config.normalize if solver == "svd" else "none"
    if normalize == "bias":
        numbers["user_damping"] = header.get("user_damping")
    for name, value in numbers.items():
        usable = isinstance(value, int | float) and math.isfinite(value)
        if not usable or (name in ("reg", "user_damping") and not np.float32(value) > 0):
            raise DataError(f"header: {name}: expected that of the {solver} model, found {value!r:.40}")
    if normalize == "auto":
        raise DataError("header: normalize: expected bias, degree or none, found auto")
    return Settings(solver, config.loss, normalize, config.alpha, **numbers)
