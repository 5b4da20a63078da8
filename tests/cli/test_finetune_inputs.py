"""What finetune and score read: never replaced, asked for before the long work, and said in words that fit."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.made import fill
from tests.conftest import Outcome

Recli = Callable[..., Outcome]
Process = Callable[..., "subprocess.CompletedProcess[bytes]"]
HEAD = "user,item,rating\n"
USERS, ITEMS = 12, 9


def table(rows: list[tuple[int, int]]) -> str:
    return HEAD + "".join(f"u{user},i{item},{1 + user * item % 5}\n" for user, item in rows)


EVERY = [(user, item) for user in range(USERS) for item in range(ITEMS)]
TABLES = {
    "ratings.csv": table([(u, i) for u, i in EVERY if (u + i) % 3]),
    "new.csv": table([(u, i) for u, i in EVERY if not (u + i) % 3]) + "nina,i0,4\nnina,i3,2\nu0,jam,5\nu4,jam,1\n",
    "one.csv": HEAD + "nina,i0,4\nu3,jam,2\n",
    "alien.csv": HEAD + "x,y,1\n",
    "items.csv": "item,price\n" + "".join(f"i{item},{item * 1.5}\n" for item in range(ITEMS)) + "cold,3\n",
    "parts/a.csv": table([(0, 0), (1, 2), (2, 1)]),
    "parts/b.csv": table([(3, 0), (4, 2)]),
}
COMMANDS = [
    "factorize ratings.csv --rank 4 -o ials.npz",
    "factorize ratings.csv --solver pop -o pop.npz",
    "featurize ratings.csv --items items.csv -o attributes",
    "finetune ials.npz new.csv -o rows.npz",
    "finetune ials.npz new.csv --adapter-file rows.npz --adapter bias -o second.npz",
    "finetune ials.npz --adapter features --features attributes -o features.npz",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    np.savez(folder / "net:2.npz", u=rng.normal(size=(USERS, 4)), i=rng.normal(size=(ITEMS, 4)))
    fill(folder, TABLES, COMMANDS)
    return folder


@pytest.fixture(autouse=True)
def here(_clean: None, made: Path) -> None:
    shutil.copytree(made, ".", dirs_exist_ok=True)


def error(outcome: Outcome) -> str:
    """The one line of an error, before which nothing was said."""
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.out == ""
    return outcome.err.removeprefix("recli: error: ").rstrip("\n")


NET = "finetune --base-users net:2.npz:u --base-items net:2.npz:i --merge"


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("finetune ials.npz parts", "parts/a.csv"),
        ("finetune ials.npz new.csv --valid parts", "parts/b.csv"),
        ("finetune ials.npz new.csv --old parts", "parts/b.csv"),
        ("finetune ials.npz 'parts/*.csv'", "parts/b.csv"),
        ("finetune ials.npz attributes", "attributes/interactions.npz"),
        ("finetune ials.npz --adapter features --features attributes", "attributes/items.npz"),
        (NET, "net:2.npz"),
        ("score ials.npz --adapter features.npz --features attributes", "attributes/users.npz"),
    ],
)
def test_inputs_are_never_replaced(line: str, file: str, recli: Recli) -> None:
    """Neither by what is written nor by --stats, also under another name."""
    Path("link.npz").symlink_to(file)
    before = Path(file).read_bytes()
    more = ["--output-format", "csv"] if line.startswith("score") else []
    for output in ("link.npz", *([file] if file.endswith(".npz") else [])):
        got = recli(*shlex.split(line), *more, "-o", output)
        assert (got.code, error(got)) == (73, f"{output}: the output is also an input: give another -o")
    got = recli(*shlex.split(line), *more, "-o", "out.npz", "--stats", file)
    assert (got.code, error(got)) == (73, f"{file}: --stats would replace an input: give another name")
    assert Path(file).read_bytes() == before
    assert not Path("out.npz").exists()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("finetune ials.npz new.csv --memory-limit lots", 2, "--memory-limit lots: expected a size"),
        ("finetune ials.npz new.csv --old no.csv", 66, "no.csv: no such file"),
        ("finetune ials.npz new.csv --valid no.csv", 66, "no.csv: no such file"),
        ("finetune ials.npz new.csv --valid 1.5", 66, "1.5: no such file"),
        ("finetune ials.npz new.csv --adapter features --features no", 66, "no/users.npz: no such file"),
        ("finetune ials.npz new.csv --adapter lora --rank 5", 2, "--rank 5: the model has rank 4"),
        ("finetune pop.npz new.csv", 65, "pop.npz: the model has rank 0"),
        ("finetune ials.npz new.csv --adapter bias --fit gradient --stay 2", 2, "--stay: --adapter bias by gradient"),
        ("finetune ials.npz --adapter features --features attributes --fit gradient", 2, "--fit gradient: .*give NEW"),
    ],
)
def test_what_can_be_known_is_refused_before_the_new_data_is_read(
    line: str, code: int, said: str, recli: Recli
) -> None:
    got = recli(*line.split(), "-o", "out.npz")
    assert got.code == code
    assert re.match(said, error(got)), got.err


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("finetune - new.csv --adapter-file -", "MODEL and --adapter-file"),
        ("finetune ials.npz - --valid -", "NEW and --valid"),
        (f"{NET} --base-user-ids - --base-item-ids -", "--base-user-ids and --base-item-ids"),
        ("finetune --base-users -:u --base-items -:i - -o out.npz", "--base-users and NEW"),
        ("score - --adapter -", "FACTORS and --adapter"),
        ("score ials.npz --adapter - --users -", "--users and --adapter"),
    ],
)
def test_stdin_is_one_input(line: str, names: str, recli: Recli) -> None:
    got = recli(*line.split(), "-o", "out.npz")
    said = error(got)
    assert got.code == 2
    assert re.fullmatch(r"only one of (.*) can be - \(stdin\)", said), said
    assert set(said.removeprefix("only one of ").removesuffix(" can be - (stdin)").split(" and ")) == set(
        names.split(" and ")
    )


def test_both_tables_of_a_base_may_come_through_one_pipe(process: Process) -> None:
    line = "finetune --base-users -:u --base-items -:i --merge -q -o out.npz"
    done = process(*line.split(), input=Path("net:2.npz").read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    assert Path("out.npz").exists()


@pytest.mark.parametrize(
    "line",
    ["score ials.npz -k 2 --adapter - -q -o out.csv", "finetune ials.npz --merge --adapter-file - -q -o out.npz"],
)
def test_an_empty_pipe_is_no_delta(line: str, process: Process) -> None:
    done = process(*line.split(), input=b"")
    said = done.stderr.decode()
    assert done.returncode == 65
    assert re.fullmatch(r"recli: error: stdin: expected an NPZ file, found .*\n", said), said


@pytest.mark.parametrize("command", ["finetune ials.npz new.csv", "factorize ratings.csv --rank 4"])
def test_a_share_to_validate_on_may_be_a_number(command: str, recli: Recli) -> None:
    """Unless there is such a file."""
    for share in ("10%", "0.1"):
        assert recli(*command.split(), "--valid", share, "-q", "-o", f"{share}.npz") == (0, "", "")
    assert Path("10%.npz").read_bytes() == Path("0.1.npz").read_bytes()
    Path("0.1").write_text(TABLES["one.csv"] + "u1,i1,3\n")
    outcome = recli(*command.split(), "--valid", "0.1", "-o", "out.npz")
    assert outcome.code == 0, outcome.err
    assert re.search(r"\b[13] pairs for validation", outcome.err), outcome.err


def test_one_is_said_as_one(recli: Recli) -> None:
    outcome = recli("finetune", "ials.npz", "one.csv", "-o", "out.npz")
    assert "recli finetune: 1 user and 1 item are new to the model\n" in outcome.err
    assert ", with rows of 1 new user and 1 new item\n" in outcome.err
    assert "users and 1 new item, to" not in recli("finetune", "ials.npz", "one.csv", "-n", "-o", "out.npz").err
    none = recli("finetune", "ials.npz", "alien.csv", "-o", "out.npz")
    assert "alien.csv: none of its 1 user and 1 item is in the model: " in none.err
    alone = recli("finetune", "ials.npz", "--merge", "--adapter-file", "second.npz", "-o", "out.npz")
    assert "it was trained on the base and 1 adapter before it, found 0" in alone.err
    cold = recli("finetune", "ials.npz", "--adapter", "features", "--features", "attributes", "-o", "out.npz")
    assert "1 column of attributes for 10 items, of which 1 without anything else\n" in cold.err


def test_the_limit_that_merging_advises_is_enough(process: Process) -> None:
    line = "finetune ials.npz --merge --adapter-file rows.npz -q -o out.npz --memory-limit"
    refused = process(*line.split(), "10M")
    assert refused.returncode == 75
    advice = re.findall(rb"merging needs about .* give --memory-limit ([0-9.]+G)\b", refused.stderr)[0].decode()
    assert process(*line.split(), advice).returncode == 0


def test_a_last_good_state_replaces_nothing_that_is_to_be_kept(recli: Recli) -> None:
    Path("out.last-good.npz").write_bytes(b"of last night")
    line = "finetune ials.npz new.csv --fit gradient --optimizer sgd --epochs 3 --learning-rate 1e6 -q -o out.npz"
    kept = recli(*line.split(), "--no-clobber")
    assert kept.code == 70
    assert "its last good state is not kept: out.last-good.npz: exists already (--no-clobber)" in error(kept)
    assert Path("out.last-good.npz").read_bytes() == b"of last night"
    assert recli(*line.split()).code == 70
    assert Path("out.last-good.npz").read_bytes() != b"of last night"


def test_where_an_earlier_delta_has_all_held_out_pairs_it_says_so_and_what_to_do(recli: Recli) -> None:
    got = recli("finetune", "ials.npz", "new.csv", "--adapter-file", "rows.npz", "--adapter", "bias", "-o", "out.npz")
    assert got.code == 0
    said = r"no validation: lists leave out all [0-9]+ held-out pairs, which NEW, the model or an adapter has already: "
    assert re.search(said + "give --valid FILE of later ones\n", got.err), got.err


def test_the_ridge_of_features_is_known_by_gradient_too(recli: Recli) -> None:
    line = "finetune ials.npz new.csv --adapter features --features attributes --fit gradient --epochs 1 -q --reg"
    for reg in ("0.1", "1000"):
        assert recli(*line.split(), reg, "-o", f"{reg}.npz") == (0, "", "")
    with np.load("0.1.npz") as weak, np.load("1000.npz") as strong:
        names = [name for name in weak.files if name.startswith("part_")]
        assert any(not np.array_equal(weak[name], strong[name]) for name in names)


def test_a_last_good_state_replaces_no_input(recli: Recli) -> None:
    shutil.copy("rows.npz", "out.last-good.npz")
    before = Path("out.last-good.npz").read_bytes()
    line = "finetune ials.npz new.csv --adapter-file out.last-good.npz --fit gradient --optimizer sgd --epochs 3 -q"
    got = recli(*line.split(), "--learning-rate", "1e6", "-o", "out.npz")
    assert got.code == 70
    assert Path("out.last-good.npz").read_bytes() == before


def test_a_delta_whose_scores_overflow_is_blamed_itself(recli: Recli) -> None:
    """And not a factorize that should have had a larger --reg."""
    with np.load("rows.npz") as arrays:
        parts = dict(arrays)
    for name in ("part_P", "part_Q"):
        parts[name] = np.full_like(parts[name], 1e25)
    np.savez("huge.npz", **parts)
    for line in (
        "score ials.npz --adapter huge.npz -o out.csv",
        "score ials.npz --adapter huge.npz --pairs new.csv -o out.csv",
        "finetune ials.npz --adapter-file huge.npz --merge -o out.npz",
    ):
        got = recli(*line.split(), "-q")
        assert got.code == 65
        assert error(got).startswith("huge.npz: the scores of the model with this adapter overflow float32: ")
