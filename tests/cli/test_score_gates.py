"""--expect: the old lists stay unless the new ones are as expected."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import Outcome

Recli = Callable[..., Outcome]
READ: dict[str, Any] = {"parquet": pl.read_parquet, "csv": pl.read_csv, "ndjson": pl.read_ndjson}


def expect(*gates: str) -> list[str]:
    return [argument for gate in gates for argument in ("--expect", gate)]


@pytest.fixture
def truth(model: Path) -> Path:
    """Held-out items of two users of the model and of one that it does not know."""
    Path("truth.csv").write_text("user,item\nu0,i0\nu0,i3\nu4,i2\nzoe,i1\n")
    return Path("truth.csv")


@pytest.fixture(params=READ)
def old(request: pytest.FixtureRequest, model: Path, ratings: Path, recli: Recli) -> Path:
    """Lists of last night, with two items a user, from another model."""
    path = Path(f"recs.{request.param}")
    assert recli("factorize", ratings, "--rank", 1, "--where", "rating > 1", "-q", "-o", "old.npz").code == 0
    assert recli("score", "old.npz", "-k", 2, "--keep-seen", "-q", "-o", path, "--users", ratings).code == 0
    os.utime(path, (1e9, 1e9))
    return path


def test_gates_that_hold_let_the_new_lists_take_the_old_ones_place(old: Path, recli: Recli) -> None:
    before = old.read_bytes()
    gates = expect("users >= 0.9 * previous", "coverage > 0.2", "churn < 1", "rows == previous", "short == 0")
    done = recli("score", "model.npz", "-k", 2, "--keep-seen", "-o", old, "--json", *gates)
    assert done.code == 0
    assert old.read_bytes() != before
    new, shown = READ[old.suffix[1:]](old), json.loads(done.out)
    assert (shown["published"], shown["failed_gates"]) == (True, [])
    assert shown["measured"]["rows"] == len(new) == shown["previous"]["rows"] == 16
    assert shown["measured"]["items"] == new["item"].n_unique()


def test_a_gate_that_fails_keeps_the_old_lists_and_says_why_in_one_line(old: Path, recli: Recli) -> None:
    before, files = old.read_bytes(), sorted(os.listdir())
    command = ["score", "model.npz", "-k", 2, "--keep-seen", "-o", old, "-q", "--stats", "run.json"]
    done = recli(*command, *expect("users >= 1.5 * previous", "coverage > 0.2", "churn < 0.1"))
    assert (done.code, done.out) == (3, "")
    churn = r"expected churn < 0\.1, found 0\.[0-9]+"
    line = rf"{old}: not published, the old file stays: expected users >= 1\.5 \* previous = 12, found 8; {churn}"
    assert re.fullmatch(rf"recli: error: {line}\n", done.err)
    assert (old.read_bytes(), old.stat().st_mtime) == (before, 1e9)
    assert sorted(os.listdir()) == sorted([*files, "run.json"])  # no temporary file, no lock
    stats = json.loads(Path("run.json").read_text())
    assert (stats["published"], len(stats["failed_gates"]), stats["measured"]["users"]) == (False, 2, 8)
    shown = recli(*command, "--json", *expect("users > 8"))
    assert (shown.code, json.loads(shown.out)["published"]) == (3, False)


def test_churn_and_measures_are_of_the_files(old: Path, recli: Recli) -> None:
    before = READ[old.suffix[1:]](old)
    done = recli(
        "score", "model.npz", "-k", 3, "--keep-seen", "-o", "new.csv", "--previous", old, "--json", *expect("churn < 1")
    )
    new, shown = pl.read_csv("new.csv"), json.loads(done.out)["measured"]
    gone = new.join(before, on=["user", "item"], how="anti")
    assert shown["churn"] == pytest.approx(len(gone) / len(new))
    assert (shown["coverage"], shown["short"]) == (new["item"].n_unique() / 5, 0)


def test_a_first_run_needs_no_old_file_unless_a_gate_does(model: Path, recli: Recli) -> None:
    line = "recs.csv: not published, nothing is written: expected users > 8, found 8"
    assert recli("score", model, "-k", 2, "-q", "-o", "recs.csv", *expect("users > 8")) == (
        3,
        "",
        f"recli: error: {line}\n",
    )
    assert not Path("recs.csv").exists()
    for gate in ("churn < 0.6", "users >= 0.9 * previous"):
        done = recli("score", model, "-k", 2, "-o", "recs.csv", *expect("users > 1", gate))
        assert (done.code, done.out) == (66, "")
        assert re.fullmatch(
            rf"recli: error: recs\.csv: --expect '{re.escape(gate)}' compares .* leave it out this first time, .*\n",
            done.err,
        )
    assert recli("score", model, "-k", 2, "-q", "-o", "recs.csv", *expect("users == 8")) == (0, "", "")
    assert recli("score", model, "-k", 2, "-q", "-o", "recs.csv", *expect("churn == 0")) == (0, "", "")


@pytest.mark.parametrize("format", READ)
def test_stdout_gets_everything_or_nothing(format: str, model: Path, recli: Recli) -> None:
    target = ("-o", "-", "--output-format", format)
    usual = recli("score", model, "-k", 2, "-q", "-o", f"recs.{format}")
    assert usual.code == 0
    if format != "parquet":  # binary, which capfd cannot decode
        done = recli("score", model, "-k", 2, "-q", *target, "--previous", f"recs.{format}", *expect("churn == 0"))
        assert done == (0, Path(f"recs.{format}").read_text(), "")
    done = recli("score", model, "-k", 2, "-q", *target, *expect("coverage > 1"))
    assert (done.code, done.out) == (3, "")
    assert re.fullmatch(
        r"recli: error: stdout: not published, nothing is written: expected coverage > 1, .*\n", done.err
    )


def test_metrics_are_gates_where_there_is_held_out_data(truth: Path, recli: Recli) -> None:
    command = ("score", "model.npz", "-k", 2, "--truth", truth)
    shown = json.loads(recli(*command, "-o", "old.csv", "--json", *expect("recall@2 >= 0", "users == 3")).out)
    gates = [f"{name}@2 == previous" for name in ("recall", "ndcg", "hit_rate", "coverage", "novelty")]
    same = json.loads(recli(*command, "--previous", "old.csv", "--json", *expect(*gates)).out)
    assert same["failed_gates"] == []
    assert same["previous"]["recall@2"] == shown["recall@2"]
    assert "published" not in same  # nothing was to be
    done = recli(*command, "-q", *expect("recall@2 > 1"))
    assert done.code == 3
    assert "recall@2" in done.out
    assert re.fullmatch(
        r"recli: error: truth\.csv: the quality is not as expected: expected recall@2 > 1, found 1\n", done.err
    )


def test_old_lists_are_judged_as_lists_of_todays_users(truth: Path, recli: Recli) -> None:
    """u0 had one of its two items, u4 none; zoe was not there."""
    Path("old.csv").write_text("user,item,rank,reason\nu0,i3,1,model\nu4,gone,1,model\nu4,i0,2,model\nu9,i1,1,model\n")
    shown = recli(
        "score",
        "model.npz",
        "-k",
        2,
        "--truth",
        truth,
        "--previous",
        "old.csv",
        "--json",
        *expect("recall@2 > previous"),
    )
    before = json.loads(shown.out)["previous"]
    assert (before["recall@2"], before["hit_rate@2"]) == (pytest.approx(1 / 6), pytest.approx(1 / 3))
    assert (before["users"], before["rows"]) == (3, 4)


def test_values_are_said_with_v(old: Path, recli: Recli) -> None:
    done = recli("score", "model.npz", "-k", 2, "--keep-seen", "-o", old, "-v", *expect("churn <= 1"))
    assert "measured: rows 16 (previously 16), users 8 (previously 8), " in done.err
    assert re.search(r", churn 0\.\d+\n", done.err)


def test_a_dry_run_checks_gates_and_old_lists_and_writes_nothing(old: Path, recli: Recli) -> None:
    before = old.read_bytes()
    assert recli("score", "model.npz", "-k", 2, "-o", old, "-n", *expect("users > 100 * previous")).code == 0
    assert recli("score", "model.npz", "-k", 2, "-o", "none.csv", "-n", *expect("churn < 1")).code == 66
    assert old.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "table", "line"),
    [
        (
            "recs.csv",
            "a,b\n1,2\n",
            r"expected lists like the new ones, with columns user \(text\), .*; found columns a, b",
        ),
        ("recs.csv", "user,item,rank,reason\nu1,i1,first,model\n", "cannot be read: conversion .* failed .*rank.*"),
        ("recs.ndjson", '{"user":"u1"}\n', "expected lists like the new ones, .*; found rows without item"),
        ("recs.csv", "", "expected a table, found an empty file"),
        ("recs.parquet", "PAR1", "cannot be read: .*"),
    ],
)
def test_an_old_file_of_another_shape_is_bad_data_before_the_work(
    name: str, table: str, line: str, model: Path, recli: Recli
) -> None:
    Path(name).write_text(table)
    done = recli("score", model, "-k", 2, "-o", name, *expect("users > 0", "churn < 0.6"))
    assert (done.code, done.out) == (65, "")
    assert re.fullmatch(rf"recli: error: {name}: {line}", done.err.splitlines()[-1])
    assert "users 8/8" not in done.err
    assert Path(name).read_text() == table
    assert recli("score", model, "-k", 2, "-o", name, *expect("users > 0")).code == 0  # which looks at the new one only


def test_other_ids_in_the_old_file_are_bad_data(model: Path, recli: Recli) -> None:
    pl.DataFrame({"user": [1], "item": ["i1"], "rank": [1], "reason": ["model"]}).write_parquet("recs.parquet")
    done = recli("score", model, "-k", 2, "-o", "recs.parquet", "-q", *expect("churn < 0.6"))
    assert done.code == 65
    assert re.fullmatch(r"recli: error: recs\.parquet: .* user \(text\), .*; found Int64 in column user\n", done.err)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("-o recs.csv --expect users", r"--expect 'users': expected NAME OP NUMBER .*rows, users, .*"),
        ("-o recs.csv --expect usres>3", r"--expect 'usres>3': unknown name usres, .*"),
        ("-o recs.csv --expect recall@2>0", r"--expect 'recall@2>0': .*give --truth too"),
        ("-o recs.csv --truth t.csv --expect recall@5>0", r"--expect 'recall@5>0': lists have 2 items .*recall@2.*"),
        ("-o recs.csv --expect churn<previous", r"--expect 'churn<previous': churn compares .*"),
        ("-o - --output-format csv --expect churn<0.6", r"--expect 'churn<0.6': .*give --previous FILE"),
        ("--truth t.csv --expect users>3", r"--expect 'users>3': no lists are written: give -o FILE too"),
        ("--truth t.csv --expect recall@2>previous", r"--expect 'recall@2>previous': .*give --previous FILE"),
        ("-o recs.csv --previous o.csv", r"--previous o\.csv: no --expect compares with it"),
        ("-o recs.csv --previous o.csv --expect users>3", r"--previous o\.csv: no --expect compares with it"),
        ("--shard 1/2 --expect users>3", r"--expect 'users>3': .*does not go with --shard"),
        ("--parts 2 --expect users>3", r"--expect 'users>3': .*does not go with --parts"),
        ("--similar i.csv --expect users>3", r"--similar does not go with --expect: .*"),
    ],
)
def test_a_gate_that_means_nothing_is_a_usage_error_at_once(arguments: str, line: str, recli: Recli) -> None:
    """Before anything is read: there is no model here."""
    done = recli("score", "m.npz", "-k", 2, *arguments.split())
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(rf"recli: error: {line}\n", done.err), done.err
    assert os.listdir() == []


def test_a_previous_file_that_is_not_there_is_no_input(model: Path, recli: Recli) -> None:
    done = recli("score", model, "-k", 2, "-o", "recs.csv", "--previous", "gone.csv", *expect("churn < 0.6"))
    assert done[::2] == (66, "recli: error: gone.csv: no such file\n")


def test_gates_can_stand_in_the_settings_file(old: Path, recli: Recli) -> None:
    command = ("score", "model.npz", "-k", 2, "-q", "-o", old)
    Path("recli.toml").write_text('[score]\nexpect = ["users > 8", "churn < 0.6"]\n')
    assert recli(*command).code == 3
    assert recli(*command, *expect("users > 7")).code == 0  # the command line wins
    Path("recli.toml").write_text("[score]\nexpect = []\n")
    assert recli(*command).code == 0
    Path("recli.toml").write_text('[score]\nexpect = ["usres > 8"]\n')
    done = recli(*command)
    assert (done.code, done.err[-18:]) == (2, "(from recli.toml)\n")


def test_gates_of_a_settings_file_are_for_lists_that_are_written(truth: Path, recli: Recli) -> None:
    Path("recli.toml").write_text('[score]\nexpect = ["users > 8", "churn < 0.6"]\nprevious = "old.csv"\n')
    assert recli("score", "model.npz", "-k", 2, "--truth", truth, "-q").code == 0
    assert recli("score", "model.npz", "-k", 2, "-q").code == 66
    assert recli("score", "model.npz", "-k", 2, "--parts", 2).code == 2


@pytest.mark.parametrize("value", ['"users > 8"', "8", "[8]", '["users > 8", 3]', '[["users > 8"]]'])
def test_anything_but_a_list_of_texts_is_refused(value: str, recli: Recli) -> None:
    Path("recli.toml").write_text(f"[score]\nexpect = {value}\n")
    done = recli("score", "m.npz")
    assert done.code == 2
    assert re.fullmatch(r"recli: error: recli\.toml: expect: expected a list of texts in quotes, found .*\n", done.err)


def test_a_variable_that_would_be_ignored_is_refused(
    model: Path, recli: Recli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECLI_EXPECT", "users > 8")
    assert recli("score", model, "-k", 2)[::2] == (
        2,
        "recli: error: RECLI_EXPECT is no setting: give --expect, or expect = [...] in recli.toml\n",
    )
