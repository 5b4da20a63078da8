"""A user's row from what the user has, as the model's solver defines it: which problem of least_squares.py it solves.
Fold-in solves it for new users; explanations take its solution apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from recli.artifacts import Factors
from recli.config import FactorizeConfig
from recli.errors import DataError, UsageError
from recli.ids import Csr
from recli.kernels.spec import Floats
from recli.least_squares import Problems, confidence, regularization


class Settings(NamedTuple):
    """Those that a user's row depends on; 0 where the solver has no such thing."""

    solver: str
    loss: str
    alpha: float | None
    alpha0: float
    reg: float
    nu: float


class RowProblem:
    """items: float32[I, d], the rows y that a user's row x is learned from; a score is x . y and b, b_v and, where x
    does not end in it, b_u. alpha0: as in least_squares.py.
    """

    def __init__(self, factors: Factors) -> None:
        """Raises DataError where the model's header does not say how its rows came about."""
        self._factors, self._settings = factors, _settings(factors)
        self.alpha0 = self._settings.alpha0
        self.biased = self._settings.solver == "als"

    @cached_property
    def items(self) -> Floats:
        rows = self._factors.Q[:]
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

        weighted: its values are weights, else ratings. Raises DataError for negative weights.
        """
        if self._settings.solver != "ials":
            return history
        return history._replace(values=confidence(history.values, weighted, self._settings.alpha))

    def problems(self, history: Csr) -> Problems:
        """Of n users. history: CSR [n, I] as `learned` gives it, or without values: all are 1."""
        if len(history.values) != len(history.indices):
            history = history._replace(values=np.ones(len(history.indices), np.float32))
        return POSED[self._settings.solver](self._factors, self._settings, history)

    def levels(self, history: Csr) -> Floats:
        """b_u where it is no part of x: float32[n]."""
        return np.zeros(len(history.indptr) - 1, np.float32)


def _ials(factors: Factors, settings: Settings, history: Csr) -> Problems:
    shift = np.float32(settings.alpha0 if settings.loss == "hu" else 0)
    penalties = regularization(history.indptr, settings.reg, settings.nu, settings.alpha0, len(factors.item_ids))
    return Problems(history, history.values + shift, penalties)


def _als(factors: Factors, settings: Settings, history: Csr) -> Problems:
    targets = history.values - factors.b - factors.b_v[history.indices]
    penalties = regularization(history.indptr, settings.reg, settings.nu, 0, len(factors.item_ids))
    return Problems(history._replace(values=np.ones_like(targets)), targets, penalties)


def _pop(factors: Factors, settings: Settings, history: Csr) -> Problems:
    """Rows have no columns."""
    return _projection(history)


def _projection(history: Csr) -> Problems:
    """x = sum_j t_j y_j, t the history's values."""
    nothing = history._replace(values=np.zeros_like(history.values))
    return Problems(nothing, history.values, np.ones(len(history.indptr) - 1, np.float32))


POSED: dict[str, Callable[[Factors, Settings, Csr], Problems]] = {"ials": _ials, "als": _als, "pop": _pop}
NEEDED = {"ials": ("alpha0", "reg", "nu"), "als": ("reg", "nu")}


def _settings(factors: Factors) -> Settings:
    """What the header says, checked: a file may say anything."""
    header = factors.provenance.config
    solver = header.get("solver")
    if solver == "imported":
        raise DataError("an imported model does not say how its rows were learned (solver, weights, regularisation)")
    if not isinstance(solver, str) or solver not in POSED:
        raise DataError(f"header: solver: expected one of {', '.join(POSED)}, found {solver!r:.40}")
    names = {field.name for field in dataclasses.fields(FactorizeConfig)}
    try:
        config = FactorizeConfig(**{name: value for name, value in header.items() if name in names})
    except (TypeError, UsageError) as error:
        raise DataError(f"header: {error}") from error
    numbers = dict.fromkeys(("alpha0", "reg", "nu"), 0.0)
    for name in NEEDED.get(solver, ()):
        value = getattr(config, name)
        if value is None or (name == "reg" and not np.float32(value)):
            raise DataError(f"header: {name}: expected that of the {solver} model, found {value!r}")
        numbers[name] = float(value)
    return Settings(solver, config.loss, config.alpha, **numbers)
