"""recli score --explain: the past items behind each recommendation, in every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.conftest import Outcome

Recli = Callable[..., Outcome]


def test_each_row_names_past_items_of_its_user_best_first(model: Path, ratings: Path, recli: Recli) -> None:
    assert recli("score", model, "-k", 2, "--explain", 2, "-q", "-o", "lists.parquet") == (0, "", "")
    lists = pl.read_parquet("lists.parquet")
    assert lists.columns == ["user", "item", "rank", "score", "reason", "because", "because_score"]
    assert lists.schema["because"] == pl.List(pl.String)
    assert lists.schema["because_score"] == pl.List(pl.Float32)
    past = {(user, item) for user, item, _ in pl.read_csv(ratings).rows()}
    for row in lists.rows(named=True):
        assert len(row["because"]) == len(row["because_score"]) == 2
        assert {(row["user"], item) for item in row["because"]} <= past
        assert row["because_score"] == sorted(row["because_score"], reverse=True)
    assert recli("score", model, "-k", 2, "-q", "-o", "plain.parquet").code == 0
    assert lists.drop("because", "because_score").equals(pl.read_parquet("plain.parquet"))


def test_parts_of_all_past_items_add_up_to_the_score(ratings: Path, recli: Recli) -> None:
    assert recli("factorize", ratings, "--rank", 3, "--iterations", 30, "-o", "m.npz").code == 0
    assert recli("score", "m.npz", "-k", 2, "--explain", 5, "-o", "lists.parquet").code == 0
    lists = pl.read_parquet("lists.parquet")
    np.testing.assert_allclose(lists["because_score"].list.sum(), lists["score"], atol=1e-5)


def test_formats_hold_the_same_explanations(model: Path, recli: Recli) -> None:
    Path("users.txt").write_text("u1\nzoe\n")
    for name in ("a.parquet", "a.ndjson", "a.csv"):
        assert recli("score", model, "--users", "users.txt", "-k", 2, "--explain", 3, "-o", name, "-q").code == 0
    lists = pl.read_parquet("a.parquet")
    nested = pl.read_ndjson("a.ndjson")
    assert nested["because"].to_list() == lists["because"].to_list()
    np.testing.assert_allclose(nested["because_score"].explode(), lists["because_score"].explode(), rtol=1e-6)
    text = pl.read_csv("a.csv")
    assert text["because"].to_list() == lists["because"].list.join("|").to_list()
    parts = text.filter(pl.col("because") != "")["because_score"].str.split("|").explode().cast(pl.Float64)
    np.testing.assert_allclose(parts, lists["because_score"].explode(), rtol=1e-6)
    assert lists.filter(user="zoe")["because"].to_list() == [[], []]  # popular: nothing to explain by


def test_users_of_a_history_are_explained_by_it(model: Path, recli: Recli) -> None:
    Path("h.csv").write_text("user,item\nzoe,i0\nzoe,i3\nu2,i1\n")
    assert recli("score", model, "--history", "h.csv", "--explain", 5, "-k", 1, "-o", "lists.parquet").code == 0
    because = dict(pl.read_parquet("lists.parquet").select("user", "because").rows())
    assert sorted(because["zoe"]) == ["i0", "i3"]
    assert sorted(because["u2"]) == ["i0", "i2", "i3"]  # the model's row comes from what the model has


def test_parts_shards_gates_and_blocks_change_nothing(model: Path, recli: Recli) -> None:
    flags = (model, "-k", 2, "--explain", 3)
    assert recli("score", *flags, "-o", "all.parquet").code == 0
    assert recli("score", *flags, "-o", "all.parquet", "--expect", "churn < 0.1").code == 0
    expected = pl.read_parquet("all.parquet")
    for shard in ("1/2", "2/2"):
        assert recli("score", *flags, "--shard", shard, "-o", f"s{shard[0]}.parquet").code == 0
    assert pl.concat([pl.read_parquet("s1.parquet"), pl.read_parquet("s2.parquet")]).equals(expected)
    assert recli("score", *flags, "--parts", 3, "-o", "parts").code == 0
    assert pl.read_parquet("parts/*.parquet").equals(expected)
    assert recli("score", *flags, "-o", "all.csv").code == 0
    assert recli("score", *flags, "-o", "all.csv", "--expect", "churn < 0.1").code == 0


def test_columns_of_these_names_step_aside(recli: Recli) -> None:
    Path("r.csv").write_text("u,because\n" + "".join(f"u{u},i{i}\n" for u in range(6) for i in range(5) if (u + i) % 3))
    columns = ("--columns", "user=u,item=because")
    assert recli("factorize", "r.csv", *columns, "--rank", 2, "-o", "m.npz").code == 0
    assert recli("score", "m.npz", "-k", 1, "-o", "plain.csv").code == 0
    assert pl.read_csv("plain.csv").columns[:2] == ["u", "because"]
    assert recli("score", "m.npz", "-k", 1, "--explain", 1, "-o", "lists.csv").code == 0
    assert pl.read_csv("lists.csv").columns == [
        "u",
        "because_id",
        "rank",
        "score",
        "reason",
        "because",
        "because_score",
    ]


@pytest.mark.parametrize(
    ("training", "flags", "code", "message"),
    [
        (("--solver", "pop"), (), 65, "m.npz: a model of popularity (--solver pop) recommends alike to all"),
        (("--no-seen",), ("--keep-seen",), 65, "m.npz: the model has no seen lists to explain from"),
        ((), ("--explain", -1), 2, "--explain -1: expected a value from 0 to 1000"),
        ((), ("--truth", "ratings.csv"), 2, "--explain 2: --truth alone writes no lists: give -o FILE"),
        ((), ("--pairs", "ratings.csv"), 2, "--pairs does not go with --explain"),
        ((), ("--similar", "all"), 2, "--similar does not go with --explain"),
    ],
)
def test_what_cannot_be_explained_is_said(
    ratings: Path, recli: Recli, training: Any, flags: Any, code: int, message: str
) -> None:
    rank = () if "pop" in training else ("--rank", 2)
    assert recli("factorize", ratings, *rank, *training, "-o", "m.npz").code == 0
    done = recli("score", "m.npz", "--explain", 2, *flags, "-k", 2)
    assert done.code == code
    assert message in done.err
    assert not Path("m.recs.parquet").exists()


def test_an_imported_model_cannot_tell(recli: Recli) -> None:
    rng = np.random.default_rng(0)
    np.savez("theirs.npz", user_factors=rng.random((4, 2)), item_factors=rng.random((5, 2)))
    Path("seen.csv").write_text("user,item\n0,1\n1,2\n")
    assert recli("factorize", "seen.csv", "--import", "theirs.npz", "-o", "m.npz").code == 0
    done = recli("score", "m.npz", "--explain", 2, "-k", 2)
    assert done.code == 65
    assert "m.npz: an imported model does not say how its rows were learned" in done.err
