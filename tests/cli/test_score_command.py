"""recli score: lists and their quality, and what it says on which stream."""

from __future__ import annotations

import bisect
import contextlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recli.artifacts import Factors
from recli.config import ScoreConfig
from recli.errors import BusyError
from recli.io.npz import read_npz
from recli.score import Audience, Catalogue, block_users
from tests.conftest import Outcome

Recli = Callable[..., Outcome]


@pytest.fixture
def truth(model: Path) -> Path:
    """Held-out items of two users of the model and of one that it does not know."""
    Path("truth.csv").write_text("user,item\nu0,i0\nu0,i3\nu4,i2\nzoe,i1\n")
    return Path("truth.csv")


def test_lists_are_the_dot_products_of_the_model_in_order(model: Path, recli: Recli) -> None:
    assert recli("score", model, "-k", 5, "--keep-seen", "-q", "-o", "lists.parquet") == (0, "", "")
    lists = pl.read_parquet("lists.parquet")
    with np.load(model) as arrays:
        scores = arrays["P"].astype(np.float64) @ arrays["Q"].astype(np.float64).T
    for (user,), rows in lists.group_by("user"):
        expected = scores[int(str(user)[1:])]
        items = [int(item[1:]) for item in rows["item"]]
        assert rows["rank"].to_list() == [1, 2, 3, 4, 5]
        np.testing.assert_allclose(rows["score"], expected[items], rtol=1e-6, atol=1e-9)
        assert (np.diff(rows["score"]) <= 0).all()
    assert len(lists) == 8 * 5
    assert lists["reason"].unique().to_list() == ["model"]


def test_formats_hold_the_same_rows(model: Path, recli: Recli) -> None:
    tables = []
    for name, read in {
        "a.parquet": pl.read_parquet,
        "a.pq": pl.read_parquet,
        "a.csv": pl.read_csv,
        "a.ndjson": pl.read_ndjson,
        "a.jsonl": pl.read_ndjson,
    }.items():
        assert recli("score", model, "-k", 2, "-q", "-o", name).code == 0
        table = read(name)
        tables.append(table.with_columns(pl.col("rank").cast(pl.Int32), pl.col("score").cast(pl.Float32)))
    assert recli("score", model, "-k", 2, "-q", "-o", "lists", "--output-format", "csv").code == 0
    assert Path("lists").read_bytes() == Path("a.csv").read_bytes()
    for other in tables[1:]:
        assert other.equals(tables[0])


def test_quality_is_a_table_and_the_same_as_json_and_stats(truth: Path, recli: Recli) -> None:
    shown = recli("score", "model.npz", "--truth", truth, "-k", 3, "-q", "--stats", "run.json").out
    result = json.loads(recli("score", "model.npz", "--truth", truth, "-k", 3, "-q", "--json").out)
    title, *rows = shown.splitlines()
    assert title == "3 users with held-out items"
    assert result["judged_users"] == 3
    table = dict(re.fullmatch(r"  (\S+) +([0-9.]+)", row).groups() for row in rows)  # type: ignore[union-attr]
    names = {"recall", "recall_capped", "ndcg", "map", "hit_rate", "mrr", "coverage", "novelty"}
    assert set(table) == {f"{name}@3" for name in names}
    assert table == {name: f"{result[name]:.4f}" for name in table}
    assert len({len(row) for row in rows}) == 1  # columns line up
    stats = json.loads(Path("run.json").read_text())
    changing = {"seconds", "peak_rss_bytes"}
    assert {key: stats[key] for key in stats.keys() - changing} == {
        key: result[key] for key in result.keys() - changing
    }


def test_quality_is_that_of_the_lists_which_are_written_too(truth: Path, recli: Recli) -> None:
    outcome = recli("score", "model.npz", "--truth", truth, "-k", 2, "-o", "lists.csv", "--json")
    result = json.loads(outcome.out)
    wanted = set(pl.read_csv(truth).rows())
    lists = pl.read_csv("lists.csv")
    hits = [len(wanted & set(lists.filter(user=user)[["user", "item"]].rows())) for user in ("u0", "u4", "zoe")]
    assert result["recall@2"] == pytest.approx((hits[0] / 2 + hits[1] + hits[2]) / 3)
    assert result["hit_rate@2"] == pytest.approx(np.mean([hit > 0 for hit in hits]))
    assert result["unknown_users"] == 1
    assert "users that are not in the model get the most popular items: 1\n" in outcome.err


def test_quality_alone_writes_no_file(truth: Path, recli: Recli) -> None:
    before = {path.name for path in Path().iterdir()}
    assert recli("score", "model.npz", "--truth", truth, "-k", 2).code == 0
    assert {path.name for path in Path().iterdir()} == before


def test_lists_on_stdout_have_nothing_between_them(truth: Path, recli: Recli) -> None:
    outcome = recli("score", "model.npz", "--truth", truth, "-k", 1, "-o", "-", "--output-format", "csv")
    assert pl.read_csv(io.StringIO(outcome.out)).columns == ["user", "item", "rank", "score", "reason"]
    assert len(outcome.out.splitlines()) == 1 + 3
    assert "wrote stdout: 3 lists; " in outcome.err


def test_truth_can_be_filtered(truth: Path, recli: Recli) -> None:
    Path("rated.csv").write_text("user,item,rating\nu0,i0,5\nu4,i2,1\n")
    result = json.loads(
        recli("score", "model.npz", "--truth", "rated.csv", "--truth-where", "rating > 3", "--json", "-k", 2).out
    )
    assert (result["users"], result["judged_users"]) == (1, 1)


def test_only_the_users_asked_for_are_scored_once_and_in_order(truth: Path, recli: Recli) -> None:
    Path("users.txt").write_text("u4\nu0\nu4\n")
    recli("score", "model.npz", "--users", "users.txt", "-k", 1, "-o", "lists.csv")
    assert pl.read_csv("lists.csv")["user"].to_list() == ["u4", "u0"]
    both = json.loads(recli("score", "model.npz", "--users", "users.txt", "--truth", truth, "-k", 2, "--json").out)
    assert (both["users"], both["judged_users"]) == (2, 2)  # zoe is not asked for


def test_a_dry_run_reads_checks_and_writes_nothing(truth: Path, recli: Recli) -> None:
    before = {path.name for path in Path().iterdir()}
    outcome = recli("score", "model.npz", "-k", 3, "--dry-run", "--json", "--stats", "run.json")
    plan = json.loads(outcome.out)
    assert (plan["output"], plan["users"], plan["config"]["k"]) == ("model.recs.parquet", 8, 3)
    assert outcome.err.endswith("plan: 8 lists of 3 to model.recs.parquet, 16,384 users at a time; nothing written\n")
    assert "to nowhere (quality only)" in recli("score", "model.npz", "--truth", truth, "-n", "-k", 2).err
    assert {path.name for path in Path().iterdir()} == before


def test_a_memory_limit_divides_the_work_and_changes_nothing(model: Path, recli: Recli) -> None:
    with open(model, "rb") as file:
        factors = read_npz(file, Factors, "")
    everybody = Audience(np.arange(8))

    def is_enough(limit: int) -> bool:
        with contextlib.suppress(BusyError):
            return block_users(factors, everybody, Catalogue(), ScoreConfig(k=3), limit) > 0
        return False

    least = bisect.bisect_left(range(1 << 40), True, key=is_enough)
    assert recli("score", model, "-k", 3, "--memory-limit", least - 1).code == 75
    shown = recli("score", model, "-k", 3, "--memory-limit", least, "-n", "--json")
    assert json.loads(shown.out)["block_users"] == 1
    assert recli("score", model, "-k", 3, "-o", "parts.csv", "--memory-limit", least, "-q") == (0, "", "")
    assert recli("score", model, "-k", 3, "-o", "whole.csv", "-q") == (0, "", "")
    assert Path("parts.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.parametrize("name", ["shop.factors.npz", "shop.npz", "sub/shop.factors.npz", "shop"])
def test_without_an_output_lists_are_named_after_the_model(name: str, model: Path, recli: Recli) -> None:
    Path("sub").mkdir()
    Path(name).write_bytes(model.read_bytes())
    assert "wrote shop.recs.parquet: 8 lists; " in recli("score", name, "-k", 1).err
    assert len(pl.read_parquet("shop.recs.parquet")) == 8


def test_quality_goes_to_stderr_where_the_lists_go_to_stdout(recli: Callable[..., Outcome], sample: Path) -> None:
    assert recli("factorize", sample / "ratings.parquet", "--rank", "4", "-o", "m.npz").code == 0
    command = ("score", "m.npz", "--truth", sample / "test.parquet", "-o", "-", "--output-format", "csv")
    done = recli(*command)
    assert done.out.startswith("user_id,item_id,rank,score,reason\n")
    assert "recall@10" not in done.out
    assert "recall@10" in done.err
    assert recli(*command, "-q").err == ""


def test_a_condition_on_the_truth_is_called_by_its_own_flag(recli: Callable[..., Outcome], sample: Path) -> None:
    assert recli("factorize", sample / "ratings.parquet", "--rank", "4", "-o", "m.npz").code == 0
    done = recli("score", "m.npz", "--truth", sample / "test.parquet", "--truth-where", "ratng > 3")
    assert done.code == 2
    assert "--truth-where 'ratng > 3'" in done.err
