"""recli factorize: compressed models and any matrix, from flags to files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from tests.conftest import Outcome

Recli = Callable[..., Outcome]


@pytest.fixture
def trained(sample: Path, recli: Recli) -> Path:
    assert recli("factorize", sample / "ratings.parquet", "--rank", 32, "-q", "-o", "m.npz").code == 0
    return Path("m.npz")


@pytest.mark.parametrize(
    "flags",
    [
        ("--store", "f16"),
        ("--store", "int8"),
        ("--store", "pq"),
        ("--store", "pq", "--keep-rows"),
        ("--hash-users", "800", "--hash-items", "400"),
        ("--hash-items", "400", "--store", "int8"),
    ],
    ids=" ".join,
)
def test_what_it_costs_is_measured_on_validation_and_score_reads_it(
    flags: tuple[str, ...], sample: Path, trained: Path, recli: Recli
) -> None:
    outcome = recli(
        "factorize", "--import", trained, *flags, "--valid", sample / "test.parquet", "-o", "s.npz", "--json"
    )
    assert outcome.code == 0, outcome.err
    numbers = json.loads(outcome.out)
    assert re.search(
        r"factors of 228 kB in [0-9.]+ kB \([0-9.]+%\), relative error .* of users, .* of items\n", outcome.err
    )
    assert re.search(r"validation: ndcg@10 0\.\d{4} before, 0\.\d{4} after \([+-][0-9.]+%\)\n", outcome.err)
    if "--keep-rows" not in flags and "--hash-users" not in flags:
        assert numbers["factor_bytes_after"] < 0.8 * numbers["factor_bytes"]
    quality = json.loads(recli("score", "s.npz", "--truth", sample / "test.parquet", "-k", 10, "--json").out)
    before = json.loads(recli("score", trained, "--truth", sample / "test.parquet", "-k", 10, "--json").out)
    assert quality["ndcg@10"] > 0.1 * before["ndcg@10"]
    assert recli("score", "s.npz", "--similar", "all", "-k", 3, "-o", "near.csv", "-q").code == 0
    assert recli("score", "s.npz", "--pairs", sample / "test.parquet", "-o", "pairs.csv", "-q").code == 0
    assert recli("score", "s.npz", "--explain", 2, "-k", 3, "-o", "why.parquet", "-q").code == 0
    assert (
        recli("score", "s.npz", "-k", 3, "--max-per", "category=1", "--items", sample / "items.parquet", "-q").code == 0
    )


def test_a_model_is_compressed_as_it_is_trained(sample: Path, trained: Path, recli: Recli) -> None:
    command = ("factorize", sample / "ratings.parquet", "--rank", 32, "--store", "int8", "-q", "-o", "s.npz")
    assert recli(*command) == (0, "", "")
    assert recli("factorize", "--import", trained, "--store", "int8", "-q", "-o", "t.npz").code == 0
    with np.load("s.npz") as one, np.load("t.npz") as other:
        assert {name for name in one if name[0] in "PQ"} == {
            "P_int8_codes",
            "P_int8_scales",
            "Q_int8_codes",
            "Q_int8_scales",
        }
        assert all((one[name] == other[name]).all() for name in one if name[0] in "PQ")


def test_a_compressed_model_is_a_start_and_an_index_serves_it(sample: Path, recli: Recli) -> None:
    command = ("factorize", sample / "ratings.parquet", "--rank", 8, "-q")
    assert recli(*command, "--store", "int8", "-o", "s.npz").code == 0
    assert recli(*command, "--init", "s.npz", "--iterations", 1, "-o", "n.npz") == (0, "", "")
    for name in ("a.csv", "b.csv"):
        assert recli("score", "s.npz", "--index", "s.index.npz", "-o", name, "-q") == (0, "", "")
    assert recli("score", "s.npz", "-o", "c.csv", "-q").code == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes() == Path("c.csv").read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--store", "int4"), "--store int4: expected one of f32, f16, int8, pq"),
        (("--keep-rows",), "--keep-rows: for --store int8 and pq: f32 needs no rescoring"),
        (("--keep-rows", "--store", "f16"), "--keep-rows: for --store int8 and pq: f16 needs no rescoring"),
        (("--hash-users", "0"), "--hash-users 0: expected a value from 1 to 2147483647"),
        (("--solver", "pop", "--store", "int8"), "the model has rank 0 (pop): it has no factors to compress"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_wrong_use_is_one_line(flags: tuple[str, ...], message: str, ratings: Path, recli: Recli) -> None:
    outcome = recli("factorize", ratings, *flags, "-q", "-o", "out.npz")
    assert (outcome.code, outcome.err) == (2, f"recli: error: {message}\n")
    assert not Path("out.npz").exists()


@pytest.fixture
def table() -> Path:
    rng = np.random.default_rng(0)
    low = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 80))
    np.save("table.npy", (low + 0.01 * rng.standard_normal((300, 80))).astype(np.float32))
    return Path("table.npy")


def test_a_dense_matrix_is_compressed_to_a_share_of_its_squares(table: Path, recli: Recli) -> None:
    outcome = recli("factorize", table, "--solver", "svd", "--energy", 0.999, "--json")
    numbers = json.loads(outcome.out)
    assert (numbers["rank"], numbers["output"]) == (6, "table.factors.npz")
    assert numbers["parameters_after"] == 6 * 380
    assert re.search(r"rank 6: 2,280 parameters of 24,000, 9\.12 kB of 96 kB, relative error 0\.00\d+\n", outcome.err)
    with np.load("table.factors.npz") as model:
        error = np.linalg.norm(np.load(table) - model["P"] @ model["Q"].T) / np.linalg.norm(np.load(table))
    assert numbers["relative_error"] == pytest.approx(error, rel=1e-3)
    assert recli("score", "table.factors.npz", "--keep-seen", "-k", 3, "-o", "top.csv", "-q") == (0, "", "")
    assert pl.read_csv("top.csv").columns == ["row", "column", "rank", "score", "reason"]


def test_a_sparse_matrix_is_compressed_at_a_rank_and_stored_smaller(recli: Recli) -> None:
    sp.save_npz("m.npz", sp.random(200, 90, 0.1, random_state=np.random.default_rng(0), format="csc"))
    command = ("factorize", "m.npz", "--solver", "svd", "--rank", 10, "--store", "f16", "-o", "out.npz", "--json")
    outcome = recli(*command)
    assert json.loads(outcome.out)["rank"] == 10
    assert "f16: factors of 11.6 kB in 5.8 kB (50.0%)" in outcome.err


def test_a_dry_run_of_a_matrix_writes_nothing(table: Path, recli: Recli) -> None:
    outcome = recli("factorize", table, "--solver", "svd", "-n")
    assert outcome.err.endswith("plan: svd of rank 64 at most to table.factors.npz; nothing written\n")
    assert [path.name for path in Path().iterdir()] == ["table.npy"]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ((), 2, "table.npy: a matrix, not ratings: give --solver svd"),
        (("--solver", "svd", "--valid", "10%"), 2, "--valid: table.npy is a matrix, not a table of ratings"),
        (("--solver", "svd", "--where", "a > 1"), 2, "--where: table.npy is a matrix, not a table of ratings"),
        (("--solver", "svd", "--energy", "1.5"), 2, "--energy 1.5: expected a value above 0 up to 1"),
    ],
)
def test_wrong_use_of_a_matrix_is_one_line(
    flags: tuple[str, ...], code: int, message: str, table: Path, recli: Recli
) -> None:
    outcome = recli("factorize", table, *flags, "-q")
    assert (outcome.code, outcome.err) == (code, f"recli: error: {message}\n")
