"""Publish gates: what must hold of new lists before they take the place of the old ones.

    NAME OP NUMBER                 coverage > 0.2
    NAME OP NUMBER * previous      users >= 0.9 * previous
    NAME OP previous               recall@10 >= previous

OP is < <= > >= or ==. `previous` is the same number of the old lists. Names are those below, and with held-out data
every metric (metrics.py):

    rows      rows of the table
    users     users with a list (one whose list is empty has no rows)
    items     distinct items in the lists
    coverage  items / items of the model
    popular   share of the lists whose reason is popular
    short     share of the lists with fewer than k items; k is this run's for the old lists too
    churn     share of the rows, of users in both tables, whose user and item are not together in the old one; 1 where
              no user is in both
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recli.errors import UsageError
from recli.metrics import PER_USER

MEASURES = ("rows", "users", "items", "coverage", "popular", "short", "churn")
METRICS = (*PER_USER, "coverage", "novelty")
CLOSE = 1e-12  # relative: 0.55 * 100 is 55 for whoever writes it, if not in binary
_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{0,18})?(?:e-?[0-9]{1,2})?"
_GATE = re.compile(rf"\s*([^\s<>=*]+)\s*(<=|>=|==|<|>)\s*(?:({_NUMBER})\s*(\*\s*previous)?|(previous))\s*", re.ASCII)


@dataclass(frozen=True)
class Gate:
    """name op number, times the old lists' value where it is relative. text: as the user wrote it."""

    text: str
    name: str
    op: str
    number: float
    relative: bool

    @property
    def is_metric(self) -> bool:
        return "@" in self.name

    @property
    def needs_previous(self) -> bool:
        return self.relative or self.name == "churn"

    def limit(self, old: Mapping[str, float]) -> float:
        return self.number * old[self.name] if self.relative else self.number

    def holds(self, new: Mapping[str, float], old: Mapping[str, float]) -> bool:
        value, limit = new[self.name], self.limit(old)
        if math.isclose(value, limit, rel_tol=CLOSE):
            return "=" in self.op
        return {"<": value < limit, ">": value > limit, "=": False}[self.op[0]]


def parse_gate(text: str, k: int, *, with_truth: bool) -> Gate:
    """with_truth: is there held-out data, so that metrics are measured? Raises UsageError."""
    flag = f"--expect {text!r}"
    names = f"{', '.join(MEASURES)}; with --truth {', '.join(f'{metric}@{k}' for metric in METRICS)}"
    match = _GATE.fullmatch(text)
    if not match:
        raise UsageError(
            f"{flag}: expected NAME OP NUMBER [* previous], as 'users >= 0.9 * previous', with OP out of < <= > >= == "
            f"and NAME out of {names}"
        )
    name, op, number, times, previous = match.groups()
    metric, at, cut = name.partition("@")
    if name not in MEASURES and not (at and metric in METRICS):
        raise UsageError(f"{flag}: unknown name {name}, expected one out of {names}")
    if at and cut != str(k):
        raise UsageError(f"{flag}: lists have {k} items (-k): expected {metric}@{k}, found {name}")
    if at and not with_truth:
        raise UsageError(f"{flag}: {name} is measured on held-out data: give --truth too")
    if name == "churn" and (times or previous):
        raise UsageError(f"{flag}: churn compares with the previous lists itself: expected a number, as 'churn < 0.6'")
    return Gate(text, name, op, float(number or 1), bool(times or previous))


def failures(gates: Sequence[Gate], new: Mapping[str, float], old: Mapping[str, float]) -> list[str]:
    """A phrase for each gate that does not hold, in order: what was expected and what was found."""
    return [
        f"expected {gate.text.strip()}"
        + (f" = {plain(gate.limit(old))}" if gate.relative else "")
        + f", found {plain(new[gate.name])}"
        for gate in gates
        if not gate.holds(new, old)
    ]


def plain(value: float) -> str:
    """A count whole, anything else to seven digits: 1,188 or 0.3333333."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.7g}"
