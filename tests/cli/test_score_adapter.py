"""recli score --adapter: model and deltas are the merged model, byte for byte; without deltas all is as before."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.cli import features
from tests.cli.made import fill
from tests.conftest import Outcome

Recli = Callable[..., Outcome]
USERS, ITEMS, RANK = 30, 20, 4
EVERY = ITEMS + 3  # with two new ones and one that has attributes alone
ADAPTERS = ("bias", "rows", "scale", "bilinear", "lora", "features", "mapped", "full", "gradient")
STACKS = (("rows", "second"), ("rows", "second", "third"))
HEAD = "user,item,rating\n"


def pairs(rng: np.random.Generator, share: float) -> list[tuple[str, str]]:
    """Users of one half like items of that half more."""
    liked = rng.random((USERS, ITEMS)) < share * (1 + 2 * (np.arange(USERS)[:, None] % 2 == np.arange(ITEMS) % 2))
    return [(f"u{user:02}", f"i{item:02}") for user, item in np.argwhere(liked)]


def table(rows: list[tuple[str, str]]) -> str:
    return HEAD + "".join(f"{user},{item},{1 + at % 5}\n" for at, (user, item) in enumerate(rows))


def tables() -> dict[str, str]:
    rng = np.random.default_rng(4)
    old = pairs(rng, 0.15)
    new = sorted({*pairs(rng, 0.06)} - {*old})
    added = [("nina", f"i{item:02}") for item in (1, 3, 5)] + [(f"u{user:02}", "jam") for user in (1, 2, 3, 5)]
    added += [("nina", "oil"), ("otto", "i04"), ("otto", "jam"), ("u08", "oil")]
    items = [f"i{item:02},{item % 7}.5,k{item % 3}\n" for item in range(ITEMS)] + ["salt,3.5,k1\n"]
    users = [f"u{user:02},{20 + user * 7 % 13}\n" for user in range(USERS)] + ["pia,27\n"]
    return {
        "old.csv": table(old),
        "new.csv": table([*new, *added]),
        "more.csv": table(
            [*sorted({*pairs(rng, 0.05)} - {*old, *new}), ("nina", "i02"), ("quin", "i03"), ("u04", "rum")]
        ),
        "items.csv": "item,price,kind\n" + "".join(items),
        "users.csv": "user,age\n" + "".join(users),
        "later_items.csv": "item,price,kind\n" + "".join([*items, "tea,1.5,k2\n", "rice,5.5,k0\n"]),
        "later_users.csv": "user,age\n" + "".join([*users, "rosa,31\n"]),
        "some.txt": "u05\nnina\nzoe\nu00\n",
        "few.txt": "i01\njam\ni04\ni17\n",
        "truth.csv": HEAD + "u00,i00,3\nu05,jam,4\nnina,i09,2\nu11,i11,5\n",
    }


COMMANDS = [
    "factorize old.csv --rank 4 -o model.npz",
    "featurize old.csv --items items.csv --users users.csv -o attributes",
    "featurize --items later_items.csv --users later_users.csv --apply attributes -o today",
    *(f"finetune model.npz new.csv --adapter {name} -o {name}.npz" for name in ("bias", "rows", "scale", "full")),
    *(f"finetune model.npz new.csv --adapter {name} --rank 2 -o {name}.npz" for name in ("bilinear", "lora")),
    "finetune model.npz new.csv --fit gradient --loss bpr --learning-rate 0.05 -o gradient.npz",
    "finetune model.npz --adapter features --features attributes -o features.npz",
    "finetune model.npz new.csv --adapter features --features attributes --fit gradient -o mapped.npz",
    "finetune model.npz more.csv --adapter-file rows.npz --adapter lora --rank 2 -o second.npz",
    "finetune model.npz more.csv --adapter-file rows.npz --adapter-file second.npz --adapter bias -o third.npz",
    "finetune model.npz new.csv --adapter head --hidden 6 --learning-rate 0.05 -o head.npz",
    "finetune model.npz more.csv --adapter-file rows.npz --adapter head --negatives 2 --hidden 5 -o on_rows.npz",
    *(f"finetune model.npz --adapter-file {name}.npz --merge -o merged_{name}.npz" for name in ADAPTERS),
    "finetune model.npz --adapter-file rows.npz --adapter-file second.npz --merge -o merged_second.npz",
    "finetune model.npz --adapter-file rows.npz --adapter-file second.npz --adapter-file third.npz --merge"
    " -o merged_third.npz",
]
FLAGS = [
    [],
    ["-k", 3, "--users", "some.txt"],
    ["-k", 4, "--keep-seen"],
    ["-k", 2, "--allow", "few.txt"],
    ["-k", 2, "--deny", "few.txt", "--deny-pairs", "truth.csv"],
    ["-k", 3, "--items", "items.csv", "--where", "price > 2"],
    ["-k", 3, "--items", "items.csv", "--max-per", "kind=1"],
    ["-k", 5, "--min-score", 0.05, "--shard", "2/3"],
    ["-k", 3, "--explain", 2],
    ["-k", 3, "--history", "truth.csv"],
    ["-k", 5, "--truth", "truth.csv"],
    ["--pairs", "truth.csv", "--truth", "truth.csv"],
    ["--pairs", "more.csv"],
    ["--similar", "all", "-k", 3],
    ["--similar", "few.txt", "-k", 3, "--deny", "few.txt"],
    ["--similar-users", "some.txt", "-k", 3],
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    fill(folder, tables(), COMMANDS)
    return folder


@pytest.fixture(autouse=True)
def here(_clean: None, made: Path) -> None:
    shutil.copytree(made, ".", dirs_exist_ok=True)


def adapters(*names: str) -> list[str]:
    return [word for name in names for word in ("--adapter", f"{name}.npz")]


def had(*names: str) -> set[tuple[str, str]]:
    return {row for name in names for row in pl.read_csv(f"{name}.csv").select("user", "item").iter_rows()}


def lists(path: str = "recs.parquet") -> set[tuple[str, str]]:
    return set(pl.read_parquet(path).select("user", "item").iter_rows())


@pytest.mark.parametrize("stack", [*((name,) for name in ADAPTERS), *STACKS], ids=" ".join)
def test_model_and_deltas_score_as_the_merged_model(stack: tuple[str, ...], recli: Recli) -> None:
    merged = f"merged_{stack[-1]}.npz"
    for flags, ending in zip(FLAGS, itertools.cycle(("csv", "parquet"))):
        one = recli("score", "model.npz", *adapters(*stack), *flags, "-q", "-o", f"one.{ending}")
        other = recli("score", merged, *flags, "-q", "-o", f"other.{ending}")
        assert one == other, flags
        assert (one.code, one.err) == (0, ""), flags
        assert Path(f"one.{ending}").read_bytes() == Path(f"other.{ending}").read_bytes(), flags
    assert recli("score", "model.npz", "-q", "-o", "base.csv").code == 0
    assert recli("score", merged, "-q", "-o", "other.csv").code == 0
    assert Path("base.csv").read_bytes() != Path("other.csv").read_bytes()  # it does something


def test_a_delta_on_others_is_not_the_delta_alone(recli: Recli) -> None:
    found = []
    for count in range(4):
        flags = adapters(*("rows", "second", "third")[:count])
        done = recli("score", "model.npz", *flags, "--pairs", "old.csv", "-o", "some.csv")
        assert done.code == 0
        said = ", ".join(("rows", "lora", "bias")[:count])
        assert (f"recli score: adapters: {said}\n" in done.err) == bool(count)
        found.append(Path("some.csv").read_bytes())
    assert len(set(found)) == 4


def test_without_deltas_everything_is_as_before(recli: Recli) -> None:
    """Neither training, merging nor scoring with deltas leaves a trace."""
    shutil.rmtree("attributes")
    for path in Path().glob("*.npz"):
        path.unlink()
    assert recli("factorize", "old.csv", "--rank", 4, "-q", "-o", "model.npz").code == 0
    assert recli("score", "model.npz", "-k", 5, "-q", "-o", "before.parquet").code == 0
    model = Path("model.npz").read_bytes()
    assert recli("finetune", "model.npz", "new.csv", "-q", "-o", "delta.npz").code == 0
    assert recli("finetune", "model.npz", "--adapter-file", "delta.npz", "--merge", "-q", "-o", "merged.npz").code == 0
    assert recli("score", "model.npz", "--adapter", "delta.npz", "-k", 5, "-q", "-o", "with.parquet").code == 0
    assert Path("model.npz").read_bytes() == model
    assert recli("score", "model.npz", "-k", 5, "-q", "-o", "after.parquet").code == 0
    before, after, changed = (Path(f"{name}.parquet").read_bytes() for name in ("before", "after", "with"))
    assert after == before
    assert changed != before


@pytest.mark.parametrize("name", [name for name in (*ADAPTERS, "head") if name != "features"])
def test_new_pairs_are_left_out_as_old_ones_are_unless_kept(name: str, recli: Recli) -> None:
    command = ("score", "model.npz", "--adapter", f"{name}.npz", "-q", "-o", "recs.parquet", "-k")
    known = EVERY if name == "mapped" else EVERY - 1
    everything = set(itertools.product(people := everyone(name), [item for _, item in sorted(catalogue(name))]))
    assert recli(*command, known).code == 0
    assert lists() == everything - had("old", "new")
    assert recli(*command, known, "--keep-seen").code == 0
    assert lists() == everything
    assert {"nina", "otto"} <= set(people)


def everyone(name: str) -> list[str]:
    return [*(f"u{user:02}" for user in range(USERS)), "nina", "otto", *(["pia"] if name == "mapped" else [])]


def catalogue(name: str) -> set[tuple[int, str]]:
    added = ["jam", "oil", *(["salt"] if name == "mapped" else [])]
    return {*enumerate([*(f"i{item:02}" for item in range(ITEMS)), *added])}


@pytest.mark.parametrize("name", ["rows", "lora", "full", "gradient", "bilinear"])
def test_new_users_and_items_take_part(name: str, recli: Recli) -> None:
    """Rows of their own: a new user's list is by the model, and scores of new items differ from user to user."""
    assert recli("score", "model.npz", *adapters(name), "-k", EVERY - 1, "-q", "-o", "recs.parquet").code == 0
    found = pl.read_parquet("recs.parquet")
    assert set(found["reason"]) == {"model"}
    new = found.filter(pl.col("user") == "nina")
    assert new["score"].n_unique() > ITEMS // 2
    assert found.filter(pl.col("item") == "jam")["score"].n_unique() > USERS // 2
    assert recli("score", "model.npz", "-k", 5, "--users", "some.txt", "-q", "-o", "recs.parquet").code == 0
    before = pl.read_parquet("recs.parquet").filter(pl.col("user") == "nina")
    assert set(before["reason"]) == {"popular"}


def test_an_index_is_of_model_and_deltas(recli: Recli) -> None:
    command = ("score", "model.npz", "-k", 4, "--index", "index.npz", "-o")
    plain = ("score", "model.npz", *adapters("rows"), "-k", 4, "-q")
    assert recli(*plain, "-o", "plain.csv").code == 0
    assert "made the index index.npz" in recli(*command, "made.csv", *adapters("rows")).err
    made = Path("index.npz").read_bytes()
    Path("rows.npz").rename("moved.npz")
    used = recli(*command, "used.csv", *adapters("moved"), "-v")
    assert (used.code, "recli score: index index.npz\n" in used.err) == (0, True)
    assert Path("made.csv").read_bytes() == Path("used.csv").read_bytes() == Path("plain.csv").read_bytes()
    assert recli(*plain[:2], *adapters("moved"), "-k", 2, "--users", "some.txt", "-q", "-o", "some.csv").code == 0
    assert recli(*command, "few.csv", *adapters("moved"), "--users", "some.txt", "-q", "-k", 2).code == 0
    assert Path("few.csv").read_bytes() == Path("some.csv").read_bytes()
    for others in ((), ("lora",), ("moved", "second"), ("features",)):
        done = recli(*command, "out.csv", *adapters(*others), "-q")
        assert (done.code, done.err.count("\n")) == (65, 1), others
        assert done.err.startswith("recli: error: index.npz: it is the index of the model with other adapters: remove")
    assert not Path("out.csv").exists()
    done = recli("score", "merged_rows.npz", "-k", 4, "--index", "index.npz", "-q", "-o", "out.csv")
    assert (done.code, "index.npz: it is the index of another model" in done.err) == (65, True)
    assert Path("index.npz").read_bytes() == made


def test_an_index_with_features_is_of_these_features(recli: Recli) -> None:
    command = ("score", "model.npz", *adapters("features"), "-k", 4, "-q", "--index", "index.npz", "-o")
    assert (
        recli("score", "model.npz", *adapters("features"), "--features", "today", "-k", 4, "-q", "-o", "a.csv").code
        == 0
    )
    for name in ("b.csv", "c.csv"):
        assert recli(*command, name, "--features", "today") == (0, "", "")
        assert Path(name).read_bytes() == Path("a.csv").read_bytes()
    assert recli(*command, "d.csv", "--features", "attributes").code == 65
    assert recli(*command, "d.csv").code == 65


def test_parts_of_another_delta_are_made_again(recli: Recli) -> None:
    command = ("score", "model.npz", "-k", 3, "--parts", 2, "-o", "out")
    found = {}
    for name in ("rows", "lora"):
        done = recli(*command, *adapters(name))
        assert done.code == 0
        assert done.err.count("is of another run (chain): replaced") == (2 if name == "lora" else 0)
        assert recli("score", f"merged_{name}.npz", "-k", 3, "-q", "-o", "whole.parquet").code == 0
        found[name] = pl.read_parquet("out/*.parquet")
        assert found[name].equals(pl.read_parquet("whole.parquet"))
    assert not found["rows"].equals(found["lora"])
    Path("lora.npz").rename("moved.npz")
    assert recli(*command, *adapters("moved")).err.count(" is there: skipped") == 2
    assert recli(*command).err.count("is of another run (chain): replaced") == 2
    assert recli("score", "model.npz", "-k", 3, "-q", "-o", "whole.parquet").code == 0
    assert pl.read_parquet("out/*.parquet").equals(pl.read_parquet("whole.parquet"))


def numbers(*names: str) -> dict[str, Any]:
    with np.load(f"{names[0]}.npz") as arrays:
        return {name: arrays[name] for name in arrays.files if name != "header"}


def probability(p: Any, q: Any, biases: Any, head: dict[str, Any]) -> Any:
    """Of pairs, as docs/finetune.md and the module of heads describe it, in float64."""
    w, c, V, d, o, scale = (head[f"part_{name}"].astype(float) for name in ("w", "c", "V", "d", "o", "scale"))
    z = np.concatenate([p, q, p * q, biases[:, None]], axis=1) / scale
    logit = z @ w + c + np.maximum(z @ V + d, 0) @ o
    return 1 / (1 + np.exp(-logit[:, 0]))


@pytest.mark.parametrize(("base", "stack"), [("model", ("head",)), ("merged_rows", ("rows", "on_rows"))])
def test_a_head_gives_the_probability_of_a_pair(base: str, stack: tuple[str, ...], recli: Recli) -> None:
    rows = [*itertools.product(everyone("head"), (item for _, item in sorted(catalogue("head"))))]
    asked = [*rows, ("zoe", "i03"), ("u03", "gin"), ("zoe", "gin")]
    Path("pairs.csv").write_text(table(asked))
    done = recli("score", "model.npz", *adapters(*stack), "--pairs", "pairs.csv", "-o", "out.parquet")
    assert done.code == 0
    found = pl.read_parquet("out.parquet")
    model, head = numbers(base), numbers(stack[-1])
    P, Q = (np.vstack([model[name], head[name], np.zeros((1, RANK))]).astype(float) for name in "PQ")
    b_u, b_v = (np.concatenate([model[name], head[name], [0]]).astype(float) for name in ("b_u", "b_v"))
    users = {user: at for at, user in enumerate(everyone("head"))}
    items = {item: at for at, item in catalogue("head")}
    at = np.array([[users.get(user, -1), items.get(item, -1)] for user, item in asked])
    expected = probability(P[at[:, 0]], Q[at[:, 1]], b_u[at[:, 0]] + b_v[at[:, 1]] + float(model["b"]), head)
    np.testing.assert_allclose(found["score"].to_numpy(), expected, rtol=1e-4, atol=1e-5)
    assert found["score"].is_between(0, 1).all()
    assert found["score"].n_unique() > len(rows) // 2
    assert found["reason"].to_list()[-4:] == ["model", "unknown user", "unknown item", "unknown user and item"]
    assert "3 predictions are from biases alone" in done.err


def test_a_head_reranks_lists(recli: Recli) -> None:
    """All items are candidates here: lists are the best by probability of what a user has not."""
    everything = [*itertools.product(everyone("head"), (item for _, item in sorted(catalogue("head"))))]
    Path("pairs.csv").write_text(table(everything))
    assert recli("score", "model.npz", *adapters("head"), "--pairs", "pairs.csv", "-q", "-o", "pairs.parquet").code == 0
    assert recli("score", "model.npz", *adapters("head"), "-k", 5, "-q", "-o", "recs.parquet").code == 0
    scores = {(user, item): score for user, item, score, _ in pl.read_parquet("pairs.parquet").rows()}
    order = {item: at for at, item in catalogue("head")}
    found, kept = pl.read_parquet("recs.parquet"), had("old", "new")
    for user in everyone("head"):
        left = [item for item in order if (user, item) not in kept]
        best = sorted(left, key=lambda item: (-scores[user, item], order[item]))[:5]
        own = found.filter(pl.col("user") == user)
        assert own["item"].to_list() == best
        assert own["score"].to_list() == [scores[user, item] for item in best]
    assert recli("score", "model.npz", "-k", 5, "-q", "-o", "base.parquet").code == 0
    assert lists() != lists("base.parquet")


@pytest.mark.parametrize("solver", ["ials", "als"])
def test_a_head_learns_labels_as_they_are_given(solver: str, recli: Recli) -> None:
    """Values above 0 against the others, whatever the base's solver makes of ratings."""
    rows = [(user, item) for user in range(USERS) for item in range(ITEMS)]
    alike = np.array([user % 2 == item % 2 for user, item in rows])
    lines = [
        f"u{u:02},i{i:02},{1 + 4 * one}\n" for at, ((u, i), one) in enumerate(zip(rows, alike, strict=True)) if at % 3
    ]
    Path("rated.csv").write_text(HEAD + "".join(lines))
    data = "rated.csv" if solver == "als" else "old.csv"
    assert recli("factorize", data, "--rank", 4, "--solver", solver, "-q", "-o", "base.npz").code == 0
    flags = ("--adapter", "head", "--negatives", 0, "--hidden", 8, "--epochs", 15, "--learning-rate", 0.05, "-q")
    found = []
    for name, (no, yes) in {"labels": (0, 1), "levels": (-2, 5)}.items():
        lines = [f"u{u:02},i{i:02},{yes if one else no}\n" for (u, i), one in zip(rows, alike, strict=True)]
        Path(f"{name}.csv").write_text(HEAD + "".join(lines))
        assert recli("finetune", "base.npz", f"{name}.csv", *flags, "-o", "labels.npz") == (0, "", "")
        done = recli("score", "base.npz", *adapters("labels"), "--pairs", f"{name}.csv", "-q", "-o", "out.parquet")
        assert done == (0, "", "")
        found.append(pl.read_parquet("out.parquet")["score"].to_numpy())
    assert found[0][alike].mean() > found[0][~alike].mean() + 0.1
    np.testing.assert_array_equal(found[0], found[1])


def test_a_head_on_rows_reranks_what_they_leave(recli: Recli) -> None:
    stack = adapters("rows", "on_rows")
    assert recli("score", "model.npz", *stack, "-k", 3, "--users", "some.txt", "--allow", "few.txt", "-q").code == 0
    found = pl.read_parquet("model.recs.parquet")
    assert set(found.filter(pl.col("reason") == "model")["user"]) == {"u05", "nina", "u00"}
    assert set(found["item"]) <= {"i01", "jam", "i04", "i17"}
    assert found.filter(pl.col("reason") == "model")["score"].is_between(0, 1).all()


def test_features_give_rows_to_ids_that_come_later(recli: Recli) -> None:
    """tea, rice and rosa are in today's attributes alone: their rows are these times the map."""
    flags = [*adapters("features"), "--features", "today"]
    done = recli("score", "model.npz", *flags, "-k", 5, "-o", "recs.parquet")
    assert done.code == 0
    assert "recli score: 1 users get rows from their attributes\n" in done.err
    assert "recli score: 2 items get rows from their attributes\n" in done.err
    found = pl.read_parquet("recs.parquet")
    assert {"pia", "rosa"} <= set(found["user"])
    assert set(found["reason"]) == {"model"}
    Path("pairs.csv").write_text(
        table([("rosa", "tea"), ("u03", "rice"), ("rosa", "i07"), ("pia", "salt"), ("zoe", "tea")])
    )
    assert recli("score", "model.npz", *flags, "--pairs", "pairs.csv", "-q", "-o", "out.parquet").code == 0
    model, delta = numbers("model"), numbers("features")

    def row(role: str, name: str) -> Any:
        side, at = ("P", "b_u") if role == "user" else ("Q", "b_v"), int(name[1:]) if name[1:].isdecimal() else None
        if at is not None:
            return np.append(model[side[0]][at], model[side[1]][at]).astype(float)
        today = features.features("today", role)
        names = [*today.sparse_names, *(one for one in today.dense_names if not one.startswith("statistics."))]
        values = [features.column(today, one)[features.ids(today).index(name)] for one in names]
        return np.append(values, 1) @ delta[f"part_W_{role}"].astype(float)

    scores = pl.read_parquet("out.parquet")
    for user, item, score, reason in scores.rows()[:-1]:
        p, q = row("user", user), row("item", item)
        expected = p[:-1] @ q[:-1] + p[-1] + q[-1] + float(model["b"])
        assert (score, reason) == (pytest.approx(expected, rel=1e-4, abs=1e-5), "model")
    assert scores["reason"][-1] == "unknown user"


def test_features_leave_known_ids_as_they_are(recli: Recli) -> None:
    """Also those that the delta has: what is read later is for ids that nobody knows."""
    for flags, name in (([], "without"), (["--features", "today"], "with")):
        command = ("score", "model.npz", *adapters("features"), *flags, "--pairs", "old.csv", "-q")
        assert recli(*command, "-o", f"{name}.csv").code == 0
    assert Path("with.csv").read_bytes() == Path("without.csv").read_bytes()
    assert recli("score", "model.npz", "--pairs", "old.csv", "-q", "-o", "base.csv").code == 0
    assert Path("base.csv").read_bytes() == Path("without.csv").read_bytes()
