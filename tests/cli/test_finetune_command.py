"""recli finetune: what it writes, and what it says of it on which stream."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recli.artifacts import Factors
from recli.cli.console import size_text
from recli.finetune import Adapter
from recli.io.id_columns import to_series
from recli.io.npz import read_npz
from tests.conftest import Outcome

Recli = Callable[..., Outcome]
Process = Callable[..., "subprocess.CompletedProcess[bytes]"]
FEATURES = ("--adapter", "features", "--features", "features")
ADAPTERS: dict[str, tuple[str, ...]] = {
    **{name: ("--adapter", name) for name in ("bias", "rows", "scale", "bilinear", "lora", "head", "full")},
    "rows by gradient": ("--adapter", "rows", "--fit", "gradient"),
    "lora by gradient": ("--adapter", "lora", "--fit", "gradient"),
    "features": FEATURES,
}
CLOSED = ("bias", "rows", "lora", "features")
OF_ROWS = {"P": 0, "b_u": 0, "A_P": 0, "Q": 1, "b_v": 1, "A_Q": 1}  # parts with a row for each user, or item


def quick(name: str) -> tuple[str | int, ...]:
    """An adapter's flags, and one epoch or round; a ridge, which has none, refuses them."""
    return (*ADAPTERS[name], *(() if name == "features" else ("--epochs", 1)))


def read(path: str) -> Adapter:
    with open(path, "rb") as file:
        return read_npz(file, Adapter, path)


def read_model(path: str) -> Factors:
    with open(path, "rb") as file:
        return read_npz(file, Factors, path)


def numbers(outcome: Outcome) -> dict[str, Any]:
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("\n") == 1
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def trained(delta: Adapter, model: Factors) -> int:
    """How many numbers of the model are: rows of new ids come on top (docs/finetune.md), b of als is not moved."""
    known, total = (len(model.user_ids), len(model.item_ids)), 0
    for name, part in delta.parts.items():
        if name in OF_ROWS and "users" in delta.parts:
            side = OF_ROWS[name]
            total += part[delta.parts[("users", "items")[side]] < known[side]].size
        elif name not in ("users", "items", "scale"):
            total += part.size if name != "b" or delta.provenance.config["fit"] == "gradient" else 0
    return total


def size_of(model: Factors) -> int:
    biases = [one.size for one in (model.b_u, model.b_v, model.b) if one.any()]
    return model.P.size + model.item_factors().size + sum(biases)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def base(made: Path, sample: Path, recli: Recli) -> Path:
    """The model of the sample data, and attributes of its users and items."""
    if not any(made.iterdir()):
        command = ("featurize", sample / "ratings.parquet", "--items", sample / "items.parquet")
        assert recli(*command, "--users", sample / "users.parquet", "-o", made / "features", "-q").code == 0
        command = ("factorize", sample / "ratings.parquet", "--rank", 8, "-q", "-o", made / "ratings.factors.npz")
        assert recli(*command).code == 0
    shutil.copytree(made, ".", dirs_exist_ok=True)
    return Path("ratings.factors.npz")


@pytest.fixture
def new(sample: Path) -> Path:
    """6,322 pairs; 12 of their users and 9 of their items are not in the model."""
    return sample / "test.parquet"


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_says_what_it_trained_and_what_that_did(name: str, base: Path, new: Path, recli: Recli) -> None:
    outcome = recli("finetune", base, new, *ADAPTERS[name], "--json", "--stats", "run.json")
    found, log = numbers(outcome), [line.removeprefix("recli finetune: ") for line in outcome.err.splitlines()]
    assert log[0].startswith("read 6,322 rows: 1,183 users, 596 items, 6,322 pairs; columns user=user_id, ")
    assert log[1] == "12 users and 9 items are new to the model"
    adapter, fit = found["adapter"], "closed" if name in CLOSED else "gradient"
    counts = f"trained {found['trained']:,} numbers of {found['parameters']:,} ({found['share']:.2%})"
    sizes = f"{size_text(found['delta_bytes'])} beside a model of {size_text(found['model_bytes'])}"
    (said,) = (line for line in log if line.startswith(f"{adapter} ({fit})"))
    assert said.endswith(f": {counts}; {sizes}, with rows of 12 new users and 9 new items")
    epochs = [line.split(",")[0] for line in log if line.startswith("epoch ")]
    assert epochs == [f"epoch {n}/5" for n in range(1, len(found["losses"]) + 1)]
    assert bool(epochs) == (fit == "gradient") == (found["best_epoch"] is not None)
    if name == "head":
        before, after = found["new_logloss_before"], found["new_logloss_after"]
        assert after < before
        assert any(line.startswith(f"held-out pairs: logloss {after:.4f}, {before:.4f} for the rate") for line in log)
    else:
        for what, metric in (("held-out new pairs", "new_ndcg@10"), ("old pairs", "old_recall_capped@20")):
            before, after = found[f"{metric}_before"], found[f"{metric}_after"]
            change = f"{before:.4f} before, {after:.4f} after ({after / before - 1:+.1%})"
            assert f"{what}: {metric.partition('_')[2]} {change}" in log
        assert found["new_ndcg@10_after"] > found["new_ndcg@10_before"] > 0
    assert re.fullmatch(r"wrote ratings\.delta\.npz: [0-9.]+ s", log[-1])
    assert json.loads(Path("run.json").read_text()) == found


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_numbers_said_are_those_of_the_file(name: str, base: Path, new: Path, recli: Recli) -> None:
    found = numbers(recli("finetune", base, new, *quick(name), "--json", "-q"))
    model, delta = read_model(str(base)), read("ratings.delta.npz")
    assert found["output"] == "ratings.delta.npz"
    assert found["adapter"] == delta.adapter == name.split()[0]
    assert (found["fit"], found["device"]) == (delta.provenance.config["fit"], "cpu")
    assert found["output_bytes"] == Path("ratings.delta.npz").stat().st_size
    with np.load("ratings.delta.npz") as arrays:
        held = [array for key, array in arrays.items() if key.startswith("part_") or key in ("P", "Q", "b_u", "b_v")]
    assert found["delta_bytes"] == sum(array.nbytes for array in held)
    assert found["parameters"] == size_of(model) == (1188 + 591) * 8
    assert found["model_bytes"] == 4 * size_of(model)
    assert (found["new_users"], found["new_items"]) == (len(delta.new_user_ids), len(delta.new_item_ids)) == (12, 9)
    assert len(delta.seen.indices) == found["pairs"] == 6322  # held out ones, too
    assert found["trained"] == trained(delta, model)
    assert found["share"] == found["trained"] / found["parameters"] <= 1


@pytest.mark.parametrize("share", ["5%", "0.3"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_no_more_is_trained_than_allowed(name: str, share: str, base: Path, new: Path, recli: Recli) -> None:
    """Or it says that this cannot be."""
    allowed = {"5%": 0.05, "0.3": 0.3}[share]
    outcome = recli("finetune", base, new, *quick(name), "--trainable", share, "--json", "-q")
    if name == "full" or (name in ("features", "lora by gradient", "lora") and share == "5%"):
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert "--trainable" in outcome.err
        assert not Path("ratings.delta.npz").exists()
        return
    found = numbers(outcome)
    assert 0 < trained(read("ratings.delta.npz"), read_model(str(base))) <= allowed * found["parameters"]
    assert found["share"] <= allowed
    assert (found["chosen"] is None) == (name == "scale")


BIASED = (("als", "bias"), ("als", "rows"), ("als", "lora"), ("als", "rows by gradient"), ("svd", "rows"))


@pytest.mark.parametrize("share", [None, "30%"])
@pytest.mark.parametrize(("solver", "name"), [*(("ials", name) for name in ADAPTERS), *BIASED])
def test_a_dry_run_writes_nothing_and_foretells_what_is_trained(
    solver: str, name: str, share: str | None, base: Path, sample: Path, new: Path, recli: Recli
) -> None:
    if solver != "ials":
        assert recli("factorize", sample / "ratings.parquet", "--solver", solver, "--rank", 8, "-o", base).code == 0
    flags = () if share is None else ("--trainable", share)
    command = ("finetune", base, new, *quick(name), *flags, "--json", "-o", "out.npz")
    before = sorted(Path().iterdir())
    outcome = recli(*command, "--dry-run", "--stats", "run.json")
    assert sorted(Path().iterdir()) == before
    if name == "full" and share:
        assert outcome.code == recli(*command).code == 2
        return
    plan, found = numbers(outcome), numbers(recli(*command))
    assert outcome.err.endswith("rows of 12 new users and 9 new items, to out.npz; nothing written\n")
    assert f"; {plan['trained']:,} numbers of {plan['parameters']:,} (" in outcome.err
    assert (plan["output"], plan["config"]["adapter"]) == ("out.npz", name.split()[0])
    assert (plan["parameters"], plan["fit"]) == (found["parameters"], found["fit"])
    assert plan["trained"] == found["trained"]


@pytest.mark.parametrize(
    "flags", [("--adapter", "lora", "--rank", 9), ("--adapter", "bilinear", "--rank", 9), ("--rank", 2), ("pop",)]
)
def test_a_dry_run_refuses_what_the_run_would(
    flags: tuple[object, ...], base: Path, sample: Path, new: Path, recli: Recli
) -> None:
    """Ranks above the model's 8, and rows of a model that has none."""
    if flags == ("pop",):
        assert recli("factorize", sample / "ratings.parquet", "--solver", "pop", "-o", base).code == 0
        flags = ()
    done, planned = (recli("finetune", base, new, *flags, *more, "-q") for more in ((), ("--dry-run",)))
    assert planned.code == done.code > 0
    assert planned.err.count("\n") == 1
    assert planned.err.removeprefix("recli: error: ") in done.err


def test_quiet_says_nothing_and_writes_the_same(base: Path, new: Path, recli: Recli) -> None:
    assert recli("finetune", base, new, "-q", "-o", "quiet.npz") == (0, "", "")
    assert recli("finetune", base, new, "-v", "-o", "loud.npz").err
    assert Path("quiet.npz").read_bytes() == Path("loud.npz").read_bytes()


def test_a_pipe_gives_the_bytes_of_the_file(base: Path, new: Path, recli: Recli, process: Process) -> None:
    assert recli("finetune", base, new, "-q", "-o", "d.npz").code == 0
    for given in ((base, "-"), ("-", new)):
        piped = Path(new if given[1] == "-" else base).read_bytes()
        done = process("finetune", *given, "-o", "-", input=piped)
        assert done.returncode == 0, done.stderr
        assert done.stdout == Path("d.npz").read_bytes()
        assert b"recli finetune: wrote stdout: " in done.stderr


@pytest.mark.parametrize(
    ("model", "written"),
    [("shop.factors.npz", "shop.delta.npz"), ("sub/shop.npz", "shop.delta.npz"), ("shop", "shop.delta.npz")],
)
def test_without_an_output_the_delta_is_named_after_the_model(
    model: str, written: str, base: Path, new: Path, recli: Recli
) -> None:
    Path("sub").mkdir()
    Path(model).write_bytes(base.read_bytes())
    before = set(Path().iterdir())
    assert f"wrote {written}: " in recli("finetune", model, new).err
    assert set(Path().iterdir()) - before == {Path(written)}
    refused = recli("finetune", model, new, "--no-clobber")
    assert (refused.code, refused.err) == (73, f"recli: error: {written}: exists already (--no-clobber)\n")


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_same_seed_gives_the_same_bytes_on_any_number_of_threads(
    name: str, base: Path, new: Path, recli: Recli, process: Process
) -> None:
    command = ("finetune", base, new, *quick(name), "-q", "-o")
    for file, threads in (("a.npz", 1), ("b.npz", 2), ("c.npz", 2)):
        assert recli(*command, file, "--threads", threads).code == 0
    first = Path("a.npz").read_bytes()
    assert first == Path("b.npz").read_bytes() == Path("c.npz").read_bytes()
    if name in ("rows", "lora by gradient", "head"):
        assert process(*command, "d.npz", "--threads", 1).returncode == 0
        assert first == Path("d.npz").read_bytes()


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_seed_decides_what_is_drawn_and_nothing_else(name: str, base: Path, new: Path, recli: Recli) -> None:
    """The closed forms of so few rows draw nothing, but for features, whose cold ids are drawn to choose --reg."""
    reg = ("--reg", 10) if name == "features" else ()
    for seed in (0, 1):
        command = ("finetune", base, new, *quick(name), *reg, "--valid", "none", "-q", "--seed", seed)
        assert recli(*command, "-o", f"{seed}.npz").code == 0
    first, second = read("0.npz"), read("1.npz")
    assert (first.provenance.config["seed"], second.provenance.config["seed"]) == (0, 1)
    same = [np.array_equal(part, second.parts[key]) for key, part in first.parts.items()]
    assert all(same) == (name in CLOSED)


OLD = "user,item,rating,w\n" + "".join(
    f"{u},{10 * (u % 3) + i},{1 + (u + i) % 5},{1 + u % 4}\n" for u in range(24) for i in range(6) if (u // 3 + i) % 6
)
NEW = """user,item,rating,w
99,1,5,1
0,12,{}
99,0,3,3
1,70,4,1
4,70,2,5
98,13,2,2
"""
THREE = NEW.format("3,2\n0,12,4,6\n0,12,2,4")
WEIGHTS = re.sub(r"(\d),(\d)\n", r"\2,\2\n", THREE)


def same(first: Adapter, second: Adapter) -> bool:
    return all(
        np.array_equal(array, second.arrays()[name]) for name, array in first.arrays().items() if name != "chain"
    )


def tuned(file: str, *flags: str, output: str, recli: Recli) -> Adapter:
    assert recli("finetune", "m.npz", file, "--valid", "none", *flags, "-q", "-o", output) == (0, "", "")
    return read(output)


@pytest.mark.parametrize(
    ("flags", "table"),
    [
        (("--duplicates", "first"), NEW.format("3,2")),
        (("--duplicates", "max"), NEW.format("4,6")),
        (("--duplicates", "sum"), NEW.format("9,9")),
        (("--where", "rating > 2"), NEW.format("4,4").replace("4,70,2,5\n", "").replace("98,13,2,2\n", "")),
        (("--weight", "w"), WEIGHTS),
        (("--columns", "rating=w"), WEIGHTS),
    ],
)
def test_tables_are_read_as_asked(flags: tuple[str, ...], table: str, recli: Recli) -> None:
    """As a table that says the same plainly."""
    for name, text in (("old.csv", OLD), ("new.csv", THREE), ("plain.csv", table)):
        Path(name).write_text(text)
    assert recli("factorize", "old.csv", "--rank", 4, "--alpha", 1, "-o", "m.npz").code == 0
    asked = tuned("new.csv", *flags, output="asked.npz", recli=recli)
    assert same(asked, tuned("plain.csv", output="plain.npz", recli=recli))
    assert not same(asked, tuned("new.csv", output="unasked.npz", recli=recli))


def test_weights_and_repeated_rows_are_those_of_the_model_unless_given(recli: Recli) -> None:
    Path("old.csv").write_text(OLD)
    Path("new.csv").write_text(THREE)
    made = ("--weight", "w", "--duplicates", "sum")
    assert recli("factorize", "old.csv", "--rank", 4, *made, "-o", "m.npz").code == 0
    unsaid = tuned("new.csv", output="unsaid.npz", recli=recli)
    assert same(unsaid, tuned("new.csv", *made, output="said.npz", recli=recli))
    assert not same(unsaid, tuned("new.csv", "--duplicates", "last", output="other.npz", recli=recli))
    assert sorted(unsaid.seen.values.tolist()) == [1, 1, 2, 3, 5, 12]
    assert unsaid.provenance.config["reading"] == {"weight": "w", "where": None, "duplicates": "sum"}
    assert unsaid.provenance.inputs == [hashlib.sha256(Path("new.csv").read_bytes()).hexdigest()]  # NEW's alone


def test_validation_and_old_pairs_are_read_as_the_new_ones(recli: Recli) -> None:
    """Repeated rows by the policy of the model's data: their error is that of the same table without repeats."""
    Path("old.csv").write_text(OLD)
    Path("new.csv").write_text(NEW.format("3,2"))
    Path("twice.csv").write_text("user,item,rating\n1,10,1\n1,10,5\n2,21,4\n2,21,1\n")
    Path("once.csv").write_text("user,item,rating\n1,10,3\n2,21,2.5\n")
    made = ("--solver", "als", "--duplicates", "mean")
    assert recli("factorize", "old.csv", "--rank", 4, *made, "-o", "m.npz").code == 0

    def errors(table: str, *flags: str) -> list[float]:
        command = ("finetune", "m.npz", "new.csv", "--valid", table, "--old", table, *flags)
        found = numbers(recli(*command, "--json", "-q", "-o", "d.npz"))
        return [found[f"{what}_rmse_before"] for what in ("new", "old")]

    assert errors("twice.csv") == errors("once.csv")
    assert min(np.subtract(errors("twice.csv", "--duplicates", "last"), errors("once.csv"))) > 0.1


@pytest.mark.parametrize("prefix", ["", "id-"])
def test_new_ids_come_in_order_and_take_part(prefix: str, recli: Recli) -> None:
    """Whole numbers or text. 99 has two items of the first of three camps, 98 one of the second, whose users 1 and 4
    have the new item, 70.
    """
    for name, text in (("old.csv", OLD), ("new.csv", THREE)):
        Path(name).write_text(re.sub(r"^(\d+),(\d+)", rf"{prefix}\1,{prefix}\2", text, flags=re.MULTILINE))
    assert recli("factorize", "old.csv", "--rank", 4, "-o", "m.npz").code == 0
    delta = tuned("new.csv", output="d.npz", recli=recli)
    kind: Callable[[str], object] = str if prefix else int
    assert to_series(delta.new_user_ids, "").to_list() == [kind(f"{prefix}98"), kind(f"{prefix}99")]
    assert to_series(delta.new_item_ids, "").to_list() == [kind(f"{prefix}70")]
    assert recli("score", "m.npz", "--adapter", "d.npz", "-k", 3, "-o", "lists.csv", "-q").code == 0
    rows = pl.read_csv("lists.csv", schema_overrides={"user": pl.String, "item": pl.String})
    assert (len(rows), rows["reason"].unique().to_list()) == (26 * 3, ["model"])

    def items(user: int) -> set[int]:
        return {int(item.removeprefix(prefix)) for item in rows.filter(user=f"{prefix}{user}")["item"]}

    assert items(99) < {2, 3, 4, 5}
    assert items(98) < {10, 11, 12, 14, 15, 70}
    assert 70 in items(7)
    assert 70 not in items(1) | items(4) | items(8) | items(6)


@pytest.mark.parametrize(
    "names", [("rows",), ("lora",), ("bilinear",), ("bias", "lora by gradient"), ("rows", "scale")]
)
def test_a_merged_model_scores_as_the_model_and_its_deltas(
    names: tuple[str, ...], base: Path, new: Path, recli: Recli
) -> None:
    below: list[object] = []
    for name in names:
        made = recli("finetune", base, new, *quick(name), *below, "-q", "-o", f"{name}.npz")
        assert made == (0, "", "")
        below += ["--adapter-file", f"{name}.npz"]
    outcome = recli("finetune", base, *below, "--merge", "--json")
    model = read_model("ratings.merged.factors.npz")
    assert numbers(outcome)["adapters"] == [name.split()[0] for name in names]
    assert "wrote ratings.merged.factors.npz: 1,200 users, 600 items, rank 8; adapters: " in outcome.err
    assert (len(model.P), len(model.Q), model.P.shape[1]) == (1200, 600, 8)
    adapters = [flag if flag != "--adapter-file" else "--adapter" for flag in below]
    assert recli("score", base, *adapters, "-k", 5, "-q", "-o", "a.parquet").code == 0
    assert recli("score", "ratings.merged.factors.npz", "-k", 5, "-q", "-o", "b.parquet").code == 0
    assert Path("a.parquet").read_bytes() == Path("b.parquet").read_bytes()
    assert recli("score", base, "-k", 5, "-q", "-o", "c.parquet").code == 0
    lists = pl.read_parquet("c.parquet")
    assert not lists.equals(pl.read_parquet("b.parquet").head(len(lists)))
    if names == ("rows",):  # by hand
        delta, P = read("rows.npz"), np.vstack([read_model(str(base)).P, read("rows.npz").P])
        P[delta.parts["users"]] += delta.parts["P"]
        np.testing.assert_array_equal(model.P, P)
