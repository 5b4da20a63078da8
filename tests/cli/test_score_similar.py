"""recli score --similar and --similar-users: nearest by cosine, of those asked for."""

from __future__ import annotations

import bisect
import contextlib
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recli.config import ScoreConfig
from recli.errors import BusyError
from recli.score import block_similar
from tests.conftest import Outcome

Recli = Callable[..., Outcome]


def cosines(model: Path, rows: str) -> np.ndarray:
    with np.load(model) as arrays:
        table = arrays[rows].astype(float)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    return table @ table.T


@pytest.mark.parametrize(
    ("flag", "role", "rows", "count"), [("similar", "item", "Q", 5), ("similar-users", "user", "P", 8)]
)
def test_all_get_their_nearest_with_cosines(
    flag: str, role: str, rows: str, count: int, model: Path, recli: Recli
) -> None:
    outcome = recli("score", model, f"--{flag}", "all", "-k", count - 1)
    assert outcome.code == 0
    assert f"wrote model.{flag}.parquet: neighbours of {count} {role}s; " in outcome.err
    found = pl.read_parquet(f"model.{flag}.parquet")
    types = {role: pl.String, f"similar_{role}": pl.String, "rank": pl.Int32, "score": pl.Float32}
    assert dict(found.schema) == types
    truth = cosines(model, rows)
    for at in range(count):
        mine = found.filter(pl.col(role) == f"{role[0]}{at}")
        others = [int(name[1:]) for name in mine[f"similar_{role}"]]
        assert sorted([*others, at]) == list(range(count))
        assert mine["rank"].to_list() == list(range(1, count))
        np.testing.assert_allclose(mine["score"], truth[at, others], rtol=0, atol=2e-7)
        assert (np.diff(mine["score"]) <= 0).all()


def test_only_those_asked_for_in_their_order_and_unknown_ones_are_counted(
    model: Path, process: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    command = ("score", model, "--similar", "-", "-k", 2, "-o", "-", "--output-format", "csv", "--stats", "run.json")
    done = process(*command, input=b"i4\nnew\ni0\ni4\n")
    assert done.returncode == 0
    found = pl.read_csv(io.BytesIO(done.stdout))
    assert found["item"].to_list() == ["i4", "i4", "i0", "i0"]
    assert b"2 of 5 items, rank 4; left out, since the model does not know them: 1\n" in done.stderr
    stats = json.loads(Path("run.json").read_text())
    assert (stats["items"], stats["unknown_items"], stats["k"]) == (2, 1, 2)


def test_tables_name_their_column_and_a_file_named_all_is_a_file(model: Path, recli: Recli) -> None:
    Path("all").write_text("user;sku\nx;i2\ny;i3\n")
    command = ("score", model, "--similar", "all", "--columns", "item=sku", "-k", 1, "-q", "-o", "out.ndjson")
    assert recli(*command) == (0, "", "")
    assert pl.read_ndjson("out.ndjson")["item"].to_list() == ["i2", "i3"]


def test_columns_never_collide(ratings: Path, recli: Recli) -> None:
    pl.read_csv(ratings).rename({"item": "rank"}).write_csv("odd.csv")
    named = ("--columns", "user=user,item=rank")
    assert recli("factorize", "odd.csv", *named, "--rank", 2, "-q", "-o", "odd.npz").code == 0
    assert recli("score", "odd.npz", "--similar", "all", "-k", 1, "-q", "-o", "out.csv").code == 0
    assert pl.read_csv("out.csv").columns == ["rank_id", "similar_rank_id", "rank", "score"]


def test_neighbours_are_of_the_allowed_items(model: Path, recli: Recli) -> None:
    Path("items.csv").write_text("item,price\ni0,5\ni1,50\ni2,7\ni3,500\n")
    Path("deny.txt").write_text("i0\n")
    command = ("score", model, "--similar", "all", "--items", "items.csv", "--where", "price < 100")
    outcome = recli(*command, "--deny", "deny.txt", "-k", 2, "-o", "out.csv")
    assert outcome.code == 0
    found = pl.read_csv("out.csv")
    assert set(found["similar_item"]) == {"i1", "i2"}
    assert found.group_by("item", maintain_order=True).len()["len"].to_list() == [2, 1, 1, 2, 2]
    assert "2 items have fewer than 2 neighbours\n" in outcome.err


def test_lists_end_at_the_least_score(model: Path, recli: Recli) -> None:
    assert (
        recli("score", model, "--similar-users", "all", "-k", 7, "--min-score", 0.25, "-q", "-o", "out.csv").code == 0
    )
    truth = cosines(model, "P")
    assert len(pl.read_csv("out.csv")) == (truth > 0.25).sum() - 8


def is_enough(limit: int) -> bool:
    with contextlib.suppress(BusyError):
        return block_similar((8, 4), ScoreConfig(k=3), limit) > 0
    return False


def test_memory_and_threads_divide_the_work_and_change_nothing(model: Path, recli: Recli) -> None:
    command = ("score", model, "--similar-users", "all", "-k", 3)
    assert recli(*command, "-q", "-o", "whole.csv").code == 0
    least = bisect.bisect_left(range(1 << 40), True, key=is_enough)
    shown = recli(*command, "-n", "--json", "--memory-limit", least).out
    assert json.loads(shown)["block_users"] == 1
    for more in (("--threads", 1), ("--memory-limit", least), ("--device", "reference")):
        assert recli(*command, *more, "-q", "-o", "parts.csv").code == 0
        assert Path("parts.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_a_dry_run_reads_checks_and_writes_nothing(model: Path, recli: Recli) -> None:
    before = {path.name for path in Path().iterdir()}
    outcome = recli("score", model, "--similar", "all", "-k", 3, "--dry-run", "--json")
    plan = json.loads(outcome.out)
    assert (plan["output"], plan["items"], plan["block_items"], plan["k"]) == ("model.similar.parquet", 5, 1 << 14, 3)
    said = "plan: 3 neighbours of 5 items to model.similar.parquet, 16,384 at a time; nothing written\n"
    assert outcome.err.endswith(said)
    assert {path.name for path in Path().iterdir()} == before


def test_a_model_without_factors_has_nothing_to_compare(ratings: Path, recli: Recli) -> None:
    assert recli("factorize", ratings, "--solver", "pop", "-q", "-o", "pop.npz").code == 0
    outcome = recli("score", "pop.npz", "--similar", "all", "-k", 2)
    assert outcome.code == 65
    assert outcome.err.endswith(
        "recli: error: pop.npz: the model has rank 0 (solver pop): it has no factors to compare\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--similar nowhere.txt", 66, "nowhere.txt: no such file"),
        ("--similar new.txt -k 2", 65, "new.txt: none of its 2 items is in the model"),
        ("--similar-users new.txt -k 2", 65, "new.txt: none of its 2 users is in the model"),
        ("--similar all", 2, "-k 10: there are 4 others in the model: give at most -k 4"),
        ("--similar all --similar-users all", 2, "--similar and --similar-users exclude each other"),
        ("--similar all --max-per x=1", 2, "--similar does not go with --max-per: it takes -k, --min-score, --allow, "),
        ("--similar all --truth x.csv", 2, "--similar does not go with --truth: it takes -k, --min-score"),
        ("--similar-users all --deny new.txt", 2, "--similar-users does not go with --deny: it takes -k, --min-score"),
        ("--similar all --keep-seen", 2, "--similar does not go with --keep-seen"),
        ("--similar all -k 2 --allow new.txt", 65, "--allow leaves none of 5 items"),
        ("--similar all -k 2 --memory-limit 1M", 75, "finding neighbours needs at least 0.33G"),
        ("--similar all -k 2 -o out.xlsx", 2, "-o out.xlsx: expected a suffix"),
    ],
)
def test_wrong_use_is_one_line_with_its_code(
    arguments: str, code: int, message: str, model: Path, recli: Recli
) -> None:
    Path("new.txt").write_text("x\ny\n")
    outcome = recli("score", model, "-q", *arguments.split())
    assert outcome.code == code
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["model.npz", "new.txt", "ratings.csv"]
