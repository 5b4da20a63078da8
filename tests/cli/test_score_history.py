"""recli score --history: users that the model has never seen, from what they have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.conftest import Outcome

Recli = Callable[..., Outcome]
SETTINGS = {
    "ials": (),
    "hu, alpha": ("--loss", "hu", "--alpha", "2"),
    "weights": ("--weight", "rating"),
    "als": ("--solver", "als"),
    "svd": ("--solver", "svd"),
    "svd, degree": ("--solver", "svd", "--normalize", "degree"),
    "svd, weights": ("--solver", "svd", "--weight", "rating", "--normalize", "none"),
    "pop": ("--solver", "pop"),
}


def write(name: str, *rows: str, head: str = "user,item,rating") -> Path:
    Path(name).write_text("\n".join([head, *rows, ""]))
    return Path(name)


@pytest.mark.parametrize("flags", SETTINGS.values(), ids=SETTINGS)
def test_a_user_of_the_model_under_a_new_name_gets_the_same_list(ratings: Path, recli: Recli, flags: Any) -> None:
    """Converged, so that the stored rows are minimisers, too."""
    rank = {"pop": (), "svd": ("--rank", 3)}.get(flags[1] if flags else "", ("--rank", 3, "--iterations", 30))
    assert recli("factorize", ratings, *rank, *flags, "-o", "m.npz").code == 0
    theirs = pl.read_csv(ratings).filter(pl.col("user").is_in(["u1", "u4"]))
    theirs.with_columns(pl.col("user").replace({"u1": "new1", "u4": "new4"})).sample(
        fraction=1, shuffle=True
    ).write_csv("h.csv")
    done = recli("score", "m.npz", "--history", "h.csv", "-k", 3, "-o", "new.csv")
    assert done.code == 0
    assert f"history: {len(theirs)} pairs of 2 users" in done.err
    assert "users folded in from --history: 2\n" in done.err
    write("users.txt", "u1", "u4", head="user")
    assert recli("score", "m.npz", "--users", "users.txt", "-k", 3, "-o", "old.csv").code == 0
    new, old = pl.read_csv("new.csv"), pl.read_csv("old.csv")
    assert new["user"].unique(maintain_order=True).to_list() == ["new1", "new4"]
    assert new["reason"].unique().to_list() == ["history"]
    assert new["item"].to_list() == old["item"].to_list()
    np.testing.assert_allclose(new["score"], old["score"], rtol=2e-5)


def test_who_gets_what(model: Path, recli: Recli) -> None:
    """Users of the model keep their rows, but do not get what they have had since."""
    assert recli("score", model, "-o", "before.csv", "-k", 1).code == 0
    best = dict(pl.read_csv("before.csv").select("user", "item").rows())
    write("h.csv", f"u2,{best['u2']},3", "zoe,i0,3", "ann,i77,3", "ann,i78,1", "zoe,i77,2")
    done = recli("score", model, "--history", "h.csv", "-o", "lists.csv", "-k", 5)
    assert "2 items of --history are not in the model: their 3 pairs are ignored\n" in done.err
    assert "folded in from --history: 1; users that are not in the model get the most popular items: 1\n" in done.err
    lists = pl.read_csv("lists.csv")
    assert dict(lists.select("user", "reason").unique().rows()) == {"ann": "popular", "u2": "model", "zoe": "history"}
    assert lists["user"].unique(maintain_order=True).to_list() == ["ann", "u2", "zoe"]
    assert best["u2"] not in lists.filter(user="u2")["item"].to_list()
    assert sorted(lists.filter(user="zoe")["item"]) == ["i1", "i2", "i3", "i4"]
    assert recli("score", model, "--history", "h.csv", "-o", "all.csv", "-k", 5, "--keep-seen", "-q") == (0, "", "")
    assert pl.read_csv("all.csv").group_by("user").len().sort("user").rows() == [("ann", 5), ("u2", 5), ("zoe", 5)]


def test_users_and_truth_say_who_gets_lists(model: Path, recli: Recli) -> None:
    write("h.csv", "zoe,i0,3", "ann,i1,3")
    write("t.csv", "zoe,i2,3", "u1,i2,3")
    write("users.csv", "u3", "zoe", head="user")
    done = recli(
        "score", model, "--history", "h.csv", "--users", "users.csv", "-k", 2, "-o", "-", "--output-format", "csv"
    )
    assert pl.read_csv(done.out.encode())["user"].unique(maintain_order=True).to_list() == ["u3", "zoe"]
    assert "1 users of --history are not among those who get lists\n" in done.err
    judged = json.loads(recli("score", model, "--history", "h.csv", "--truth", "t.csv", "-k", 2, "--json").out)
    assert (judged["users"], judged["unknown_users"], judged["folded_users"], judged["judged_users"]) == (2, 0, 1, 2)


def test_shards_and_parts_fold_in_their_own_users(model: Path, recli: Recli) -> None:
    write("h.csv", *(f"n{n},i{(n * i) % 5},{1 + i}" for n in range(9) for i in (1, 3)))
    assert recli("score", model, "--history", "h.csv", "-o", "all.parquet", "-k", 3).code == 0
    for shard in ("1/2", "2/2"):
        assert (
            recli("score", model, "--history", "h.csv", "--shard", shard, "-o", f"s{shard[0]}.parquet", "-k", 3).code
            == 0
        )
    assert recli("score", model, "--history", "h.csv", "--parts", 3, "-o", "parts", "-k", 3).code == 0
    expected = pl.read_parquet("all.parquet")
    assert pl.concat([pl.read_parquet("s1.parquet"), pl.read_parquet("s2.parquet")]).equals(expected)
    assert pl.read_parquet("parts/*.parquet").equals(expected)


def test_other_columns_and_a_pipe(model: Path, recli: Recli, monkeypatch: pytest.MonkeyPatch) -> None:
    write("h.csv", "zoe,i0,3", head="uid,sku,stars")
    done = recli("score", model, "--history", "h.csv", "--columns", "user=uid,item=sku", "-o", "a.csv", "-k", 2)
    assert done.code == 0
    assert done.err.startswith("recli score: history: 1 pairs of 1 users\n")
    guessed = recli("score", model, "--history", "h.csv", "--columns", "item=sku", "-o", "b.csv", "-k", 2)
    assert "1 users; columns user=uid (guessed; --columns sets them)\n" in guessed.err
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


def test_repeated_rows_mean_what_they_meant_to_factorize(ratings: Path, recli: Recli) -> None:
    command = ("--rank", 2, "--alpha", 1, "--duplicates")
    for policy, value in (("sum", 7), ("last", 2), ("max", 5)):
        assert recli("factorize", ratings, *command, policy, "-o", "m.npz").code == 0
        write("one.csv", f"zoe,i0,{value}", "zoe,i1,1")
        write("two.csv", "zoe,i0,5", "zoe,i1,1", "zoe,i0,2")
        for name in ("one", "two"):
            assert recli("score", "m.npz", "--history", f"{name}.csv", "-o", f"{name}.out.csv", "-q", "-k", 2).code == 0
        assert Path("one.out.csv").read_bytes() == Path("two.out.csv").read_bytes()
    assert recli("factorize", ratings, *command, "error", "-o", "m.npz").code == 0
    done = recli("score", "m.npz", "--history", "two.csv", "-o", "out.csv")
    assert (done.code, "two.csv: 1 rows repeat a user and item, which the model's data may not" in done.err) == (
        65,
        True,
    )


RATINGS_WANTED = (
    "no column looks like the rating, which the model learns from; found user, item: name it with --columns"
)


@pytest.mark.parametrize(
    ("flags", "head", "row", "message"),
    [
        ((), "who,what", "zoe,i0", "no column looks like the user; found who, what"),
        ((), "user,what", "zoe,i0", "no column looks like the item; found user, what"),
        ((), "user,item", None, "no rows"),
        ((), "user,item", "zoe,", "column 'item': 1 ids are missing, first in row 1"),
        (("--solver", "als"), "user,item", "zoe,i0", RATINGS_WANTED),
        (("--alpha", "2"), "user,item", "zoe,i0", RATINGS_WANTED),
        (("--solver", "als"), "user,item,rating", "zoe,i0,good", "column 'rating': expected finite numbers"),
        (("--alpha", "2"), "user,item,rating", "zoe,i0,-1", "expected weights of at least 0, found -2"),
        (("--weight", "rating"), "user,item,rating", "zoe,i0,-1", "expected weights of at least 0, found -1"),
        (("--weight", "rating"), "user,item", "zoe,i0", "no column 'rating', by which the model weighs its pairs"),
    ],
)
def test_what_the_table_lacks_is_said(
    ratings: Path, recli: Recli, flags: Any, head: str, row: str | None, message: str
) -> None:
    assert recli("factorize", ratings, "--rank", 2, *flags, "-o", "m.npz").code == 0
    write("h.csv", *([row] if row else []), head=head)
    done = recli("score", "m.npz", "--history", "h.csv", "-o", "lists.csv", "-k", 2)
    assert done.code == 65
    assert f"recli: error: h.csv: {message}" in done.err
    assert not Path("lists.csv").exists()


def test_a_model_that_learns_from_pairs_reads_no_ratings(model: Path, recli: Recli) -> None:
    write("h.csv", "zoe,i0,good")
    assert recli("score", model, "--history", "h.csv", "-o", "a.csv", "-k", 2).code == 0
    write("h.csv", "zoe,i0", head="user,item")
    assert recli("score", model, "--history", "h.csv", "-o", "b.csv", "-k", 2).code == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


def test_an_imported_model_has_no_rule_for_new_users(recli: Recli) -> None:
    rng = np.random.default_rng(0)
    np.savez("theirs.npz", user_factors=rng.random((4, 2)), item_factors=rng.random((5, 2)))
    assert recli("factorize", "--import", "theirs.npz", "-o", "m.npz").code == 0
    write("h.csv", "9,1", head="user,item")
    done = recli("score", "m.npz", "--history", "h.csv", "--keep-seen", "-k", 2)
    assert done.code == 65
    assert "recli: error: m.npz: an imported model does not say how its rows were learned" in done.err


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--history", "missing.csv"), 66, "missing.csv: no such file"),
        (("--history", ""), 2, "a file name is empty"),
        (("--history", "-", "--users", "-"), 2, "only one of --users and --history can be - (stdin)"),
        (("--pairs", "p.csv", "--history", "h.csv"), 2, "--pairs does not go with --history"),
        (("--similar", "all", "--history", "h.csv"), 2, "--similar does not go with --history"),
    ],
)
def test_wrong_uses_of_the_flag(model: Path, recli: Recli, flags: Any, code: int, message: str) -> None:
    write("h.csv", "zoe,i0,3")
    done = recli("score", model, *flags)
    assert done.code == code
    assert message in done.err
