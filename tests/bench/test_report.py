"""The report as a document, as flat rows and in words."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from recli import __version__, io
from recli.bench.columns import failures, races, table, who
from recli.bench.report import data_line, document, exponents_line, flat_rows, headline, machine_line
from recli.config import BenchConfig
from tests.bench.reports import MACHINE, report, row


def test_the_document_says_of_what_when_and_where() -> None:
    found = report()
    assert json.loads(json.dumps(found)) == found
    assert (found["kind"], found["version"], found["recli_version"]) == ("bench", 1, __version__)
    assert found["machine"] == MACHINE._asdict()
    assert found["settings"] == BenchConfig().semantic()
    assert found["environment"]["recli"] == __version__
    assert found["created"].endswith("+00:00")


def test_rows_go_to_a_table_of_plain_columns() -> None:
    found = report()
    with open("rows.parquet", "wb+") as file:
        io.write_rows(flat_rows(found), file)
    frame = pl.read_parquet("rows.parquet")
    assert len(frame) == len(found["rows"])
    assert all(dtype in (pl.String, pl.Float64, pl.Int64, pl.Boolean) for dtype in frame.dtypes)
    assert frame["race"].to_list() == [each["race"] for each in found["rows"]]
    assert frame["ndcg@20"].to_list() == [each.get("ndcg@20") for each in found["rows"]]
    assert frame["cpu"].unique().to_list() == [MACHINE.cpu]
    assert frame["data_sha256"].unique().to_list() == ["ab" * 32]
    assert "convergence" not in frame.columns


def test_the_headline_names_the_best_of_the_others_in_each_race() -> None:
    found = report()
    found["rows"] += [row("topk", "implicit", 9.0, k=20), row("topk", "product", 0.5, k=20)]  # no library
    assert headline(found) == (
        "On 25,000 pairs of 1,200 users and 600 items (recli's best ndcg@20: 0.1500), recli is 5 times as fast as "
        "implicit to its objective, 3 times as fast as faiss with all users' lists, 3 times as fast as scipy with an "
        "SVD to the same error, 5 times as fast as pandas to read and index the table."
    )


def test_a_headline_never_hides_that_another_is_quicker() -> None:
    found = report()
    found["rows"] = [row("topk", "recli", 1.0, k=20), row("topk", "faiss", 0.25, k=20)]
    assert headline(found).endswith("recli is 0.25 times as fast as faiss with all users' lists.")


def test_without_peers_or_data_there_is_still_a_headline() -> None:
    found = report()
    found["rows"] = [row("topk", "recli", 1.0, k=20)]
    assert headline(found).endswith("recli was measured.")
    alone = document(BenchConfig(), {"source": "scale", "seed": 0}, MACHINE, [], {})
    assert headline(alone) == "How recli grows with the interactions."
    assert data_line(alone) == "synthetic pairs of the sizes below"


def test_lines_about_data_machine_and_growth() -> None:
    found = report()
    assert "20,000 pairs to learn from, 5,000 of 1,100 users to judge by (split random, 20% held out)" in data_line(
        found
    )
    assert machine_line(found) == "A <fast> CPU & more, 2 of 4 cores: 150 GFLOP/s (float32 product), 20.0 GB/s (copy)"
    assert exponents_line(found).startswith("time grows with the interactions to the power 1.00; 1.00 between")


def test_tables_have_the_columns_that_rows_have() -> None:
    by_race = races(report())
    assert list(by_race) == ["train", "objective", "topk", "svd", "index", "scale"]
    headings, cells = table(by_race["train"])
    assert headings[:6] == ["", "rank", "time", "noise", "time / recli's", "recall@20"]
    assert headings[8] == "ndcg@20 above the best (95%)"
    assert [line[0] for line in cells] == ["recli ials", "implicit ials", "recli pop"]
    assert [line[8] for line in cells] == ["the best", *["-0.0100 (-0.0200 to +0.0010)"] * 2]
    assert cells[2][1] == ""  # pop has no rank
    assert failures(by_race["train"]) == ["lenskit ials at rank 64: failed: <script>alert(1)</script>"]
    assert table(by_race["index"])[0] == ["", "time", "noise", "time / recli's", "pairs / s", "peak memory"]


def test_rows_on_a_device_say_so() -> None:
    assert who(row("train", "recli", 1.0, solver="ials", device="gpu")) == "recli ials gpu"
    assert who(row("topk", "recli", 1.0, solver="ials")) == "recli"


def test_rows_of_no_bench_are_a_table_too(tmp_path: Path) -> None:
    with open(tmp_path / "r.parquet", "wb+") as file:
        io.write_rows([{"a": 1}, {"b": 2.5, "a": None}, {"c": "x"}], file)
    assert pl.read_parquet(tmp_path / "r.parquet").rows() == [(1, None, None), (None, 2.5, None), (None, None, "x")]
