"""Gates between two reports."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recli.bench.baseline import Gate, check_comparable, differences, failures, judge, parse_gate, read_report
from recli.errors import DataError, GateError, MissingInputError, UsageError

KS = (20, 10)


def row(race: str = "train", contestant: str = "recli", **more: Any) -> dict[str, Any]:
    about = {"race": race, "contestant": contestant, "solver": "ials", "rank": 64, "device": "cpu", "status": "ok"}
    return {**about, "seconds": 2.0, **more}


def report(*rows: dict[str, Any]) -> dict[str, Any]:
    machine = {"cpu": "a", "cores": 2, "threads": 2, "gemm_gflops": 100.0}
    return {"kind": "bench", "version": 1, "rows": list(rows), "data": {"sha256": ["x"]}, "machine": machine}


@pytest.mark.parametrize(
    ("text", "name", "limit"),
    [
        ("recall@20 < -1%", "recall@20", -0.01),
        ("  seconds>+20%", "seconds", 0.2),
        ("peak_rss_bytes > +0.5 %", "peak_rss_bytes", 0.005),
        ("ndcg@10 < -0%", "ndcg@10", 0.0),
        ("ratio < -10%", "ratio", -0.1),
    ],
)
def test_gates_are_a_name_a_direction_and_a_change(text: str, name: str, limit: float) -> None:
    assert parse_gate(text, KS) == Gate(text, name, limit)


@pytest.mark.parametrize(
    "text",
    ["", "recall@20", "recall@20 < 1%", "recall@20 > -1%", "recall@20 < +1%", "seconds > 20%", "seconds > +20",
     "seconds >= +2%", "seconds > +1e3%", "seconds > +20% x", "SECONDS > +20%", "recall@20 < -1% and seconds > +20%"],
)  # fmt: skip
def test_anything_else_is_a_usage_error_with_an_example(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"--fail-if .*: expected NAME < -PERCENT% or NAME > \+PERCENT%, as 'recall@20"
    ):
        parse_gate(text, KS)


@pytest.mark.parametrize("name", ["recal@20", "recall@5", "noise", "map@20", "status"])
def test_a_name_that_no_row_can_have_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match=rf"unknown name {name}, expected one out of seconds, .*, recall@20"):
        parse_gate(f"{name} < -1%", KS)


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.integers(0, 99))
def test_a_gate_fails_beyond_its_change_alone(new: float, old: float, percent: int) -> None:
    lower, higher = Gate(f"x < -{percent}%", "x", -percent / 100), Gate(f"x > +{percent}%", "x", percent / 100)
    change = (new - old) / old
    assert lower.fails(new, old) == (change < -percent / 100)
    assert higher.fails(new, old) == (change > percent / 100)
    assert not lower.fails(old, old)
    assert not higher.fails(old, old)


def test_a_change_from_nothing_or_of_a_negative_number_has_the_direction_of_the_numbers() -> None:
    assert Gate("", "x", 0.1).fails(1, 0)
    assert not Gate("", "x", -0.1).fails(1, 0)
    assert Gate.change(-1, -2) == 0.5


def gates(*texts: str) -> list[Gate]:
    return [parse_gate(text, KS) for text in texts]


def test_all_that_fails_is_said() -> None:
    old = report(row(**{"recall@20": 0.2}), row("topk", k=20))
    new = report(row(**{"recall@20": 0.19}, seconds=2.1), row("topk", k=20, seconds=3.0))
    asked = gates("recall@20 < -1%", "seconds > +20%")
    assert failures(asked, new["rows"], old["rows"], "old.json") == [
        "recall@20 < -1%: train recli ials rank 64 cpu 0.2 before, 0.19 now (-5.0%)",
        "seconds > +20%: topk recli ials rank 64 cpu k 20 2 before, 3 now (+50.0%)",
    ]
    with pytest.raises(GateError, match=r"old\.json: worse than the baseline: recall.*; seconds") as caught:
        judge(failures(asked, new["rows"], old["rows"], "old.json"), "old.json")
    assert caught.value.exit_code == 3
    lenient = gates("recall@20 < -6%", "seconds > +60%")
    judge(failures(lenient, new["rows"], old["rows"], "old.json"), "old.json")


def test_a_row_that_failed_this_time_fails_every_gate() -> None:
    old, new = report(row()), report(row(status="failed: out of memory"))
    assert failures(gates("seconds > +20%"), new["rows"], old["rows"], "o") == [
        "seconds > +20%: train recli ials rank 64 cpu failed: out of memory"
    ]


def test_a_number_missing_on_one_side_is_an_error_and_no_pass() -> None:
    with_recall, without = report(row(**{"recall@20": 0.2})), report(row())
    for new, old, side in ((with_recall, without, "o.json"), (without, with_recall, "this run")):
        with pytest.raises(DataError, match=rf"{side} has no recall@20 for train recli ials rank 64 cpu"):
            failures(gates("recall@20 < -1%"), new["rows"], old["rows"], "o.json")
    with pytest.raises(DataError, match=r"no row has recall@20"):
        failures(gates("recall@20 < -1%"), without["rows"], without["rows"], "o.json")


def test_a_row_missing_on_one_side_is_an_error_before_the_work() -> None:
    planned = [row(), row("topk", k=20)]
    asked = gates("seconds > +20%")
    check_comparable(asked, planned, report(*planned), "o.json")
    with pytest.raises(DataError, match=r"o\.json: it has no row for topk recli ials rank 64 cpu k 20"):
        check_comparable(asked, planned, report(row()), "o.json")
    with pytest.raises(DataError, match=r"o\.json: it has a row for topk recli .*, which is not measured now"):
        check_comparable(asked, [row()], report(*planned), "o.json")


def test_a_number_that_the_baseline_never_had_is_an_error_before_the_work() -> None:
    with pytest.raises(DataError, match=r"o\.json: it has no recall@20 \(--fail-if 'recall@20 < -1%'\)"):
        check_comparable(gates("seconds > +20%", "recall@20 < -1%"), [row()], report(row()), "o.json")


def test_ratios_are_of_the_peers_rows() -> None:
    old = report(row(ratio=1.0), row(contestant="implicit", ratio=4.0))
    new = report(row(ratio=1.0), row(contestant="implicit", ratio=3.0))
    assert failures(gates("ratio < -10%"), new["rows"], old["rows"], "o") == [
        "ratio < -10%: train implicit ials rank 64 cpu 4 before, 3 now (-25.0%)"
    ]
    assert failures(gates("seconds > +20%"), new["rows"], old["rows"], "o") == []
    other = report(row(contestant="lenskit", ratio=4.0))
    with pytest.raises(DataError, match="it has no row for train implicit"):
        check_comparable(gates("ratio < -10%"), new["rows"], other, "o")


def test_other_data_and_another_machine_are_said() -> None:
    old = report(row())
    new = copy.deepcopy(old)
    assert differences(new, old) == []
    new["data"]["sha256"], new["machine"]["threads"] = ["y"], 4
    assert differences(new, old) == ["data sha256 ['y'], before ['x']", "machine threads 4, before 2"]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", '{"kind": "factors", "version": 1}', '{"kind": "bench", "version": 2}', "[" * 100_000,
     '{"kind": "bench", "version": 1, "rows": {}, "data": {}, "machine": {}}',
     '{"kind": "bench", "version": 1, "rows": [3], "data": {}, "machine": {}}',
     '{"kind": "bench", "version": 1, "rows": [{"race": []}], "data": {}, "machine": {}}',
     '{"kind": "bench", "version": 1, "rows": [], "data": [], "machine": {}}', "\x00\xff"],
)  # fmt: skip
def test_what_is_no_report_is_a_data_error(content: str) -> None:
    Path("o.json").write_text(content)
    with pytest.raises(DataError, match=r"^o\.json: expected a report of recli bench"):
        read_report("o.json")


def test_a_report_is_read_as_it_was_written() -> None:
    Path("o.json").write_text(json.dumps(report(row())))
    assert read_report("o.json") == report(row())
    with pytest.raises(MissingInputError, match=r"nowhere\.json: no such file"):
        read_report("nowhere.json")
