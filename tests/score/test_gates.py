"""Gates: what they mean, and what cannot be one."""

from __future__ import annotations

import operator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recli.errors import UsageError
from recli.metrics import RankingQuality
from recli.score.gates import MEASURES, METRICS, Gate, failures, parse_gate, plain

OPS: dict[str, Any] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


def parse(text: str, k: int = 10, with_truth: bool = True) -> Gate:
    return parse_gate(text, k, with_truth=with_truth)


@pytest.mark.parametrize(
    ("text", "name", "op", "number", "relative"),
    [
        ("coverage > 0.2", "coverage", ">", 0.2, False),
        ("users>=0.9*previous", "users", ">=", 0.9, True),
        ("  users  ==  previous  ", "users", "==", 1, True),
        ("rows >= 1e6", "rows", ">=", 1e6, False),
        ("short <= 1. *  previous", "short", "<=", 1, True),
        ("recall_capped@10 >= 2e-3", "recall_capped@10", ">=", 0.002, False),
        ("coverage@10 < previous", "coverage@10", "<", 1, True),
        ("churn < 0.6", "churn", "<", 0.6, False),
    ],
)
def test_a_gate_is_read_as_written(text: str, name: str, op: str, number: float, relative: bool) -> None:
    gate = parse(text)
    assert (gate.name, gate.op, gate.number, gate.relative) == (name, op, number, relative)
    assert gate.needs_previous == (relative or name == "churn")
    assert gate.is_metric == ("@" in name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "users",
        "users >= ",
        "users => 3",
        "users = 3",
        "users != 3",
        ">= 3",
        "3 <= users",
        "users >= many",
        "users >= 0.9 * yesterday",
        "users >= previous * 0.9",
        "users >= 0.9 previous",
        "users >= 90%",
        "users >= -1",
        "users >= nan",
        "users >= inf",
        "users >= 1e999",
        "users >= ٣",
        "users >= 1_000",
        "users >= 3 and rows >= 3",
        "users >= 3; rows",
        "users >= __import__('os')",
        "1 < users < 3",
    ],
)
def test_anything_else_is_refused_with_the_form_and_the_names(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    line = str(caught.value)
    assert line.startswith(f"--expect {text!r}: expected NAME OP NUMBER [* previous], as 'users >= 0.9 * previous'")
    assert all(name in line for name in (*MEASURES, *(f"{metric}@10" for metric in METRICS)))


@pytest.mark.parametrize(
    ("text", "with_truth", "line"),
    [
        ("usres > 3", True, "unknown name usres, expected one out of rows, users"),
        ("Users > 3", True, "unknown name Users"),
        ("recall > 0.1", True, "unknown name recall, expected one out of .*recall@10"),
        ("users@10 > 3", True, "unknown name users@10"),
        ("recall@20 > 0.1", True, r"lists have 10 items \(-k\): expected recall@10, found recall@20"),
        ("recall@010 > 0.1", True, "expected recall@10"),
        ("recall@ > 0.1", True, "expected recall@10"),
        ("recall@10 > 0.1", False, "recall@10 is measured on held-out data: give --truth too"),
        ("churn < 2 * previous", True, "churn compares with the previous lists itself"),
        ("churn < previous", True, "churn compares with the previous lists itself"),
    ],
)
def test_a_name_that_means_nothing_here_is_refused(text: str, with_truth: bool, line: str) -> None:
    with pytest.raises(UsageError, match=rf"^--expect '{text}': .*{line}".replace("*", r"\*", text.count("*"))):
        parse(text, with_truth=with_truth)


def test_the_metrics_are_those_that_are_measured() -> None:
    assert set(RankingQuality(7, np.zeros(0, np.int64), 0).result()) == {f"{metric}@7" for metric in METRICS}


@given(
    st.sampled_from(sorted(OPS)),
    st.integers(0, 300),
    st.integers(0, 300),
    st.decimals(0, 2, places=2, allow_nan=False),
    st.booleans(),
)
def test_gates_compare_as_fractions_do(op: str, new: int, old: int, factor: Any, relative: bool) -> None:
    """0.55 * 100 is 55, whatever it is in binary."""
    gate = parse(f"users {op} {factor} * previous" if relative else f"users {op} {factor}")
    limit = Fraction(factor) * (old if relative else 1)
    assert gate.holds({"users": new}, {"users": old}) == OPS[op](Fraction(new), limit)


def test_a_failure_says_what_was_expected_and_found() -> None:
    gates = [parse("users >= 0.9 * previous"), parse(" coverage > 0.2"), parse("rows > 0"), parse("churn < 0.6")]
    new, old = {"users": 940, "coverage": 0.1999996, "rows": 12_345_678_901, "churn": 1 / 3}, {"users": 1188}
    assert failures(gates, new, old) == [
        "expected users >= 0.9 * previous = 1,069.2, found 940",
        "expected coverage > 0.2, found 0.1999996",
    ]
    assert failures(gates[2:], new, {}) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (100.0, "100"), (12_345_678, "12,345,678"), (1069.2, "1,069.2"), (0.25, "0.25"), (1 / 3, "0.3333333")],
)
def test_numbers_are_for_people(value: float, text: str) -> None:
    assert plain(value) == text
