"""recli score --index: made once, used from then on, never for another model; the lists stay what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Outcome

Recli = Callable[..., Outcome]
SCORE = ("score", "model.npz", "-k", 3, "-o")


@pytest.fixture
def index(model: Path, recli: Recli) -> Path:
    assert recli(*SCORE, "first.csv", "--index", "prepared.npz", "-q").code == 0
    return Path("prepared.npz")


def test_an_index_is_made_where_there_is_none_and_used_where_there_is(model: Path, recli: Recli) -> None:
    plain = recli(*SCORE, "plain.csv", "--stats", "plain.json")
    made = recli(*SCORE, "made.csv", "--index", "prepared.npz", "--json")
    used = recli(*SCORE, "used.csv", "--index", "prepared.npz", "--json", "-v")
    assert (plain.code, made.code, used.code) == (0, 0, 0)
    assert "recli score: made the index prepared.npz: " in made.err
    assert "made the index" not in used.err
    assert "recli score: index prepared.npz\n" in used.err
    assert json.loads(made.out)["made_index"] is True
    assert "made_index" not in json.loads(used.out)
    assert json.loads(used.out)["index"] == "prepared.npz"
    lists = [Path(name).read_bytes() for name in ("plain.csv", "made.csv", "used.csv")]
    assert lists[0] == lists[1] == lists[2]


@pytest.mark.parametrize(
    "flags",
    [
        ["--users", "users.txt"],
        ["--users", "users.txt", "--allow", "items.txt"],
        ["--deny", "items.txt", "--keep-seen"],
        ["--deny-pairs", "pairs.csv", "--users", "users.txt"],
        ["--items", "table.csv", "--where", "price > 2"],
        ["--items", "table.csv", "--max-per", "kind=1"],
        ["--truth", "pairs.csv", "--device", "reference"],
    ],
    ids=" ".join,
)
def test_flags_do_with_an_index_what_they_do_without(flags: list[str], index: Path, recli: Recli) -> None:
    Path("users.txt").write_text("u5\nzoe\nu0\n")
    Path("items.txt").write_text("i1\ni4\n")
    Path("pairs.csv").write_text("user,item\nu0,i0\nzoe,i4\n")
    Path("table.csv").write_text("item,kind,price\ni0,a,1\ni1,a,2\ni2,b,3\ni3,b,4\ni4,c,5\n")
    assert recli(*SCORE, "plain.csv", *flags, "-q").code == 0
    assert recli(*SCORE, "indexed.csv", *flags, "-q", "--index", index).code == 0
    assert Path("indexed.csv").read_bytes() == Path("plain.csv").read_bytes()


def test_the_same_model_makes_the_same_index(index: Path, recli: Recli) -> None:
    first = index.read_bytes()
    index.unlink()
    assert recli(*SCORE, "again.csv", "--index", index, "--threads", 1, "-q").code == 0
    assert index.read_bytes() == first


def test_of_the_model_only_rows_of_its_users_are_read(index: Path, recli: Recli) -> None:
    """With the row of u7 destroyed, u7 gets no list, and others theirs; who reads the whole model gets none."""
    Path("u1.txt").write_text("u1\n")
    Path("u7.txt").write_text("u7\n")
    assert recli(*SCORE, "whole.csv", "--users", "u1.txt", "-q").code == 0
    with np.load("model.npz") as arrays:
        P = arrays["P"]
    data = bytearray(Path("model.npz").read_bytes())
    at = data.index(P.tobytes()) + P[:7].nbytes
    data[at : at + 4] = np.float32(np.nan).tobytes()
    Path("model.npz").write_bytes(data)
    assert recli(*SCORE, "some.csv", "--users", "u1.txt", "-q").code == 65
    assert recli(*SCORE, "some.csv", "--users", "u1.txt", "-q", "--index", index).code == 0
    assert Path("some.csv").read_bytes() == Path("whole.csv").read_bytes()
    done = recli(*SCORE, "none.csv", "--users", "u7.txt", "-q", "--index", index)
    assert done == (65, "", "recli: error: model.npz: array P: expected finite numbers, found NaN or infinity\n")


def test_the_index_of_another_model_is_refused(index: Path, ratings: Path, recli: Recli) -> None:
    assert recli("factorize", ratings, "--rank", 4, "--seed", 1, "-q", "-o", "model.npz").code == 0
    before = index.read_bytes()
    done = recli(*SCORE, "lists.csv", "--index", index)
    assert (done.code, done.out) == (65, "")
    assert done.err == (
        "recli: error: prepared.npz: it is the index of another model than model.npz: remove it (a new one will be "
        "made), or give another --index\n"
    )
    assert index.read_bytes() == before
    assert not Path("lists.csv").exists()


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        (["--index", "-"], 2, "--index -: expected a file, made once and mapped by later runs"),
        (["--index", ""], 2, "a file name is empty (is a shell variable not set?)"),
        (["--index", "none/prepared.npz"], 73, None),
        (["--index", "."], 65, None),
        (["--index", "model.npz"], 65, "model.npz: expected an artifact of kind index, found factors"),
        (
            ["--index", "ratings.csv"],
            65,
            "ratings.csv: expected one local NPZ file of index that recli wrote, found 1 csv",
        ),
        (["--index", "lists.csv"], 73, "lists.csv: two outputs of this run have the same name"),
        (["--index", "prepared.npz", "-o", "prepared.npz", "--output-format", "csv"], 73, None),
        (["--index", "prepared.npz", "--stats", "prepared.npz"], 73, None),
        (["--index", "half.npz"], 65, None),
    ],
)
def test_what_makes_no_sense_is_one_line_with_its_exit_code(
    flags: list[str], code: int, line: str | None, index: Path, recli: Recli
) -> None:
    before = index.read_bytes()
    Path("half.npz").write_bytes(before[: len(before) // 2])
    done = recli(*SCORE, "lists.csv", *flags, "-q")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("recli: error: ")
    assert done.err.count("\n") == 1
    if line is not None:
        assert done.err == f"recli: error: {line}\n"
    assert index.read_bytes() == before
    assert not Path("lists.csv").exists()


def test_a_dry_run_makes_none(model: Path, recli: Recli) -> None:
    assert recli(*SCORE, "lists.csv", "--index", "prepared.npz", "--dry-run").code == 0
    assert not Path("prepared.npz").exists()
