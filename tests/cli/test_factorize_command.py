"""recli factorize: what it writes, and what it says on which stream."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recli.cli.main import COMMANDS
from tests.conftest import Outcome

Recli = Callable[..., Outcome]


def header(path: str) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as model:
        found = json.loads(model["header"].tobytes())
    assert isinstance(found, dict)
    return found


def test_log_lines_say_what_was_read_chosen_done_and_written(ratings: Path, recli: Recli) -> None:
    outcome = recli("factorize", ratings, "--rank", 2, "--iterations", 3, "--threads", 1)
    read, device, *iterations, wrote = outcome.err.splitlines()
    rows = len(ratings.read_text().splitlines()) - 1
    assert outcome.code == 0
    assert outcome.out == ""
    assert read.startswith(f"recli factorize: read {rows} rows: 8 users, 5 items, {rows} pairs; columns user=user, ")
    assert device.startswith("recli factorize: device cpu (")  # --device auto says what it chose, and why
    assert device.endswith("), 1 threads")
    assert [line.split(",")[0] for line in iterations] == [f"recli factorize: iteration {i}/3" for i in (1, 2, 3)]
    assert wrote.startswith("recli factorize: wrote ratings.factors.npz: 8 users, 5 items, rank 2; ")


def test_quiet_says_nothing_and_writes_the_same(ratings: Path, recli: Recli) -> None:
    recli("factorize", ratings, "-o", "loud.npz", "-v")
    assert recli("factorize", ratings, "-o", "quiet.npz", "-q") == (0, "", "")
    assert Path("quiet.npz").read_bytes() == Path("loud.npz").read_bytes()


def test_verbose_repeats_a_device_that_was_asked_for(ratings: Path, recli: Recli) -> None:
    usual = recli("factorize", ratings, "--device", "cpu").err
    assert "device cpu" not in usual
    assert "device cpu (as asked)" in recli("factorize", ratings, "--device", "cpu", "-v").err


def test_the_result_as_json_is_what_stats_and_the_model_say(ratings: Path, recli: Recli) -> None:
    outcome = recli("factorize", ratings, "--rank", 2, "--json", "--stats", "run.json", "-q")
    result = json.loads(outcome.out)
    assert outcome.out.count("\n") == 1
    assert json.loads(Path("run.json").read_text()) == result
    with np.load("ratings.factors.npz", allow_pickle=False) as model:
        assert model["P"].shape == (result["users"], result["rank"])
        assert model["Q"].shape == (result["items"], result["rank"])
        assert len(model["seen_indices"]) == result["pairs"] == result["rows"] - result["repeated"]
    stored = header("ratings.factors.npz")
    assert stored["config"]["alpha0"] == result["alpha0"]
    assert stored["device"] == result["device"] == "cpu"
    assert (result["command"], result["output"], result["iterations"]) == ("factorize", "ratings.factors.npz", 5)
    assert result["seconds"] > 0
    assert result["peak_rss_bytes"] > 1e6


def test_stats_are_written_without_the_log_and_may_go_to_stdout(ratings: Path, recli: Recli) -> None:
    outcome = recli("factorize", ratings, "--stats", "-", "-q")
    assert json.loads(outcome.out)["solver"] == "ials"
    assert outcome.err == ""


def test_every_line_of_a_json_log_is_an_object(ratings: Path, recli: Recli) -> None:
    lines = recli("factorize", ratings, "--log-format", "json", "--iterations", 3).err.splitlines()
    lines += recli("factorize", "nowhere.csv", "--log-format", "json").err.splitlines()
    events = [json.loads(line) for line in lines]
    for event in events:
        assert datetime.datetime.fromisoformat(event["ts"]).utcoffset() == datetime.timedelta(0)
        assert event["event"] == "factorize"
        assert event["message"]
    assert [event["level"] for event in events] == ["info"] * (len(events) - 1) + ["error"]
    assert events[0]["users"] == 8
    assert events[-1]["exit_code"] == 66


@pytest.mark.parametrize("solver", ["ials", "pop"])
def test_a_dry_run_reads_checks_and_writes_nothing(solver: str, ratings: Path, recli: Recli) -> None:
    rank = ("--rank", 7) if solver == "ials" else ()
    outcome = recli("factorize", ratings, "-n", "--json", "--solver", solver, *rank, "--stats", "run.json")
    plan = json.loads(outcome.out)
    assert [path.name for path in Path().iterdir()] == ["ratings.csv"]
    assert (plan["output"], plan["users"]) == ("ratings.factors.npz", 8)
    assert plan["config"]["rank"] == (7 if rank else 64)
    assert set(plan["plan"]) == {"seconds", "bytes", "output_bytes"}
    assert outcome.err.splitlines()[-1].startswith(f"recli factorize: plan: {solver}")
    assert outcome.err.endswith("; nothing written\n")
    assert ("rank" in outcome.err.splitlines()[-1]) is (solver == "ials")  # pop has none
    assert recli("factorize", ratings, "-n", "--columns", "user=who").code == 65


def test_a_dry_run_foretells_the_size_of_the_model(sample: Path, recli: Recli) -> None:
    plan = json.loads(recli("factorize", sample / "ratings.parquet", "-n", "--json", "--rank", 32).out)["plan"]
    recli("factorize", sample / "ratings.parquet", "--rank", 32)
    size = Path("ratings.factors.npz").stat().st_size
    assert plan["output_bytes"] / 1.25 < size < plan["output_bytes"] * 1.25


def test_an_existing_output_is_replaced_unless_told_otherwise(ratings: Path, recli: Recli) -> None:
    Path("m.npz").write_text("old")
    refused = recli("factorize", ratings, "-o", "m.npz", "--no-clobber")
    assert (refused.code, refused.err) == (73, "recli: error: m.npz: exists already (--no-clobber)\n")
    assert Path("m.npz").read_text() == "old"
    assert recli("factorize", ratings, "-o", "m.npz").code == 0
    assert Path("m.npz").read_bytes()[:4] == b"PK\x03\x04"
    assert recli("factorize", ratings, "-o", "new.npz", "--no-clobber").code == 0


def test_inputs_of_all_kinds_give_one_model(ratings: Path, recli: Recli) -> None:
    """Whole and in parts, compressed or not, with other names, delimiters and formats."""
    text = ratings.read_text()
    head, *rows = text.splitlines(keepends=True)
    for name in ("parts", "logs"):
        Path(name).mkdir()
    for at, part in enumerate((rows[:9], rows[9:])):
        Path(f"parts/{at}.csv").write_text(head + "".join(part))
        Path(f"logs/2025-0{at}.csv.gz").write_bytes(gzip.compress((head + "".join(part)).encode()))
    Path("bare.tsv").write_text("".join(rows).replace(",", "\t"))
    Path("named.csv").write_text(text.replace("user,item,rating", "who,what,how"))
    table = pl.read_csv(ratings)
    table.write_parquet("table.parquet")
    table.write_ndjson("table.ndjson")
    recli("factorize", ratings, "-o", "model.npz")
    expected = header("model.npz")
    with np.load("model.npz") as model:
        P, Q = model["P"], model["Q"]
    for name, *flags in (
        ["parts"],
        ["parts/0.csv", "parts/1.csv"],
        ["logs/2025-*.csv.gz"],
        ["table.parquet"],
        ["table.ndjson"],
        ["bare.tsv", "--no-header", "--columns", "user=column_1,item=column_2,rating=column_3"],
        ["named.csv", "--columns", "user=who,item=what,rating=how"],
    ):
        outcome = recli("factorize", name, *flags, "-o", "other.npz", "-q")
        assert (outcome.code, outcome.err) == (0, "")
        with np.load("other.npz") as model:
            assert np.array_equal(model["P"], P)
            assert np.array_equal(model["Q"], Q)
        assert header("other.npz")["config"] == expected["config"]
    assert header("other.npz")["columns"] == {"user": "who", "item": "what"}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("data.csv", "data.factors.npz"),
        ("sub/data.csv", "data.factors.npz"),  # into the working folder
        ("data.csv.gz", "data.factors.npz"),
        ("2025-*.csv", "2025.factors.npz"),
        ("sub/", "sub.factors.npz"),
        (".", "recli.factors.npz"),
    ],
)
def test_without_an_output_the_model_is_named_after_the_input(
    name: str, written: str, ratings: Path, recli: Recli
) -> None:
    Path("sub").mkdir()
    for made in ("data.csv", "sub/data.csv", "2025-01.csv"):
        Path(made).write_text(ratings.read_text())
    Path("data.csv.gz").write_bytes(gzip.compress(ratings.read_bytes()))
    if name == ".":
        Path("data.csv.gz").unlink()
    outcome = recli("factorize", name)
    assert outcome.code == 0, outcome.err
    assert f"wrote {written}: " in outcome.err
    assert [path.name for path in Path().glob("*.npz")] == [written]


def test_rows_that_repeat_a_pair_are_counted_and_said(recli: Recli) -> None:
    Path("r.csv").write_text("user,item\na,1\na,1\na,2\nb,1\n")
    outcome = recli("factorize", "r.csv", "--json")
    assert json.loads(outcome.out)["repeated"] == 1
    assert "recli factorize: 1 rows repeated a user and item; --duplicates says what they mean\n" in outcome.err


def test_no_seen_leaves_out_who_has_what(ratings: Path, recli: Recli) -> None:
    recli("factorize", ratings, "--no-seen", "-o", "m.npz")
    with np.load("m.npz") as model:
        assert "seen_indices" not in model.files
    refused = recli("score", "m.npz", "-k", 2, "-q")
    assert (refused.code, refused.err.count("\n")) == (65, 1)
    assert "m.npz: the model has no seen lists" in refused.err
    assert recli("score", "m.npz", "-k", 2, "-q", "--keep-seen") == (0, "", "")


def test_the_header_of_a_model_says_which_command_made_it(ratings: Path, recli: Recli) -> None:
    recli("factorize", ratings, "--seed", 5, "--reg", 0.5, "-o", "m.npz")
    stored = header("m.npz")
    assert stored["command"] in COMMANDS
    assert (stored["config"]["seed"], stored["config"]["reg"]) == (5, 0.5)
    assert "m.npz" not in json.dumps(stored)  # no path and no clock: the same job writes the same bytes
    assert str(Path.cwd()) not in json.dumps(stored)


def test_an_output_that_a_folder_or_a_glob_stood_for_is_refused(recli: Callable[..., Outcome]) -> None:
    Path("logs").mkdir()
    Path("logs/model").write_text("user,item\n1,2\n")
    done = recli("factorize", "logs/mod*", "-o", "logs/model")
    assert (done.code, done.err) == (73, "recli: error: logs/model: the output is also an input: give another -o\n")
    assert Path("logs/model").read_text() == "user,item\n1,2\n"


def test_whole_number_ranges_are_shown_whole(recli: Callable[..., Outcome]) -> None:
    done = recli("factorize", "r.csv", "--seed", "-1")
    assert done.err == "recli: error: --seed -1: expected a value from 0 to 9223372036854775807\n"


def test_the_model_says_how_it_was_made(recli: Callable[..., Outcome]) -> None:
    Path("r.csv").write_text("u,item,rating\n1,2,5\n1,3,1\n2,2,4\n")
    arguments = ("--columns", "user=u", "--where", "rating >= 4", "--duplicates", "max", "--rank", "3", "-o", "m.npz")
    assert recli("factorize", "r.csv", *arguments).code == 0
    header = json.loads(np.load("m.npz")["header"].tobytes())
    assert header["config"]["reading"] == {"where": "rating >= 4", "duplicates": "max", "weight": None}
    assert header["config"]["rank"] == 3
    assert header["config"]["alpha0"] == 8.0  # resolved: every pair that is left is stored
    assert header["device"] == "cpu"
    assert "r.csv" not in json.dumps(header)
