"""Every setting keeps to the range that its field declares, and says so by its flag's name."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from types import UnionType
from typing import Any, get_args, get_type_hints

import pytest

from recli import config as module
from recli.config import Config, FactorizeConfig, ReadConfig, ScoreConfig
from recli.errors import UsageError

KINDS = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Config)]
FIELDS = [pytest.param(kind, f, id=f"{kind.__name__}.{f.name}") for kind in KINDS for f in dataclasses.fields(kind)]


def types(kind: type[Config], name: str) -> set[type]:
    hint = get_type_hints(kind)[name]
    return set(get_args(hint)) if isinstance(hint, UnionType) else {hint}


NUMBERS = [given for given in FIELDS if "low" in given.values[1].metadata]
NAMES = [given for given in FIELDS if "names" in given.values[1].metadata]
TEXTS = [given for given in FIELDS if "pattern" in given.values[1].metadata]


def test_every_number_has_a_range_and_every_name_a_list() -> None:
    """A new setting without one would be checked by nothing."""
    assert {Config, FactorizeConfig, ReadConfig, ScoreConfig} <= set(KINDS)
    numbers = {given.id for given in FIELDS if {int, float} & types(given.values[0], given.values[1].name)}
    assert numbers == {given.id for given in NUMBERS}
    names = {given.id for given in FIELDS if types(given.values[0], given.values[1].name) == {str}}
    assert names == {given.id for given in NAMES + TEXTS}


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_valid_immutable_and_fit_a_json_header(kind: type[Config]) -> None:
    settings = kind()
    stored, every = json.loads(json.dumps(settings.semantic(), allow_nan=False)), dataclasses.asdict(settings)
    assert stored == {name: every[name] for name in stored}
    assert kind is ReadConfig or stored == every
    for name in settings.semantic():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, name, None)


def step_out(value: Any, down: bool) -> Any:
    if isinstance(value, int):
        return value - 1 if down else value + 1
    return math.nextafter(value, -math.inf if down else math.inf)


@pytest.mark.parametrize(("kind", "field"), NUMBERS)
def test_a_number_may_be_anything_in_its_range_and_nothing_else(kind: type[Config], field: Any) -> None:
    low, high, above = (field.metadata[name] for name in ("low", "high", "above"))
    shown = [str(bound) if isinstance(bound, int) else f"{bound:g}" for bound in (low, high)]
    number = int if int in types(kind, field.name) else float
    low, high = number(low), number(high)
    inside = [math.nextafter(low, math.inf) if above else low, high]
    outside = [low if above else step_out(low, down=True), step_out(high, down=False), math.inf, -math.inf, math.nan]
    for value in inside:
        assert getattr(kind(**{field.name: value}), field.name) == value
    flag = "--" + field.name.replace("_", "-")
    bounds = re.escape(f"{shown[0]} {'up ' if above else ''}to {shown[1]}")
    for value in outside:
        with pytest.raises(UsageError, match=rf"^{flag} {re.escape(str(value))}: expected a value .*{bounds}$"):
            kind(**{field.name: value})


@pytest.mark.parametrize(("kind", "field"), NAMES)
def test_a_name_must_be_one_of_those_offered(kind: type[Config], field: Any) -> None:
    names = field.metadata["names"]
    for name in names:
        assert getattr(kind(**{field.name: name}), field.name) == name
    for name in ("", names[0].upper(), names[0] + " "):
        with pytest.raises(UsageError, match=f"expected one of {', '.join(names)}$"):
            kind(**{field.name: name})


@pytest.mark.parametrize("metric", ["auto", "rmse", "ndcg@10", "recall_capped@1000", "mrr@1"])
def test_a_metric_is_one_that_there_is_at_a_length(metric: str) -> None:
    assert FactorizeConfig(metric=metric).metric == metric
    for wrong in ("", metric + "@", metric.upper(), "ndcg", "ndcg@0", "recall@10000", "precision@10", "rmse@10"):
        with pytest.raises(
            UsageError, match=f"^--metric {re.escape(wrong)}: expected auto, rmse, or recall, .* ndcg@10"
        ):
            FactorizeConfig(metric=wrong)


def test_messages_name_flag_value_and_range() -> None:
    with pytest.raises(UsageError, match=r"^--reg 0: expected a value above 0 up to 1e\+06$"):
        FactorizeConfig(reg=0)
    with pytest.raises(UsageError, match=r"^--alpha0 -1: expected a value from 0 to 1e\+06$"):
        FactorizeConfig(alpha0=-1)
    assert FactorizeConfig(alpha0=None).alpha0 is None


def test_iterations_follow_the_solver_unless_given() -> None:
    assert [FactorizeConfig(solver=solver).sweeps for solver in ("ials", "als", "svd", "pop")] == [5, 8, 1, 1]
    assert FactorizeConfig(solver="als", iterations=3).sweeps == 3
