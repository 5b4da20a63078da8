"""--shard and --parts: the pieces are the whole, whatever was interrupted, and never a mixture."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recli.cli.shards import Shard, shards
from recli.errors import UsageError
from recli.io.atomic import output
from tests.conftest import Outcome
from tests.models import write_random

Recli = Callable[..., Outcome]


def contents(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


@given(st.integers(0, 10_000), st.integers(1, 50))
def test_shards_follow_each_other_and_differ_by_one_user_at_most(users: int, total: int) -> None:
    bounds = [shard.bounds(users) for shard in shards(total)]
    assert [start for start, _ in bounds] == [0, *(end for _, end in bounds[:-1])]
    assert bounds[-1][1] == users
    sizes = {end - start for start, end in bounds}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["", "3", "0/8", "9/8", "3/0", "-1/8", "3/8/2", "3 / 8", "a/b", "1/100000", "٣/٨"])
def test_a_shard_is_i_of_n(text: str) -> None:
    with pytest.raises(UsageError, match=f"^--shard {re.escape(text)}: expected i/n with i from 1 to n"):
        Shard.parse(text)


def test_names_of_parts_sort_as_their_numbers() -> None:
    names = [shard.name for shard in shards(1200)]
    assert names == sorted(names)
    assert Shard.parse("3/8") == Shard(3, 8)
    assert Shard(3, 8).name == "part-00003-of-00008"


@pytest.mark.parametrize("total", [1, 3, 8, 11])
def test_shards_concatenate_to_the_whole_byte_for_byte(total: int, model: Path, recli: Recli) -> None:
    """Eleven shards of eight users: some are empty tables with columns."""
    for format in ("csv", "ndjson", "parquet"):
        assert recli("score", model, "-k", 3, "-q", "-o", f"whole.{format}").code == 0
        for shard in shards(total):
            name = f"{shard.number:02}.{format}"
            assert recli("score", model, "-k", 3, "-q", "--shard", shard, "-o", name) == (0, "", "")
    heads, tables = zip(*(path.read_bytes().split(b"\n", 1) for path in sorted(Path().glob("[0-9]*.csv"))), strict=True)
    head, whole = Path("whole.csv").read_bytes().split(b"\n", 1)
    assert (set(heads), b"".join(tables)) == ({head}, whole)
    lines = b"".join(path.read_bytes() for path in sorted(Path().glob("[0-9]*.ndjson")))
    assert lines == Path("whole.ndjson").read_bytes()
    whole_rows = pl.read_parquet("whole.parquet")
    parts = [pl.read_parquet(path) for path in sorted(Path().glob("[0-9]*.parquet"))]
    assert {str(part.schema) for part in parts} == {str(whole_rows.schema)}
    assert pl.concat(parts).equals(whole_rows)


def test_shards_cut_the_users_asked_for_and_measure_their_own(model: Path, recli: Recli) -> None:
    Path("truth.csv").write_text("user,item\nu0,i0\nu4,i2\nzoe,i1\n")
    Path("users.txt").write_text("u4\nzoe\nu0\nu7\n")
    done = recli(
        "score", model, "-k", 2, "--users", "users.txt", "--truth", "truth.csv", "--shard", "1/2", "-o", "a.csv"
    )
    assert pl.read_csv("a.csv")["user"].unique(maintain_order=True).to_list() == ["u4", "zoe"]
    assert done.out.startswith("2 users with held-out items in part 1/2 of the users\n")
    assert "2 users of part 1/2, 5 items" in done.err
    shown = recli("score", model, "-k", 2, "--truth", "truth.csv", "--shard", "3/3", "--json")
    assert {"shard": "3/3", "judged_users": 1}.items() <= json.loads(shown.out).items()


def test_shards_of_users_with_a_history_are_the_same_bytes_too(model: Path, recli: Recli) -> None:
    rows = [f"new{user},i{(user * step) % 5}" for user in range(40) for step in (1, 2)]
    Path("history.csv").write_text("\n".join(["user,item", *rows, ""]))
    command = ("score", model, "-k", 2, "--history", "history.csv", "--explain", 1, "-q", "-o")
    assert recli(*command, "whole.csv").code == 0
    for shard in shards(7):
        assert recli(*command, f"{shard.number}.csv", "--shard", shard).code == 0
    parts = [path.read_bytes().split(b"\n", 1)[1] for path in sorted(Path().glob("[0-9].csv"))]
    assert b"".join(parts) == Path("whole.csv").read_bytes().split(b"\n", 1)[1]
    assert b"history" in parts[0]


def test_a_shard_is_named_after_the_model_and_itself(model: Path, recli: Recli) -> None:
    assert (
        "wrote model.recs.part-00002-of-00003.parquet: 3 lists" in recli("score", model, "-k", 1, "--shard", "2/3").err
    )
    assert recli("score", model, "-k", 1, "--shard", "2/3", "-n").code == 0


def test_a_folder_of_parts_is_the_whole_and_has_a_manifest(model: Path, recli: Recli) -> None:
    done = recli("score", model, "-k", 3, "--parts", 3)
    assert (done.code, done.out) == (0, "")
    assert "wrote 3 of 3 parts to model.recs/: 8 lists" in done.err
    names = [f"part-0000{i}-of-00003.parquet" for i in (1, 2, 3)]
    found = contents("model.recs")
    assert list(found) == ["manifest.json", *names]
    assert recli("score", model, "-k", 3, "-q", "-o", "whole.parquet").code == 0
    whole = pl.read_parquet("whole.parquet")
    assert pl.read_parquet("model.recs/*.parquet").equals(whole)
    assert duckdb.sql("from 'model.recs/*.parquet'").fetchall() == whole.rows()
    manifest = json.loads(found["manifest.json"])
    assert [file["name"] for file in manifest["files"]] == names
    assert [file["sha256"] for file in manifest["files"]] == [hashlib.sha256(found[name]).hexdigest() for name in names]
    assert manifest["rows"] == sum(file["rows"] for file in manifest["files"]) == len(whole)
    assert manifest["key"]["factors"] == [hashlib.sha256(model.read_bytes()).hexdigest()]


def test_what_is_there_is_skipped_and_what_is_not_the_same_is_replaced(model: Path, recli: Recli) -> None:
    command = ("score", model, "-k", 2, "--parts", 3, "-o", "out")
    assert recli(*command).code == 0
    first = contents("out")
    times = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.parquet")}
    again = recli(*command)
    assert re.findall(r"part \d/3 is there: skipped", again.err) == [f"part {i}/3 is there: skipped" for i in (1, 2, 3)]
    assert {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.parquet")} == times
    assert contents("out") == first
    Path("out/part-00002-of-00003.parquet").write_bytes(first["part-00001-of-00003.parquet"])  # a copy in its place
    Path("out/part-00003-of-00003.parquet").write_bytes(b"PAR1 or not")
    healed = recli(*command)
    assert "part 2/3 is of another run (part): replaced" in healed.err
    assert "part 3/3 is of another run (its footer): replaced" in healed.err
    assert contents("out") == first
    assert recli("score", model, "-k", 3, "--parts", 3, "-o", "out").err.count("is of another run (k): replaced") == 3


@pytest.mark.parametrize(
    ("change", "entry"),
    [
        (["--keep-seen"], "keep_seen"),
        (["--users", "users.txt"], "users"),
        (["--min-score", "-9"], "min_score"),
    ],
)
def test_inputs_and_settings_make_another_run_but_names_and_threads_do_not(
    change: list[str], entry: str, model: Path, recli: Recli
) -> None:
    Path("users.txt").write_text("u4\nu0\n")
    command = ("score", model, "-k", 1, "--parts", 2, "-o", "out/", "--deny", "deny.txt")
    Path("deny.txt").write_text("i4\n")
    assert recli(*command).code == 0
    model.rename("other.npz")
    same = ("score", "other.npz", *command[2:], "--threads", 1, "--no-clobber")
    assert recli(*same, "--stats", "run.json").err.count("skipped") == 2
    assert json.loads(Path("run.json").read_text())["skipped_parts"] == 2
    done = recli(*same, *change)
    assert (done.code, "exists already (--no-clobber)" in done.err) == (73, True)
    changed = recli(*same[:-1], *change)
    assert changed.err.count(f"is of another run ({entry}): replaced") == 2
    Path("deny.txt").write_text("i3\n")
    assert "is of another run (deny): replaced" in recli(*same[:-1], *change).err


def test_shards_fill_a_folder_that_parts_complete(model: Path, recli: Recli) -> None:
    command = ("score", model, "-k", 2)
    assert recli(*command, "--parts", 3, "-o", "whole/", "-q").code == 0
    for number in (2, 3):
        assert recli(*command, "--shard", f"{number}/3", "-o", "out/", "-q") == (0, "", "")
    assert "part 2/3 is there: skipped" in recli(*command, "--shard", "2/3", "-o", "out").err
    assert sorted(contents("out")) == ["part-00002-of-00003.parquet", "part-00003-of-00003.parquet"]
    done = recli(*command, "--parts", 3, "-o", "out")
    assert "wrote 1 of 3 parts to out: 8 lists" in done.err
    assert contents("out") == contents("whole")
    assert recli("score", model, "-k", 1, "--shard", "2/3", "-o", "out").code == 0
    assert not Path("out/manifest.json").exists()  # for they are not one set any more


def test_quality_is_of_all_parts_also_of_those_that_were_there(model: Path, recli: Recli) -> None:
    Path("truth.csv").write_text("user,item\nu0,i0\nu0,i3\nu4,i2\nzoe,i1\n")
    command = ("score", model, "-k", 2, "--truth", "truth.csv")
    whole = json.loads(recli(*command, "--json").out)
    for _ in range(2):
        Path("out").mkdir(exist_ok=True)
        Path("out/part-00003-of-00003.parquet").unlink(missing_ok=True)
        parts = json.loads(recli(*command, "--parts", 3, "-o", "out", "--json").out)
        assert {name: parts[name] for name in whole if "@" in name} == pytest.approx(
            {name: whole[name] for name in whole if "@" in name}
        )
        assert (parts["judged_users"], parts.get("short_lists")) == (3, whole.get("short_lists"))


def test_a_dry_run_says_what_is_there_and_makes_nothing(model: Path, recli: Recli) -> None:
    assert "to 3 parts in model.recs/, 0 of which are there" in recli("score", model, "-k", 1, "--parts", 3, "-n").err
    assert not Path("model.recs").exists()
    assert recli("score", model, "-k", 1, "--shard", "2/3", "-o", "model.recs/").code == 0
    assert "to 3 parts in model.recs/, 1 of which are there" in recli("score", model, "-k", 1, "--parts", 3, "-n").err


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(recli: Recli) -> None:
    """Killed as soon as there is a part, whatever it is doing then; what is whole is kept."""
    write_random("large.npz", 20_000, 500)
    command = ["score", "large.npz", "--keep-seen", "--parts", "60", "-q", "-o"]
    assert recli(*command, "whole").code == 0
    run = subprocess.Popen([sys.executable, "-m", "recli", *command, "out"])
    try:
        deadline = time.monotonic() + 60
        while not list(Path("out").glob("part-*.parquet")):
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    kept = {name: data for name, data in contents("out").items() if name.startswith("part-")}
    assert kept.items() <= contents("whole").items()
    times = {name: os.stat(f"out/{name}").st_mtime_ns for name in kept}
    done = recli(*command[:5], "-o", "out")
    assert done.err.count(" is there: skipped") == len(kept)
    assert {name: os.stat(f"out/{name}").st_mtime_ns for name in kept} == times
    assert contents("out") == contents("whole")  # no temporary file or lock of the killed run either


@pytest.mark.parametrize(
    ("locked", "other"), [("manifest.json", "--parts 2"), ("part-00001-of-00002.parquet", "--shard 1/2")]
)
def test_two_runs_do_not_write_one_part(locked: str, other: str, model: Path, process: Callable[..., object]) -> None:
    Path("out").mkdir()
    with output(f"out/{locked}"):
        done = process("score", model, "-k", 1, *other.split(), "-o", "out/")
    assert done.returncode == 75  # type: ignore[attr-defined]
    assert f"out/{locked}: another recli run" in done.stderr.decode()  # type: ignore[attr-defined]


def test_parts_of_another_number_are_neither_mixed_nor_removed(model: Path, recli: Recli) -> None:
    assert recli("score", model, "-k", 1, "--parts", 3, "-o", "out").code == 0
    before = contents("out")
    for flags in (["--parts", 2], ["--shard", "1/2"]):
        done = recli("score", model, "-k", 1, *flags, "-o", "out")
        assert done[::2] == (
            73,
            "recli: error: out: it holds part-00001-of-00003.parquet and 2 more, which would be read along with these "
            "2 parts: remove it, or give another folder\n",
        )
    assert contents("out") == before


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ("--shard 0/3", 2, r"--shard 0/3: expected i/n .*"),
        ("--parts 0", 2, r"--parts 0: expected a value from 1 to 99999"),
        ("--parts many", 2, r"--parts many: .*integer.*"),
        ("--parts 2 --shard 1/2", 2, r"--shard 1/2 and --parts exclude each other: .*"),
        ("--parts 2 -o -", 2, r"--parts writes a folder: give -o FOLDER/, not -o -"),
        ("--parts 2 --output-format csv", 2, r"--output-format csv: the parts in a folder are Parquet.*"),
        ("--shard 1/2 -o out/ --output-format csv", 2, r"--output-format csv: the parts .*"),
        ("--parts 2 --users -", 2, r"--users -: a later run compares parts with the files .*: give a file"),
        ("--parts 2 --users s3://a/b.csv", 2, r"--users s3://a/b\.csv: a later run compares parts .*"),
        ("--parts 2 -o model.npz", 73, r"model\.npz: expected a folder for the parts, found a file"),
        ("--parts 2 -o no/where/", 73, r"no/where/: the folder cannot be made: its parent does not exist.*"),
        ("--parts 2 -k 9", 2, r"-k 9: the model has 5 items: give at most -k 5"),
        ("--pairs p.csv --parts 2", 2, r"--pairs does not go with .*--parts: .*"),
        ("--similar i.txt --shard 1/2", 2, r"--similar does not go with --shard: .*"),
    ],
)
def test_wrong_uses_have_their_line_and_code(arguments: str, code: int, line: str, model: Path, recli: Recli) -> None:
    done = recli("score", model, *([] if "-k" in arguments else ["-k", 1]), *arguments.split())
    assert (done.code, done.out) == (code, "")
    assert re.fullmatch(rf"recli: error: {line}", done.err.splitlines()[-1]), done.err
