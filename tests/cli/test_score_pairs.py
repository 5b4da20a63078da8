"""recli score --pairs: a prediction a row, what is said of unknown ids, and how far off it is."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recli.artifacts import Factors
from recli.config import ReadConfig
from recli.errors import BusyError
from recli.io import PairTable, read_artifact, source, write_npz
from recli.score import block_pairs
from tests.conftest import Outcome

Recli = Callable[..., Outcome]
PAIRS = "user,item\nu1,i0\nu0,i4\nzoe,i1\nu1,i0\nu2,new\n\nzoe,new\n"


@pytest.fixture
def model(ratings: Path, recli: Recli) -> str:
    """Explicit ratings: with biases, which are what is left for unknown users and items."""
    assert recli("factorize", ratings, "--solver", "als", "--rank", 3, "-q", "-o", "als.npz").code == 0
    return "als.npz"


@pytest.fixture
def pairs() -> str:
    Path("pairs.csv").write_text(PAIRS)
    return "pairs.csv"


def test_every_row_gets_the_models_prediction_in_order(model: str, pairs: str, recli: Recli) -> None:
    outcome = recli("score", model, "--pairs", pairs, "-o", "out.parquet", "--stats", "run.json")
    assert outcome.code == 0
    found = pl.read_parquet("out.parquet")
    assert dict(found.schema) == {"user": pl.String, "item": pl.String, "score": pl.Float32, "reason": pl.String}
    assert found[:, :2].equals(pl.read_csv(pairs).drop_nulls())
    reasons = ["model", "model", "unknown user", "model", "unknown item", "unknown user and item"]
    assert found["reason"].to_list() == reasons
    with np.load(model) as arrays:
        P, Q, b_u, b_v, b = (arrays[name].astype(float) for name in ("P", "Q", "b_u", "b_v", "b"))
    users, items = {"u0": 0, "u1": 1, "u2": 2}, {"i0": 0, "i1": 1, "i4": 4}
    for user, item, score, _ in found.rows():
        u, v = users.get(user), items.get(item)
        expected = b + (0 if u is None else b_u[u]) + (0 if v is None else b_v[v])
        expected += 0 if u is None or v is None else P[u] @ Q[v]
        assert score == pytest.approx(float(expected), rel=1e-6)
    assert "6 pairs, rank 3; columns" not in outcome.err  # the model's own names need no guess
    assert "wrote out.parquet: 6 predictions; " in outcome.err
    said = "3 predictions are from biases alone: unknown user 1, unknown item 1, unknown user and item 1"
    assert said in outcome.err
    stats = json.loads(Path("run.json").read_text())
    counts = [stats[f"{name}_pairs"] for name in ("unknown_user", "unknown_item", "unknown_user_and_item")]
    assert (stats["pairs"], stats["output"], counts) == (6, "out.parquet", [1, 1, 1])


def test_formats_blocks_and_threads_give_the_same_rows(model: str, pairs: str, recli: Recli) -> None:
    tables = []
    for arguments, read in {
        ("-o", "a.csv"): pl.read_csv,
        ("-o", "a.jsonl", "--threads", 1): pl.read_ndjson,
        ("-o", "a.pq", "--device", "reference"): pl.read_parquet,
        ("-o", "b.parquet", "--memory-limit", fewest_bytes(model, pairs)): pl.read_parquet,
    }.items():
        assert recli("score", model, "--pairs", pairs, "-q", *arguments) == (0, "", "")
        tables.append(read(arguments[1]).with_columns(pl.col("score").cast(pl.Float32)))
    for other in tables[1:]:
        assert other.equals(tables[0])


def fewest_bytes(model: str, pairs: str) -> int:
    """The least --memory-limit, with which blocks are of one pair."""
    with source([model]) as found:
        factors = read_artifact(found, Factors)
    with source([pairs]) as found:
        beside = PairTable(found, factors, ReadConfig()).stream_bytes

    def is_enough(limit: int) -> bool:
        with contextlib.suppress(BusyError):
            return block_pairs(factors, limit, beside=beside) > 0
        return False

    least = bisect.bisect_left(range(1 << 40), True, key=is_enough)
    assert block_pairs(factors, least, beside=beside) == 1
    return least


def test_pairs_come_and_predictions_go_through_pipes(
    model: str, process: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    done = process("score", model, "--pairs", "-", "-o", "-", "--output-format", "csv", input=PAIRS.encode())
    assert done.returncode == 0
    assert pl.read_csv(done.stdout)["item"].to_list() == ["i0", "i4", "i1", "i0", "new", "new"]
    assert b"wrote stdout: 6 predictions; " in done.stderr


def test_a_score_is_the_one_that_lists_give(model: str, recli: Recli) -> None:
    assert recli("score", model, "-k", 5, "--keep-seen", "-q", "-o", "lists.parquet").code == 0
    assert recli("score", model, "--pairs", "lists.parquet", "-q", "-o", "pairs.parquet").code == 0
    lists, found = pl.read_parquet("lists.parquet"), pl.read_parquet("pairs.parquet")
    assert found["score"].equals(lists["score"])


def test_errors_are_those_of_the_predictions(model: str, pairs: str, recli: Recli) -> None:
    Path("truth.csv").write_text("user,item,rating\nu1,i0,1\nu0,i4,9\nu1,i0,4\nzoe,i1,2\nu7,i1,3\n")
    assert recli("score", model, "--pairs", pairs, "-q", "-o", "out.csv").code == 0
    scores = pl.read_csv("out.csv")["score"].to_list()
    errors = np.array([scores[0] - 4, scores[1] - 9, scores[2] - 2, scores[3] - 4])
    before = {path.name for path in Path().iterdir()}
    result = json.loads(recli("score", model, "--pairs", pairs, "--truth", "truth.csv", "--json", "-q").out)
    assert (result["judged_pairs"], result["judged_known_pairs"]) == (4, 3)
    assert result["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)
    assert result["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    known = errors[[0, 1, 3]]
    assert result["rmse_known"] == pytest.approx(np.sqrt((known**2).mean()), rel=1e-6)
    assert result["mae_known"] == pytest.approx(np.abs(known).mean(), rel=1e-6)
    shown = recli("score", model, "--pairs", pairs, "--truth", "truth.csv", "-q").out
    assert shown.splitlines() == [
        "4 pairs with ratings, of which the model knows 3",
        f"  rmse          {result['rmse']:.4f}",
        f"  mae           {result['mae']:.4f}",
        f"  rmse (known)  {result['rmse_known']:.4f}",
        f"  mae (known)   {result['mae_known']:.4f}",
    ]
    assert {path.name for path in Path().iterdir()} == before  # errors only


def test_a_table_may_be_its_own_truth_and_be_written_too(model: str, recli: Recli, ratings: Path) -> None:
    outcome = recli("score", model, "--pairs", ratings, "--truth", ratings, "-o", "-", "--output-format", "csv")
    assert len(pl.read_csv(io.StringIO(outcome.out))) == 27
    assert "27 pairs with ratings\n  rmse  " in outcome.err
    assert "ratings of 27 pairs from column rating of --truth\n" in outcome.err
    assert "known" not in outcome.err
    filtered = recli("score", model, "--pairs", ratings, "--truth", ratings, "--truth-where", "rating > 3", "--json")
    assert json.loads(filtered.out)["judged_pairs"] == pl.read_csv(ratings).filter(pl.col("rating") > 3).height


def test_a_model_that_only_ranks_is_said_to(ratings: Path, recli: Recli) -> None:
    assert recli("factorize", ratings, "--rank", 2, "-q", "-o", "ials.npz").code == 0
    said = recli("score", "ials.npz", "--pairs", ratings, "--truth", ratings).err
    assert "the scores of ials are for ranking and no ratings; factorize --solver als predicts those\n" in said


def test_a_dry_run_reads_checks_and_writes_nothing(model: str, pairs: str, recli: Recli) -> None:
    before = {path.name for path in Path().iterdir()}
    outcome = recli("score", model, "--pairs", pairs, "--dry-run", "--json")
    plan = json.loads(outcome.out)
    assert (plan["output"], plan["pairs"], plan["block_pairs"]) == ("als.pairs.parquet", 6, 1 << 17)
    assert outcome.err.endswith("plan: 6 predictions to als.pairs.parquet, 131,072 at a time; nothing written\n")
    assert {path.name for path in Path().iterdir()} == before
    Path("bad.csv").write_text("user,item\nu1,\n")
    assert recli("score", model, "--pairs", "bad.csv", "-n").code == 65


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--pairs nowhere.csv", 66, "nowhere.csv: no such file"),
        ("--pairs ids.txt", 65, "ids.txt: no column looks like the user; found u1"),
        (
            "--pairs pairs.csv --truth pairs.csv",
            65,
            "pairs.csv: no column looks like the rating; found user, item: name",
        ),
        ("--pairs pairs.csv --truth other.csv", 65, "other.csv: none of its 1 ratings is of a pair in --pairs"),
        ("--pairs pairs.csv --truth other.csv -o old.csv", 65, "other.csv: none of its 1 ratings is of a pair in"),
        ("--pairs - --truth -", 2, "only one of --pairs and --truth can be - (stdin)"),
        ("--pairs pairs.csv --similar ids.txt", 2, "--pairs and --similar exclude each other"),
        ("--pairs pairs.csv --truth-where x", 2, "--truth-where 'x': there is no --truth for it to filter"),
        ("--pairs pairs.csv -k 10", 2, "--pairs does not go with -k: it takes --truth, --truth-where"),
        ("--pairs pairs.csv --explain 2 --deny ids.txt", 2, "--pairs does not go with --explain, --deny: it takes"),
        ("--pairs pairs.csv --keep-seen", 2, "--pairs does not go with --keep-seen: it"),
        ("--pairs pairs.csv --users ids.txt", 2, "--pairs does not go with --users: it"),
        ("--pairs pairs.csv --expect users>1", 2, "--pairs does not go with --expect: it"),
        (
            "--pairs pairs.csv --memory-limit 1M",
            75,
            "predicting pairs needs at least 0.33G: give a larger --memory-limit",
        ),
        ("--pairs pairs.csv -o pairs.csv", 73, "pairs.csv: the output is also an input"),
    ],
)
def test_wrong_use_is_one_line_with_its_code(
    arguments: str, code: int, message: str, model: str, pairs: str, recli: Recli
) -> None:
    Path("ids.txt").write_text("u1\nu2\n")
    Path("other.csv").write_text("user,item,rating\nu5,i1,3\n")
    Path("old.csv").write_text("old")
    outcome = recli("score", model, "-q", *arguments.split())
    assert outcome.code == code
    assert outcome.err.startswith(f"recli: error: {message}")
    assert outcome.err.count("\n") == 1
    assert Path("old.csv").read_text() == "old"


def test_a_model_whose_scores_overflow_is_named(pairs: str, recli: Recli, ratings: Path) -> None:
    assert recli("factorize", ratings, "--rank", 2, "-q", "-o", "m.npz").code == 0
    with source(["m.npz"]) as found:
        factors = read_artifact(found, Factors)
    P, Q = (np.full_like(rows, 3e38) for rows in (factors.P, factors.Q))
    with open("huge.npz", "wb") as file:
        write_npz(dataclasses.replace(factors, P=P, Q=Q), file)
    outcome = recli("score", "huge.npz", "--pairs", pairs, "-q")
    assert outcome.code == 65
    assert outcome.err == "recli: error: huge.npz: the model's scores overflow float32: factorize with a larger --reg\n"
