"""recli factorize: validation, a model to start from, checkpoints, and flags that would do nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recli.artifacts import Factors
from recli.io.id_columns import to_series
from recli.io.npz import read_npz
from tests.conftest import Outcome

Recli = Callable[..., Outcome]


def read(path: str) -> Factors:
    with open(path, "rb") as file:
        return read_npz(file, Factors, path)


def numbers(outcome: Outcome) -> dict[str, float]:
    assert outcome.code == 0, outcome.err
    found: dict[str, float] = json.loads(outcome.out)
    return found


@pytest.mark.parametrize("solver", ["ials", "als"])
def test_the_best_iteration_is_the_one_of_the_validation_shown(solver: str, sample: Path, recli: Recli) -> None:
    command = ("factorize", sample / "ratings.parquet", "--solver", solver, "--rank", 8, "--valid", "20%", "--json")
    outcome = recli(*command, "--iterations", 40, "-o", "m.npz")
    found = numbers(outcome)
    best = int(found["best_iteration"])
    assert best + 3 == found["iterations"] < 40  # --patience
    metric = {"ials": "ndcg@10", "als": "rmse"}[solver]
    assert (
        f"validation: {metric} {found[f'valid_{metric}']:.4f}; iteration {best} of {best + 3} is kept\n" in outcome.err
    )
    shorter = numbers(recli(*command, "--iterations", best, "-o", "n.npz"))
    assert shorter[f"valid_{metric}"] == found[f"valid_{metric}"]
    np.testing.assert_array_equal(read("m.npz").P, read("n.npz").P)


def test_what_is_held_out_is_not_learnt_from_but_seen(sample: Path, recli: Recli) -> None:
    assert recli("factorize", sample / "ratings.parquet", "--rank", 8, "--valid", "30%", "-q", "-o", "m.npz").code == 0
    assert recli("factorize", sample / "ratings.parquet", "--rank", 8, "-q", "-o", "n.npz").code == 0
    part, whole = read("m.npz"), read("n.npz")
    assert part.seen_indices is not None
    np.testing.assert_array_equal(part.seen_indices, whole.seen_indices)
    assert np.abs(part.Q - whole.Q).max() > 1e-3


def test_a_validation_file_is_measured_as_score_would(sample: Path, recli: Recli) -> None:
    """All but users and items that the data does not have, which score counts."""
    recli("factorize", sample / "ratings.csv", "--rank", 8, "-q", "-o", "all.npz")
    users = {row["user_id"] for row in known(sample)}
    Path("known.csv").write_text(
        "user_id,item_id\n" + "".join(f"{r['user_id']},{r['item_id']}\n" for r in known(sample))
    )
    command = ("--valid", "known.csv", "--metric", "recall@20", "--patience", 50, "--json")
    outcome = recli("factorize", sample / "ratings.csv", "--rank", 8, *command, "-o", "m.npz")
    assert "pairs for validation\n" in outcome.err
    score = numbers(recli("score", "m.npz", "--truth", "known.csv", "-k", 20, "--json"))
    assert len(users) == score["judged_users"]
    assert numbers(outcome)["valid_recall@20"] == pytest.approx(score["recall@20"], abs=1e-9)
    again = recli("factorize", sample / "ratings.csv", "--rank", 8, "--valid", sample / "test.parquet", "-q")
    assert again.code == 0


def known(sample: Path) -> list[dict[str, object]]:
    import polars as pl

    train, test = pl.read_parquet(sample / "ratings.parquet"), pl.read_parquet(sample / "test.parquet")
    return test.join(train, on="user_id", how="semi").join(train, on="item_id", how="semi").to_dicts()


def test_pop_is_validated_too(sample: Path, recli: Recli) -> None:
    command = ("factorize", sample / "ratings.csv", "--solver", "pop", "--valid", sample / "test.parquet", "--json")
    found = numbers(recli(*command))
    assert 0 < found["valid_ndcg@10"] < 1
    assert "best_iteration" not in found


def test_a_start_keeps_numbers_and_appends_new_ids(recli: Recli) -> None:
    Path("old.csv").write_text("user,item,rating\nb,x,1\nd,x,1\nd,z,1\n")
    Path("new.csv").write_text("user,item,rating\na,y,1\nb,x,1\nd,z,1\nc,z,1\n")
    assert recli("factorize", "old.csv", "--rank", 2, "-q", "-o", "old.npz").code == 0
    outcome = recli("factorize", "new.csv", "--rank", 2, "--init", "old.npz", "-o", "new.npz")
    assert outcome.code == 0, outcome.err
    model = read("new.npz")
    assert to_series(model.user_ids, "").to_list() == ["b", "d", "a", "c"]
    assert to_series(model.item_ids, "").to_list() == ["x", "z", "y"]
    assert len(model.provenance.inputs) == 2
    assert recli("score", "new.npz", "-k", 1, "-o", "lists.csv", "-q").code == 0
    rows = [line.split(",")[:2] for line in Path("lists.csv").read_text().splitlines()[1:]]
    assert len(rows) == 4
    assert not {tuple(row) for row in rows} & {("a", "y"), ("b", "x"), ("d", "z"), ("c", "z")}


def test_a_start_saves_iterations(sample: Path, recli: Recli) -> None:
    command = ("factorize", sample / "ratings.csv", "--rank", 8, "--json")
    long = numbers(recli(*command, "--iterations", 12, "-o", "m.npz"))
    warm = numbers(recli(*command, "--iterations", 1, "--init", "m.npz", "-o", "n.npz"))
    cold = numbers(recli(*command, "--iterations", 1, "-o", "o.npz"))
    assert abs(warm["objective"] / long["objective"] - 1) < 0.01 < cold["objective"] / long["objective"] - 1


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(sample: Path, recli: Recli) -> None:
    command = ["factorize", str(sample / "ratings.csv"), "--rank", "16", "--iterations", "400"]
    command += ["--checkpoint-every", "20"]
    checkpoint = Path("m.npz.checkpoint")
    run = subprocess.Popen([sys.executable, "-m", "recli", *command, "-o", "m.npz", "-q"])
    try:
        deadline = time.monotonic() + 60
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    assert checkpoint.exists()
    assert not Path("m.npz").exists()
    outcome = recli(*command, "-o", "m.npz")
    assert outcome.code == 0, outcome.err
    assert re.search(r"going on from the checkpoint of iteration [1-9][0-9]*0\n", outcome.err)
    assert not checkpoint.exists()
    assert recli(*command[:-2], "-o", "n.npz", "-q").code == 0
    assert Path("m.npz").read_bytes() == Path("n.npz").read_bytes()


def test_the_checkpoint_of_another_run_is_ignored_aloud(sample: Path, recli: Recli) -> None:
    command = ("factorize", sample / "ratings.csv", "--rank", 4, "--iterations", 2, "--checkpoint-every", 1)
    Path("taken").mkdir()
    recli(*command, "--seed", 1, "-o", "taken/m.npz", "-q")
    assert os.listdir("taken") == ["m.npz"]
    first = subprocess.Popen(
        [sys.executable, "-m", "recli", *map(str, command), "-o", "m.npz", "--iterations", "100000"]
    )
    while not Path("m.npz.checkpoint").exists() and first.poll() is None:
        time.sleep(0.01)
    first.kill()
    first.wait()
    outcome = recli(*command, "-o", "m.npz")
    assert outcome.code == 0
    assert "the checkpoint is ignored: m.npz.checkpoint: of another run (settings differ)\n" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--valid", "0%"), 2, "--valid 0%: expected a file, or a share such as 10%"),
        (("--valid", "ten%"), 2, "--valid ten%: expected a file, or a share such as 10%"),
        (("--valid", "no.csv"), 66, "no.csv: no such file"),
        (("--valid", "strangers.csv"), 65, "strangers.csv: no pair of a user and an item that the training data"),
        (("--valid", "0.001%"), 2, "--valid 0.001%: no pair is held out of 27"),
        (("--metric", "rmse"), 2, "--metric: there is no --valid for it"),
        (("--patience", "2"), 2, "--patience: there is no --valid for it"),
        (("--valid", "10%", "--metric", "ndcg"), 2, "--metric ndcg: expected auto, rmse, or recall, "),
        (("--init", "model.npz"), 2, "--rank 3: the model of --init has rank 4: give --rank 4"),
        (("--init", "no.npz"), 66, "no.npz: no such file"),
        (("--init", "ratings.csv"), 65, "ratings.csv: expected one local NPZ file of factors"),
        (("--init", "numbers.npz"), 65, "numbers.npz: column user: expected whole numbers like the model's ids, found"),
        (("--solver", "als", "--alpha", "2"), 2, "--alpha: not for --solver als, but for ials"),
        (("--solver", "pop"), 2, "--rank: not for --solver pop, but for ials, als, svd"),
        (("--energy", "0.9"), 2, "--energy: not for --solver ials, but for svd"),
        (("--checkpoint-every", "0"), 2, "--checkpoint-every 0: expected a value from 1 up"),
        (("--checkpoint-every", "1", "-o", "-"), 2, "--checkpoint-every: a checkpoint lies beside the output"),
        (("--solver", "als", "--columns", "rating=", "--weight", "rating"), 2, "--weight: not for --solver als"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: tuple[str, ...], code: int, message: str, ratings: Path, model: Path, recli: Recli
) -> None:
    Path("strangers.csv").write_text("user,item,rating\nv0,i0,1\n")
    Path("numbers.csv").write_text("user,item,rating\n1,2,3\n2,2,3\n")
    recli("factorize", "numbers.csv", "--rank", 3, "-o", "numbers.npz")
    outcome = recli(
        "factorize", ratings, "--rank", 3, "-q", *(() if "-o" in arguments else ("-o", "out.npz")), *arguments
    )
    assert outcome.code == code
    assert outcome.err.startswith(f"recli: error: {message}")
    assert outcome.err.count("\n") == 1
    assert not Path("out.npz").exists()


def test_settings_files_may_name_what_a_solver_does_not_take(ratings: Path, recli: Recli) -> None:
    """They are for every run; the command line is for this one."""
    Path("recli.toml").write_text("[factorize]\nrank = 3\nalpha = 2.0\n")
    assert recli("factorize", ratings, "--solver", "pop", "-q", "-o", "out.npz") == (0, "", "")
