"""What goes wrong at 3 a.m.: one line that says where and what, the exit code of its kind, the old output intact."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recli.cli.main import main

Make = Callable[[bytes], dict[str, bytes]]
USERS, ITEMS = 12, 9
PAIRS = [(u, i, 1 + u * i % 5) for u in range(USERS) for i in range(ITEMS) if (u + i) % 3]
RATINGS = "user,item,rating\n" + "".join(f"u{u},i{i},{rating}\n" for u, i, rating in PAIRS)
OLD = b"the output of last night"


@pytest.fixture(scope="session")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("model")
    (folder / "ratings.csv").write_text(RATINGS)
    path = folder / "ratings.factors.npz"
    assert main(["factorize", str(folder / "ratings.csv"), "--rank", "4", "-q", "-o", str(path)]) == 0
    return path.read_bytes()


@pytest.fixture
def ratings(_clean: None) -> Path:
    """12 users, 9 items, 72 pairs."""
    path = Path("ratings.csv")
    path.write_text(RATINGS)
    return path


@pytest.fixture
def model(_clean: None, model_bytes: bytes) -> Path:
    """A model of rank 4 of those ratings."""
    path = Path("ratings.factors.npz")
    path.write_bytes(model_bytes)
    return path


def text(**files: str) -> Make:
    return lambda model: {f"{name}.csv": content.encode() for name, content in files.items()}


def rows(*lines: str, head: str = "user,item,rating") -> Make:
    return text(r="\n".join([head, *lines, ""]))


def cut_parquet(model: bytes) -> dict[str, bytes]:
    file = io.BytesIO()
    pl.DataFrame({"user": range(999), "item": range(999)}).write_parquet(file)
    return {"r.parquet": file.getvalue()[:-100]}


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def with_member(model: bytes, name: str, change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    """The model with one changed member."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(model)) as old, zipfile.ZipFile(file, "w") as new:
        for member in old.namelist():
            new.writestr(member, change(old.read(member)) if member == f"{name}.npy" else old.read(member))
    return {"m.npz": file.getvalue()}


def newer(model: bytes) -> dict[str, bytes]:
    return with_member(model, "header", lambda member: member.replace(b'"version": 1', b'"version": 9'))


def terabyte(model: bytes) -> dict[str, bytes]:
    """b_v says that it has 2^38 numbers."""
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (274877906944,), }"
    head += b" " * (117 - len(head)) + b"\n"
    return with_member(model, "b_v", lambda member: b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)


def nothing(model: bytes) -> dict[str, bytes]:
    return {}


F, S = "factorize ratings.csv -o out.npz", "score ratings.factors.npz -k 3 -o out.csv"
TABLE: list[tuple[str, Make, int, str]] = [
    # no input, or none that can be read
    ("factorize r.csv -o out.npz", nothing, 66, r"r\.csv: no such file"),
    ("factorize 'logs/*.csv' -o out.npz", nothing, 66, r"logs/\*\.csv: no such file"),
    ("score m.npz -o out.csv", nothing, 66, r"m\.npz: no such file"),
    (f"{S} --users u.csv", nothing, 66, r"u\.csv: no such file"),
    (f"{S} --truth t.csv", nothing, 66, r"t\.csv: no such file"),
    ("factorize '' -o out.npz", nothing, 2, "a file name is empty"),
    (f"{S} --users ''", nothing, 2, "a file name is empty"),
    # bad data
    ("factorize r.csv -o out.npz", text(r=""), 65, r"r\.csv: expected a table, found an empty file"),
    ("factorize r.csv -o out.npz", rows(), 65, r"r\.csv: no rows"),
    (f"{F} --where 'rating > 9'", nothing, 65, r"ratings\.csv: no rows are left by --where"),
    (
        "factorize r.csv -o out.npz",
        rows("1,2,3", head="a,b,c"),
        65,
        r"r\.csv: no column looks like the user; found a, ",
    ),
    (f"{F} --columns user=uid", nothing, 65, r"ratings\.csv: no column 'uid' .*found user, item, rating"),
    (f"{F} --weight w", nothing, 65, r"ratings\.csv: no column 'w' \(--weight\); found user, item, rating"),
    ("factorize r.csv -o out.npz", rows("u1,i1,3", ",i2,3"), 65, r"r\.csv: column 'user': .*missing, first in row 2"),
    ("factorize r.csv -o out.npz", rows("u1,i1,3", "u1,,3"), 65, r"r\.csv: column 'item': .*missing, first in row 2"),
    *(
        ("factorize r.csv -o out.npz", rows("u1,i1,3", f"u1,i2,{bad}"), 65, r"r\.csv: column 'rating': .*row 2")
        for bad in ("NaN", "inf", "-inf", "many", "", "1e99")
    ),
    ("factorize r.csv -o out.npz --weight rating", rows("u1,i1,3", "u2,i2,-2"), 65, r"r\.csv: expected weights.*-2"),
    ("factorize r.csv -o out.npz --alpha 2", rows("u1,i1,3", "u2,i2,-2"), 65, r"r\.csv: expected weights.*-4"),
    ("factorize r.csv -o out.npz", rows("u1,i1,3,4,5"), 65, r"r\.csv: cannot be read: "),
    (
        "factorize r.csv -o out.npz",
        lambda _: {"r.csv": b"user,item\n\xff\xfe,\x80\n"},
        65,
        r"r\.csv: line 2: expected UTF-8, found the bytes ",
    ),
    ("factorize r.parquet -o out.npz", cut_parquet, 65, r"r\.parquet: cannot be read: "),
    ("score m.npz -o out.csv", lambda model: {"m.npz": model[: len(model) // 2]}, 65, r"m\.npz: .*truncated"),
    ("score m.npz -o out.csv", lambda _: {"m.npz": b""}, 65, r"m\.npz: .*empty file"),
    ("score m.npz -o out.csv", lambda _: {"m.npz": npz(x=np.ones(3))}, 65, r"m\.npz: expected an NPZ written by recli"),
    (
        "score m.npz -o out.csv",
        lambda _: {"m.npz": npz(header=np.array([{}], object))},
        65,
        r"m\.npz: .*pickled objects, which are never loaded",
    ),
    (
        "score ratings.csv -o out.csv",
        nothing,
        65,
        r"ratings\.csv: expected one local NPZ file of factors that recli wrote, found 1 csv",
    ),
    ("factorize ratings.factors.npz -o out.npz", nothing, 65, r"ratings\.factors\.npz: .*interactions, found factors"),
    ("score m.npz -o out.csv", newer, 65, r"m\.npz: expected factors/1 or older, found factors/9: upgrade recli"),
    ("score m.npz -o out.csv", terabyte, 65, r"m\.npz: array b_v: its header asks for shape \[274877906944\]"),
    (f"{S} --users u.csv", text(u="user\n"), 65, r"u\.csv: no users"),
    (f"{S} --users u.csv", text(u="user,name\n"), 65, r"u\.csv: no users"),
    (f"{S} --truth t.csv", text(t="user,item\n"), 65, r"t\.csv: no rows"),
    # usage
    ("frobnicate", nothing, 2, r"No such command 'frobnicate'; the commands are featurize, factorize, finetune, score"),
    ("", nothing, 2, "Missing command; the commands are featurize, factorize, finetune, score"),
    ("factorize", nothing, 2, r"nothing to do: give INPUT to train on, or --import MODEL"),
    (f"{F} --bogus", nothing, 2, "No such option: --bogus"),
    (f"{F} --rnak 8", nothing, 2, "No such option: --rnak .*--rank"),
    (f"{F} --rank", nothing, 2, "'--rank' requires an argument"),
    (f"{F} --rank ten", nothing, 2, "--rank ten: .*integer"),
    (f"{F} --reg high", nothing, 2, "--reg high: .*number"),
    (f"{S} -k ten", nothing, 2, "--k ten: .*integer"),
    *(
        (f"{command} {flag}", nothing, 2, f"^recli: error: {flag}: expected one of .*{expected}")
        for command, flag, expected in [
            (F, "--solver svm", "ials, als, svd, pop"),
            (F, "--loss bpr", "rendle, hu"),
            (F, "--duplicates drop", "last, first"),
            (F, "--device tpu", "auto, cpu, gpu"),
            (S, "--device gpu:x", "auto, cpu, gpu"),
        ]
    ),
    *(
        (f"{command} {flag} {value}", nothing, 2, f"^recli: error: {flag} {value}.*: expected a value")
        for command, flag, value in [
            *((F, "--rank", rank) for rank in ("0", "-3", "16385")),
            *((F, "--reg", reg) for reg in ("0", "nan", "inf")),
            (F, "--nu", "3"),
            (F, "--iterations", "0"),
            (F, "--alpha", "-1"),
            (F, "--alpha0", "nan"),
            (F, "--tol", "2"),
            (F, "--seed", "-1"),
            (F, "--threads", "0"),
            (S, "--threads", "5000"),
        ]
    ),
    ("score ratings.factors.npz -k 0 -o out.csv", nothing, 2, "--k 0: expected a value from 1"),
    (
        f"score ratings.factors.npz -k {ITEMS + 1} -o out.csv",
        nothing,
        2,
        f"-k {ITEMS + 1}: the model has {ITEMS} items",
    ),
    (f"{F} --columns who=uid", nothing, 2, "--columns who=uid: expected user=NAME"),
    (f"{F} --columns user", nothing, 2, "--columns user: expected user=NAME"),
    (f"{F} --columns user=", nothing, 2, "--columns user=: expected a name"),
    (f"{F} --where 'stars > 3'", nothing, 2, "--where 'stars > 3': .*the columns are user, item, rating"),
    (f"{F} --where 'rating +'", nothing, 2, r"--where 'rating \+': "),
    (f"{F} --where rating+1", nothing, 2, "--where .*expected a condition"),
    (f"{F} --alpha 1 --weight rating", nothing, 2, "--alpha and --weight exclude each other"),
    (f"{F} --memory-limit lots", nothing, 2, "--memory-limit lots: expected a size such as 4G"),
    (f"{S} --memory-limit lots", nothing, 2, "--memory-limit lots: expected a size such as 4G"),
    (f"{F} --log-format xml", nothing, 2, "--log-format xml: expected text or json"),
    (f"{F} --input-format xls", nothing, 2, "--input-format xls: expected parquet, csv"),
    (f"{S} --output-format xls", nothing, 2, "--output-format xls: expected parquet, csv"),
    ("score ratings.factors.npz -o out.xls", nothing, 2, r"-o out\.xls: expected a suffix out of \.parquet"),
    ("factorize ratings.csv -o out.csv", nothing, 2, r"-o out\.csv: a model is an NPZ file"),
    ("factorize ratings.csv --json -o -", nothing, 2, "--json and -o - cannot share stdout"),
    ("score ratings.factors.npz --json -o -", nothing, 2, "-o - cannot share stdout"),
    (f"{F} --json --stats -", nothing, 2, "--json and --stats - cannot share stdout"),
    ("score - --users - -o out.csv", nothing, 2, r"only one of FACTORS and --users can be -"),
    ("factorize - ratings.csv -o out.npz", nothing, 2, r"- \(stdin\) or a pipe cannot be combined"),
    ("factorize -", nothing, 2, "say where to write with -o"),
    (f"{S} --truth-where rating>3", nothing, 2, "--truth-where .*no --truth"),
    # the device and the machine
    (f"{F} --device gpu", nothing, 69, "--device gpu: no driver; use --device cpu"),
    (f"{S} --device gpu:1", nothing, 69, "--device gpu:1: no driver; use --device cpu"),
    (f"{F} --memory-limit 10M", nothing, 75, r"--memory-limit is 10M: give --memory-limit [0-9.]+G"),
    (f"{S} --memory-limit 10M", nothing, 75, "needs at least .*give a larger --memory-limit"),
    # outputs
    ("factorize ratings.csv -o gone/out.npz", nothing, 73, r"gone/out\.npz: the folder gone does not exist"),
    ("factorize ratings.csv -o .", nothing, 73, "expected a file to write, found a folder"),
    ("score ratings.factors.npz -o gone/out.csv", nothing, 73, "the folder gone does not exist"),
    ("factorize ratings.csv --input-format csv -o ./ratings.csv", nothing, 2, "a model is an NPZ file"),
    ("factorize r -o ./r", lambda _: {"r": RATINGS.encode()}, 73, r"\./r: the output is also an input"),
    ("score m.csv -o m.csv", lambda model: {"m.csv": model}, 73, r"m\.csv: the output is also an input"),
    (f"{S} --users u.csv -o u.csv", text(u="u1\n"), 73, r"u\.csv: the output is also an input"),
    (f"{F} --stats ratings.csv", nothing, 73, r"ratings\.csv: --stats would replace an input"),
    (f"{F} --stats out.npz", nothing, 73, r"out\.npz: .*same name"),
    (f"{F} --stats gone/s.json", nothing, 73, r"gone/s\.json: the folder gone does not exist"),
    (f"{F} --no-clobber", nothing, 73, r"out\.npz: exists already"),
]


@pytest.mark.parametrize(("line", "make", "code", "pattern"), TABLE, ids=[f"{row[2]} {row[0]}" for row in TABLE])
def test_an_error_is_one_line_and_the_old_files_stay(
    line: str,
    make: Make,
    code: int,
    pattern: str,
    recli: Callable[..., Any],
    ratings: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recli.kernels.gpu_problem", lambda number: "no driver")  # also where there is one
    for name, content in make(model.read_bytes()).items():
        Path(name).write_bytes(content)
    for name in ("out.npz", "out.csv"):
        Path(name).write_bytes(OLD)
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    got = recli(*shlex.split(line))
    said = [said for said in got.err.splitlines() if not said.startswith(("recli factorize: ", "recli score: "))]
    assert got.code == code, got.err
    assert len(said) == 1
    assert said[0].startswith("recli: error: ")
    assert re.search(pattern, said[0]), said[0]
    assert got.out == ""
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_the_memory_limit_that_an_error_advises_is_enough(ratings: Path, model: Path) -> None:
    """In processes of their own: what a process holds counts."""
    for command, *given in (("factorize", ratings), ("score", model, "-k", "3")):
        run = [sys.executable, "-m", "recli", command, *map(str, given), "--memory-limit"]
        refused = subprocess.run([*run, "10M"], capture_output=True, text=True, check=False)
        assert refused.returncode == 75
        (advice,) = re.findall(r"([0-9.]+G)\b", refused.stderr)
        allowed = subprocess.run([*run, advice], capture_output=True, text=True, check=False)
        assert allowed.returncode == 0, allowed.stderr


def test_a_user_who_has_nearly_everything_gets_a_short_list_and_it_is_said(recli: Callable[..., Any]) -> None:
    Path("r.csv").write_text("user,item\n" + "".join(f"all,i{i}\n" for i in range(5)) + "few,i0\nmost,i0\nmost,i1\n")
    assert recli("factorize", "r.csv", "--rank", 2, "-o", "m.npz").code == 0
    got = recli("score", "m.npz", "-k", 4, "-o", "out.csv")
    assert got.code == 0
    assert "2 lists are shorter than 4" in got.err
    lists = pl.read_csv("out.csv")
    assert dict(lists["user"].value_counts().iter_rows()) == {"few": 4, "most": 3}


def test_an_unknown_user_gets_the_most_popular_items(recli: Callable[..., Any]) -> None:
    Path("r.csv").write_text("user,item\na,i1\na,i2\nb,i2\nc,i2\nc,i3\nb,i3\n")
    Path("u.txt").write_text("stranger\na\n")
    assert recli("factorize", "r.csv", "--rank", 2, "-o", "m.npz").code == 0
    got = recli("score", "m.npz", "--users", "u.txt", "-k", 2, "-o", "out.csv")
    assert got.code == 0
    assert "not in the model" in got.err
    assert pl.read_csv("out.csv").rows()[:2] == [
        ("stranger", "i2", 1, 3.0, "popular"),
        ("stranger", "i3", 2, 2.0, "popular"),
    ]
    assert pl.read_csv("out.csv").rows()[2][::4] == ("a", "model")


def test_an_unwritable_output_folder_is_refused_before_reading(
    recli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input does not even exist: the output is looked at first. (Root may write anywhere: os.access is told no.)"""
    Path("shut").mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "shut" not in str(path) and allowed(path, mode))
    got = recli("factorize", "nothing.csv", "-o", "shut/m.npz")
    assert (got.code, got.err) == (73, "recli: error: shut/m.npz: the folder may not be written to\n")


def test_errors_are_json_where_the_log_is(recli: Callable[..., Any]) -> None:
    got = recli("factorize", "r.csv", "--log-format", "json")
    event = json.loads(got.err)
    assert (event["level"], event["event"], event["exit_code"]) == ("error", "factorize", 66)
    assert event["message"] == "r.csv: no such file"


@pytest.mark.parametrize("how", ["flag", "variable", "file"])
def test_debug_adds_the_trace_and_keeps_line_and_code(
    how: str, recli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "variable":
        monkeypatch.setenv("RECLI_DEBUG", "1")
    if how == "file":
        Path("recli.toml").write_text("debug = true")
    got = recli("factorize", "r.csv", *(["--debug"] if how == "flag" else []))
    assert got.code == 66
    assert got.err.startswith("Traceback (most recent call last):")
    assert "in _expand" in got.err
    assert got.err.splitlines()[-1] == "recli: error: r.csv: no such file"


def test_a_bug_is_called_one(recli: Callable[..., Any], ratings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("recli.io.read_interactions", broken)
    got = recli("factorize", ratings, "-q")
    assert got.code == 1
    assert got.err == "recli: error: internal error (ZeroDivisionError: oh): this is a bug; --debug shows where\n"
