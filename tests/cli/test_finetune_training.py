"""recli finetune: validation and forgetting, epochs of gradients, checkpoints, and numbers that overflow."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recli.artifacts import Factors
from recli.finetune import Adapter, apply
from recli.finetune.apply import joined
from recli.ids import row_numbers
from recli.io.id_columns import to_series
from recli.io.npz import read_npz
from recli.splits import hold_out
from tests.conftest import Outcome

Recli = Callable[..., Outcome]
GRADIENT = ("--adapter", "lora", "--fit", "gradient")
FLAT = ("--schedule", "constant", "--warm-up", 0)
DIVERGING = (*GRADIENT, *FLAT, "--loss", "squared", "--optimizer", "sgd", "--learning-rate", 3)
WAIT = 60  # seconds, at most, for what should take one or two


def read(path: str) -> Adapter:
    with open(path, "rb") as file:
        return read_npz(file, Adapter, path)


def numbers(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def same(first: Adapter, second: Adapter) -> bool:
    """But for the settings."""
    return all(np.array_equal(array, second.arrays()[name]) for name, array in first.arrays().items())


@pytest.fixture
def base(sample: Path, recli: Recli) -> Path:
    assert recli("factorize", sample / "ratings.parquet", "--rank", 8, "-q", "-o", "m.npz").code == 0
    return Path("m.npz")


@pytest.fixture
def model(base: Path) -> Factors:
    with open(base, "rb") as file:
        return read_npz(file, Factors, str(base))


@pytest.fixture
def new(sample: Path) -> Path:
    """6,322 pairs; 12 of their users and 9 of their items are not in the model."""
    return sample / "test.parquet"


def known_pairs(sample: Path) -> None:
    """new.csv and held.csv: the pairs of users and items that the model knows, one in five held."""
    train, test = pl.read_parquet(sample / "ratings.parquet"), pl.read_parquet(sample / "test.parquet")
    pairs = test.join(train, on="user_id", how="semi").join(train, on="item_id", how="semi").with_row_index()
    pairs.filter(pl.col("index") % 5 > 0).drop("index").write_csv("new.csv")
    pairs.filter(pl.col("index") % 5 == 0).drop("index").write_csv("held.csv")


def test_before_and_after_are_what_score_finds(base: Path, sample: Path, recli: Recli) -> None:
    """Before: with an adapter that changes nothing, since its steps are lost in rounding."""
    known_pairs(sample)
    command = ("finetune", base, "new.csv", "--valid", "held.csv", "--json")
    found = numbers(recli(*command, "-o", "d.npz"))
    assert recli(*command, "--adapter", "scale", "--learning-rate", 1e-30, "-o", "same.npz").code == 0
    for when, delta in (("before", "same.npz"), ("after", "d.npz")):
        score = ("score", base, "--adapter", delta, "--json", "-q", "--truth")
        lists = numbers(recli(*score, "held.csv"))
        assert found[f"new_ndcg@10_{when}"] == pytest.approx(lists["ndcg@10"], abs=1e-9)
        whole = numbers(recli(*score, sample / "ratings.parquet", "--keep-seen", "-k", 20))
        assert found[f"old_recall_capped@20_{when}"] == pytest.approx(whole["recall_capped@20"], abs=1e-9)


def test_old_pairs_may_be_others(base: Path, sample: Path, recli: Recli) -> None:
    known_pairs(sample)
    found = numbers(recli("finetune", base, "new.csv", "--old", "held.csv", "--json", "-o", "d.npz"))
    score = ("score", base, "--truth", "held.csv", "--keep-seen", "-k", 20, "--json")
    for when, flags in (("before", ()), ("after", ("--adapter", "d.npz"))):
        assert found[f"old_recall_capped@20_{when}"] == pytest.approx(
            numbers(recli(*score, *flags))["recall_capped@20"], abs=1e-9
        )


def test_a_share_is_held_out_and_not_learned_from(base: Path, model: Factors, new: Path, recli: Recli) -> None:
    """As if the table did not have it; the users have it all the same."""
    for share in (0.1, 0.4):
        outcome = recli("finetune", base, new, "--valid", f"{share:.0%}", "-q", "-o", "d.npz")
        assert outcome.code == 0, outcome.err
        delta = read("d.npz")
        train, held = hold_out(delta.seen, share, 0)
        ids = joined(model.user_ids, delta.new_user_ids), joined(model.item_ids, delta.new_item_ids)
        users, items = to_series(ids[0], "user_id"), to_series(ids[1], "item_id")
        pl.DataFrame([users.gather(row_numbers(train.indptr)), items.gather(train.indices)]).write_csv("train.csv")
        assert recli("finetune", base, "train.csv", "--valid", "none", "-q", "-o", "train.npz").code == 0
        alone = read("train.npz")
        assert all(np.array_equal(part, alone.parts[name]) for name, part in delta.parts.items())
        assert len(alone.seen.indices) + len(held.indices) == len(delta.seen.indices) == 6322
        plan = recli("finetune", base, new, "--valid", f"{share:.0%}", "-n").err
        assert f"held out {len(held.indices):,} pairs for validation\n" in plan
        assert f" from {len(train.indices):,} pairs, rows of 12 new users" in plan


def test_without_validation_nothing_is_said_of_new_pairs(base: Path, new: Path, recli: Recli) -> None:
    outcome = recli("finetune", base, new, "--adapter", "scale", "--valid", "none", "--json")
    found = numbers(outcome)
    assert not [key for key in found if key.startswith("new_ndcg")]
    assert (found["best_epoch"], len(found["losses"])) == (None, 5)
    assert "held" not in outcome.err
    assert "old pairs: recall_capped@20 " in outcome.err


def test_patience_ends_it_and_the_best_epoch_is_kept(base: Path, new: Path, recli: Recli) -> None:
    """With a learning rate that does not know how many epochs there are to be."""
    command = ("finetune", base, new, *GRADIENT, *FLAT, "--learning-rate", 0.02, "--valid", "20%", "--json")
    found = numbers(recli(*command, "--epochs", 30, "--patience", 3, "-o", "d.npz"))
    best, losses = found["best_epoch"], found["losses"]
    assert len(losses) == best + 3 < 30
    exact = numbers(recli(*command, "--epochs", best, "--patience", 30, "-o", "exact.npz"))
    assert (exact["best_epoch"], exact["losses"]) == (best, losses[:best])
    assert exact["new_ndcg@10_after"] == found["new_ndcg@10_after"]
    assert same(read("d.npz"), read("exact.npz"))
    later = numbers(recli(*command, "--epochs", best + 3, "--patience", 30, "-o", "later.npz"))
    assert later["losses"] == losses
    assert same(read("d.npz"), read("later.npz"))
    final = numbers(recli("finetune", base, new, *GRADIENT, *FLAT, "--valid", "none", "--json", "-o", "n.npz"))
    assert (final["best_epoch"], len(final["losses"])) == (None, 5)


def test_it_says_which_epoch_is_kept(base: Path, new: Path, recli: Recli) -> None:
    command = ("finetune", base, new, *GRADIENT, *FLAT, "--learning-rate", 0.02, "--valid", "20%", "--json")
    outcome = recli(*command, "--epochs", 30, "--patience", 3)
    found = numbers(outcome)
    best, done = found["best_epoch"], len(found["losses"])
    kept = rf"validation: ndcg@10 0\.\d{{4}}; epoch {best} of {done} is kept"
    assert re.search(rf"{kept}; --patience 3 ended the run before the other {30 - done}\n", outcome.err), outcome.err
    outcome = recli(*command, "--epochs", best + 1, "--patience", 3)
    assert re.search(rf"; epoch {best} of {best + 1} is kept\n", outcome.err), outcome.err
    assert "is kept" not in recli(*command, "--epochs", best).err


def test_it_says_where_no_epoch_was_better_than_the_model(base: Path, new: Path, recli: Recli) -> None:
    """Compared with the model that has rows for new ids, as after a step that is lost in rounding."""
    command = ("finetune", base, new, *GRADIENT, "--epochs", 2, "--json", "-o", "d.npz", "--learning-rate")
    outcome = recli(*command, 5)
    assert numbers(outcome)["new_ndcg@10_after"] < numbers(outcome)["new_ndcg@10_before"]
    said = re.search(
        r"no epoch was better than the model before, with rows of new ids: ndcg@10 (0\.\d{4})\n", outcome.err
    )
    assert said, outcome.err
    assert f"{numbers(recli(*command, 1e-30))['new_ndcg@10_after']:.4f}" == said[1]
    assert "no epoch" not in recli(*command, 0.001).err


@pytest.mark.parametrize("share", ["0.1", "held.csv"])
def test_held_out_pairs_that_lists_leave_out_are_not_asked_for(
    share: str, base: Path, sample: Path, recli: Recli
) -> None:
    """Since they are in NEW, or in the model."""
    known_pairs(sample)
    columns = ["user_id", "item_id", "rating"]
    old = pl.read_parquet(sample / "ratings.parquet").select(columns).head(300).cast({"rating": pl.Float64})
    for name, size in (("new", 300), ("held", 200)):
        table = pl.read_csv(f"{name}.csv").select(columns).cast({"rating": pl.Float64})
        table.write_csv(f"{name}.csv")
        pl.concat([table, old.head(size).cast(table.schema)]).write_csv(f"more_{name}.csv")
    if share == "held.csv":
        plain = numbers(recli("finetune", base, "new.csv", "--valid", "held.csv", "--json", "-o", "d.npz"))
        outcome = recli("finetune", base, "new.csv", "--valid", "more_held.csv", "--json", "-o", "d.npz")
        assert (
            "\nrecli finetune: 200 of the held-out pairs are in NEW or the model already and left out\n" in outcome.err
        )
        for when in ("before", "after"):
            assert numbers(outcome)[f"new_ndcg@10_{when}"] == plain[f"new_ndcg@10_{when}"] > 0
        outcome = recli("finetune", base, "held.csv", "--valid", "held.csv", "--json", "-o", "d.npz")
        assert "no validation: lists leave out all " in outcome.err
        assert not [key for key in numbers(outcome) if key.startswith("new_ndcg")]
        return
    outcome = recli("finetune", base, "more_new.csv", "--valid", share, "--json", "-o", "d.npz")
    found = numbers(outcome)
    assert 10 < found["known_held_out"] < 50
    assert (
        f"{found['known_held_out']} of the held-out pairs are in NEW or the model already and left out" in outcome.err
    )


def test_what_is_forgotten_is_measured_as_the_model_allows(base: Path, sample: Path, new: Path, recli: Recli) -> None:
    ratings = sample / "ratings.parquet"
    assert recli("factorize", ratings, "--rank", 8, "--no-seen", "-q", "-o", "bare.npz").code == 0
    assert recli("factorize", ratings, "--rank", 8, "--solver", "als", "-q", "-o", "als.npz").code == 0
    assert "old pairs: not measured" not in recli("finetune", base, new, "-o", "d.npz").err
    bare = recli("finetune", "bare.npz", new, "-o", "d.npz").err
    assert "old pairs: not measured, since the model has no seen lists: --old FILE gives some\n" in bare
    assert "not measured" not in recli("finetune", "bare.npz", new, "--old", ratings, "-o", "d.npz").err
    found = numbers(recli("finetune", "als.npz", new, "--json", "-o", "d.npz"))
    score = ("score", "als.npz", "--pairs", ratings, "--truth", ratings, "--json", "-q", "-o", "p.parquet")
    for when, flags in (("before", ()), ("after", ("--adapter", "d.npz"))):
        rmse = numbers(recli(*score, *flags))["rmse"]
        assert found[f"old_rmse_{when}"] == pytest.approx(rmse, rel=1e-5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    number: int, code: int, base: Path, new: Path, recli: Recli
) -> None:
    """Its best epoch was before it was stopped."""
    command = ["finetune", str(base), str(new), *GRADIENT, "--batch", "2000", "--learning-rate", "0.02"]
    command += ["--epochs", "40", "--patience", "1000", "--checkpoint-every", "8"]
    whole = numbers(recli(*command, "-o", "whole.npz", "--json"))
    assert 0 < whole["best_epoch"] <= 8
    checkpoint = Path("d.npz.checkpoint")
    run = subprocess.Popen([sys.executable, "-m", "recli", *command, "-o", "d.npz"], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + WAIT
        while not checkpoint.exists() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        run.send_signal(number)
        _, said = run.communicate(timeout=WAIT)
    assert run.returncode == code
    assert b"Traceback" not in said
    assert checkpoint.exists()
    assert not Path("d.npz").exists()
    outcome = recli(*command, "-o", "d.npz", "--threads", 2)
    assert outcome.code == 0, outcome.err
    assert re.search(r"going on from the checkpoint of epoch (8|16|24|32)\n", outcome.err)
    assert Path("d.npz").read_bytes() == Path("whole.npz").read_bytes()
    assert not checkpoint.exists()
    assert {path.name for path in Path().iterdir()} == {"m.npz", "whole.npz", "d.npz"}


def test_where_numbers_overflow_the_old_delta_stays_and_the_last_good_state_is_there(
    base: Path, new: Path, recli: Recli
) -> None:
    Path("d.npz").write_bytes(b"of last night")
    command = ("finetune", base, new, *DIVERGING, "--batch", 100, "--valid", "none")
    outcome = recli(*command, "--epochs", 9, "-o", "d.npz")
    assert outcome.code == 70
    said = re.search(
        r"\nrecli: error: the loss is (?:nan|inf) in step (\d+) \(epoch (\d+)\) at learning rate 3: give a smaller "
        r"--learning-rate, or --clip 1; the state after epoch (\d+) is in d\.last-good\.npz\n$",
        outcome.err,
    )
    assert said, outcome.err
    step, epoch, good = map(int, said.groups())
    assert good == epoch - 1 > 0
    assert good * 64 < step <= epoch * 64  # 6,322 pairs
    assert Path("d.npz").read_bytes() == b"of last night"
    assert recli(*command, "--epochs", good, "-o", "good.npz").code == 0
    assert same(read("d.last-good.npz"), read("good.npz"))
    assert recli("score", base, "--adapter", "d.last-good.npz", "-k", 5, "-q", "-o", "lists.csv").code == 0
    assert len(pl.read_csv("lists.csv")) == 1200 * 5
    for advice in (("--learning-rate", 0.1), ("--clip", 1)):
        assert recli(*command, "--epochs", 3, *advice, "-o", "d.npz").code == 0


def test_where_no_epoch_was_good_there_is_no_last_good_state(base: Path, new: Path, recli: Recli) -> None:
    Path("d.npz").write_bytes(b"of last night")
    before = set(Path().iterdir())
    outcome = recli("finetune", base, new, *DIVERGING, "--learning-rate", 10_000, "-o", "d.npz", "--json")
    assert (outcome.code, outcome.out) == (70, "")
    assert re.search(r"the loss is (nan|inf) in step \d+ \(epoch 1\) at learning rate 1e\+04: [^;]*\n$", outcome.err)
    assert set(Path().iterdir()) == before
    assert Path("d.npz").read_bytes() == b"of last night"


def test_the_same_command_goes_on_to_the_same_end(base: Path, new: Path, recli: Recli) -> None:
    command = ("finetune", base, new, *DIVERGING, "--epochs", 9, "--checkpoint-every", 1, "-o", "d.npz")
    first, state = recli(*command), Path("d.last-good.npz").read_bytes()
    again = recli(*command)
    assert "going on from the checkpoint of epoch 1\n" in again.err
    assert again.code == first.code == 70
    assert again.err.splitlines()[-1] == first.err.splitlines()[-1]
    assert Path("d.last-good.npz").read_bytes() == state


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (("--seed", 1), "settings"),
        (("--where", "rating > 1"), "settings"),
        (("--valid", "20%"), "valid"),
        (("--old", "less.csv"), "inputs"),
    ],
)
def test_the_checkpoint_of_another_run_is_ignored_aloud(
    change: tuple[object, ...], differing: str, base: Path, new: Path, recli: Recli
) -> None:
    """That of a run which diverged in its second epoch, so that it is there; so do others."""
    pl.read_parquet(new).head(100).write_csv("less.csv")
    command = ("finetune", base, new, *DIVERGING, "--epochs", 9)
    for more in ((), change):
        outcome = recli(*command, *more, "--checkpoint-every", 1, "-o", "d.npz")
        assert (outcome.code, Path("d.npz.checkpoint").exists()) == (70, True)
    ignored = "the checkpoint is ignored: d.npz.checkpoint: of another run"
    assert f"{ignored} ({differing} differ)\n" in outcome.err
    calm = (*command, *change, "--clip", 0.1)
    outcome = recli(*calm, "--checkpoint-every", 1, "-o", "d.npz")
    assert f"{ignored} (settings differ)\n" in outcome.err
    assert recli(*calm, "-o", "plain.npz").code == outcome.code == 0
    assert Path("d.npz").read_bytes() == Path("plain.npz").read_bytes()
    assert not Path("d.npz.checkpoint").exists()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adagrad", "sgd"])
@pytest.mark.parametrize("loss", ["squared", "logistic", "bpr", "softmax"])
def test_every_loss_falls_with_every_optimizer(loss: str, optimizer: str, base: Path, new: Path, recli: Recli) -> None:
    command = ("finetune", base, new, *GRADIENT, "--epochs", 3, "--valid", "none", "--json", "-q", "-o", "d.npz")
    found = numbers(recli(*command, "--loss", loss, "--optimizer", optimizer))
    assert found["loss"] == loss
    assert all(later < earlier for earlier, later in itertools.pairwise(found["losses"]))
    assert read("d.npz").provenance.config["optimizer"] == optimizer


@pytest.mark.parametrize(
    "flags",
    [
        *(("--dropout", 0.3), ("--clip", 0.01), ("--l2", 0.1), ("--decay", 1), ("--negatives", 2), ("--batch", 50)),
        *(("--sampling", "uniform"), ("--schedule", "cosine"), ("--warm-up", 0.5), ("--learning-rate", 0.01)),
        ("--optimizer", "sgd", "--momentum", 0.5),
    ],
)
def test_every_knob_turns_something(flags: tuple[object, ...], base: Path, new: Path, recli: Recli) -> None:
    command = ("finetune", base, new, *GRADIENT, *flags[:-2], "--epochs", 1, "-q", "-o")
    assert recli(*command, "usual.npz").code == 0
    assert recli(*command, "turned.npz", *flags[-2:]).code == 0
    assert not same(read("usual.npz"), read("turned.npz"))


@pytest.mark.parametrize(
    ("adapter", "strengths"),
    [
        (("rows",), (0, 0.05, 0.5, 1, 100)),
        (("rows", "--fit", "gradient"), (0, 1, 10, 100)),
        (("lora", "--fit", "gradient"), (0, 1, 10, 100)),
        (("full",), (0, 1, 10, 100)),
    ],
)
def test_the_more_it_is_to_stay_the_nearer_it_is_to_the_base(
    adapter: tuple[str, ...], strengths: tuple[float, ...], base: Path, model: Factors, new: Path, recli: Recli
) -> None:
    """By distance, and by what is forgotten least and most."""
    distances, kept = [], []
    for stay in strengths:
        command = ("finetune", base, new, "--adapter", *adapter, "--valid", "none", "--epochs", 2, "--stay", stay)
        kept.append(numbers(recli(*command, "--json", "-q", "-o", "d.npz"))["old_recall_capped@20_after"])
        moved = apply(model, read("d.npz"))
        distances.append(np.linalg.norm(moved.P[: len(model.P)] - model.P))
        distances[-1] += np.linalg.norm(moved.item_factors()[: len(model.Q)] - model.item_factors())
    assert all(later < earlier for earlier, later in itertools.pairwise(distances)), distances
    assert kept[-1] > kept[0]


def test_l1_leaves_nothing_of_what_does_little(base: Path, model: Factors, new: Path, recli: Recli) -> None:
    """Zero to the bit, and the rows as they were where it is strong."""
    zeros = []
    for l1 in (0, 0.1, 0.3, 1, 3):
        command = ("finetune", base, new, "--adapter", "rows", "--fit", "gradient", "--epochs", 2, "--valid", "none")
        assert recli(*command, "--l1", l1, "-q", "-o", "d.npz").code == 0
        delta = read("d.npz")
        parts = np.concatenate([delta.parts[name].ravel() for name in ("P", "Q")])
        zeros.append(float((parts == 0).mean()))
    assert zeros[0] == 0 < zeros[1] < zeros[2] < zeros[3] < zeros[4] == 1, zeros
    np.testing.assert_array_equal(apply(model, delta).P[: len(model.P)], model.P)


def test_a_share_for_validation_leaves_every_new_user_and_item_a_pair_to_learn_from(
    sample: Path, base: Path, recli: Recli
) -> None:
    """Its row is learned from nothing else."""
    known = pl.read_parquet(sample / "ratings.parquet")["item_id"].unique().sort()
    lines = [f"u{n % 40 + 1:04},{90000 + n}" for n in range(60)]  # new items with one pair each
    lines += [f"u{n + 1:04},{known[(7 * n + k) % 60]}" for n in range(40) for k in range(10)]
    lines += [f"x{n},{known[7 * n + k]}" for n in range(30) for k in range(1 + n % 2)]  # new users with one or two
    Path("tail.csv").write_text("user,item\n" + "\n".join(lines) + "\n")
    for adapter in ("rows", "bias"):
        found = numbers(
            recli("finetune", base, "tail.csv", "--adapter", adapter, "--valid", "50%", "--json", "-o", "d.npz")
        )
        delta = read("d.npz")
        assert found["new_items"] == len(delta.new_item_ids) == 60
        assert found["new_users"] == len(delta.new_user_ids) == 32  # two of the others are, too
        assert delta.P.any(axis=1).all()
        assert delta.Q.any(axis=1).all()
        assert found["new_ndcg@10_after"] > 0
    assert recli("finetune", base, "tail.csv", "--valid", "none", "-o", "e.npz").code == 0
    assert len(read("e.npz").seen.indices) == len(delta.seen.indices)
