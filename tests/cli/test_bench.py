"""recli bench as its users run it."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from tests.conftest import ROOT, Outcome

Recli = Callable[..., Outcome]
QUICK = ("--races", "train", "--solver", "pop", "--peers", "none", "--repeats", "1", "-k", "5")
WAIT = 60


class Run(NamedTuple):
    """One bench of the sample data, looked at by many tests."""

    folder: Path
    out: str
    err: str
    report: dict[str, Any]

    def rows(self, race: str) -> dict[str, dict[str, Any]]:
        return {row["contestant"]: row for row in self.report["rows"] if row["race"] == race}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Run:
    """Once, whatever the number of processes that share the tests."""
    folder = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder /= "bench"
    folder.mkdir(exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ratings.bench.json").exists():
            _bench_sample(folder)
    out, err = ((folder.with_suffix(f".{name}")).read_text() for name in ("out", "err"))
    return Run(folder, out, err, json.loads((folder / "ratings.bench.json").read_text()))


def _bench_sample(folder: Path) -> None:
    command = [sys.executable, "-m", "recli", "bench", str(ROOT / "sample_data" / "ratings.parquet"), "--rank", "8"]
    command += ["--solver", "ials,svd", "--repeats", "2", "--threads", "1", "-k", "10", "--html", "page.html"]
    command += ["--peers", "implicit,scipy,product", "--rows", "rows.parquet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder.with_suffix(".out").write_text(done.stdout)
    folder.with_suffix(".err").write_text(done.stderr)


def test_every_race_has_a_row_a_contestant(run: Run) -> None:
    assert [(row["race"], row["contestant"], row.get("k")) for row in run.report["rows"]] == [
        ("index", "recli", None),
        ("train", "recli", None), ("train", "implicit", None),
        ("train", "recli", None),
        ("objective", "recli", None), ("objective", "implicit", None),
        ("svd", "recli", None), ("svd", "scipy", None),
        *((("topk", name, 10)) for name in ("recli", "implicit", "product")),
    ]  # fmt: skip
    for row in run.report["rows"]:
        assert row["status"] == "ok", row
        assert row["repeats"] == 2
        assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
        assert row["peak_rss_bytes"] > 10_000_000
        assert row["ratio"] > 0


def test_quality_is_what_score_says_of_the_same_model(run: Run, recli: Recli) -> None:
    """By the other commands, of the same split. Items without a training pair are in the one model and not in the
    other, whose start is then another.
    """
    from recli import io
    from recli.config import ReadConfig
    from recli.splits import split

    with io.source([str(ROOT / "sample_data" / "ratings.parquet")]) as found:
        data, _ = io.read_interactions(found, ReadConfig())
    parts = split(data.matrix, "random", 0.2, 0)
    users, items = io.to_series(data.user_ids, "user_id"), io.to_series(data.item_ids, "item_id")
    for name, part in (("train", parts.train), ("test", parts.test)):
        row = pl.Series([u for u in range(len(users)) for _ in range(part.indptr[u], part.indptr[u + 1])])
        pl.DataFrame([users.gather(row), items.gather(part.indices)]).write_parquet(f"{name}.parquet")
    assert recli("factorize", "train.parquet", "--rank", 8, "-q", "-o", "m.npz").code == 0
    shown = json.loads(recli("score", "m.npz", "--truth", "test.parquet", "-k", 10, "--json", "-q").out)
    row = next(row for row in run.report["rows"] if row["race"] == "train" and row["solver"] == "ials")
    for metric in ("recall@10", "ndcg@10"):
        assert row[metric] == pytest.approx(shown[metric], rel=0.05)


def test_the_models_are_compared_user_by_user_with_the_best(run: Run) -> None:
    trained = [row for row in run.report["rows"] if row["race"] == "train"]
    (best,) = (row for row in trained if row.get("reference"))
    own = [row for row in trained if row["contestant"] == "recli"]
    assert best["ndcg@10"] == max(row["ndcg@10"] for row in own)
    for row in trained:
        if row is not best:
            low, mean, high = (row[f"ndcg@10_difference_{part}"] for part in ("low", "mean", "high"))
            assert low <= mean <= high
            assert mean == pytest.approx(row["ndcg@10"] - best["ndcg@10"])


def test_recli_ends_at_or_below_the_peers_objective(run: Run) -> None:
    rows = run.rows("objective")
    assert rows["recli"]["objective"] <= rows["implicit"]["objective"] * (1 + 1e-6)
    assert rows["implicit"]["iterations"] == len(rows["implicit"]["convergence"]) == 15
    for row in rows.values():
        seconds, objectives = zip(*row["convergence"], strict=True)
        assert list(seconds) == sorted(seconds)
        assert list(objectives) == sorted(objectives, reverse=True)
        assert objectives[-1] == pytest.approx(row["objective"], rel=1e-5)
    starts = [row["convergence"][0][1] for row in rows.values()]
    assert starts[0] == pytest.approx(starts[1], rel=0.5)  # from the same start, after one iteration


def test_errors_of_the_svd_are_those_promised(run: Run) -> None:
    for row in run.rows("svd").values():
        assert row["value_error"] <= 1e-4
        assert row["residual"] <= 1e-3


def test_rooflines_and_rates_are_there(run: Run) -> None:
    assert 0 < run.rows("train")["recli"].get("roofline", 1) < 5
    assert 0 < run.rows("objective")["recli"]["roofline"] < 5
    assert 0 < run.rows("svd")["recli"]["roofline"] < 5
    topk = run.rows("topk")["recli"]
    assert topk["users_per_second"] == pytest.approx(1188 / topk["seconds"])
    assert run.rows("index")["recli"]["pairs"] == 24_927


def test_the_report_says_of_what(run: Run) -> None:
    report = run.report
    assert (report["kind"], report["version"]) == ("bench", 1)
    assert re.fullmatch(r"[0-9a-f]{64}", report["data"]["sha256"][0])
    assert report["data"]["train_pairs"] + report["data"]["test_pairs"] == report["data"]["pairs"] == 24_927
    assert report["machine"]["threads"] == 1
    assert str(run.folder) not in json.dumps(report)
    assert str(ROOT) not in json.dumps(report)


def test_the_page_and_the_rows_are_of_the_same_report(run: Run) -> None:
    from recli.bench.page import page

    assert (run.folder / "page.html").read_text() == page(run.report)
    frame = pl.read_parquet(run.folder / "rows.parquet")
    assert frame["seconds"].to_list() == [row["seconds"] for row in run.report["rows"]]
    assert sorted(os.listdir(run.folder)) == ["page.html", "ratings.bench.json", "rows.parquet"]


def test_people_see_a_table_a_race_and_what_was_written(run: Run) -> None:
    for race in ("Models", "Time to an objective", "Lists", "Singular value decomposition", "Reading"):
        assert race in run.out
    assert "times as fast as implicit to its objective" in run.out
    assert "wrote ratings.bench.json" in run.err
    assert "columns user=user_id" in run.err
    assert "\x1b" not in run.out + run.err


@pytest.fixture
def small() -> str:
    """Thirty users, twelve items, with times."""
    rows = [(u, i, 1 + (u * i) % 5, 100 * u + (7 * i) % 12) for u in range(30) for i in range(12) if (u + i) % 3]
    pl.DataFrame(rows, schema=["user", "item", "rating", "timestamp"], orient="row").write_csv("small.csv")
    return "small.csv"


@pytest.mark.parametrize("how", ["time", "users"])
def test_splits_by_time_and_by_user(how: str, small: str, recli: Recli) -> None:
    outcome = recli("bench", small, *QUICK, "--split", how, "--test-share", "0.25", "--json", "-q")
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report["data"]["split"] == how
    assert report["data"]["test_pairs"] > 0
    assert json.loads(Path("small.bench.json").read_text()) == report
    (row,) = report["rows"]
    assert 0 < row["recall@5"] <= 1


def test_two_tables_instead_of_one(small: str, recli: Recli) -> None:
    frame = pl.read_csv(small)
    frame[:200].write_parquet("train.parquet")
    more = pl.DataFrame({"user": [0, 999], "item": [999, 1]})
    pl.concat([frame[200:].select("user", "item"), more]).write_parquet("test.parquet")
    outcome = recli("bench", "--train", "train.parquet", "--test", "test.parquet", *QUICK, "--json", "-q")
    assert outcome.code == 0, outcome.err
    data = json.loads(outcome.out)["data"]
    assert (data["train_pairs"], data["test_pairs"], len(data["sha256"])) == (200, 42, 2)
    assert data["test_users"] == len(set(frame[200:]["user"]) | {0, 999})


def test_made_up_ratings_and_how_recli_grows(recli: Recli) -> None:
    growing = ("--scale", "500,2k", "--split", "users", "--json", "-q", "-o", "s.json")
    outcome = recli("bench", "--synthetic", "300x80x1k", *QUICK, *growing)
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report["data"]["synthetic"] == "300x80x1k"
    assert [row["race"] for row in report["rows"]] == ["train", "scale", "scale"]
    assert [row.get("size") for row in report["rows"][1:]] == ["300x80x500", "300x80x2k"]
    assert "seconds" in report["scale"]


def test_growth_needs_no_other_data(recli: Recli) -> None:
    outcome = recli("bench", "--scale", "1M,3M", "-n")
    assert outcome.code == 0, outcome.err
    assert "plan: scale 100kx10kx1M: recli\n" in outcome.err
    assert "plan: scale 100kx10kx3M: recli\n" in outcome.err
    assert "to scale.bench.json; nothing written" in outcome.err


def test_a_missing_peer_is_said_and_has_its_row(small: str, recli: Recli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "faiss" else real(name))
    outcome = recli("bench", small, "--races", "topk", "--peers", "faiss,product", "--rank", 2, "-k", 3, "--repeats", 1)
    assert outcome.code == 0, outcome.err
    status = "not installed: pip install 'recli[bench]'"
    assert f"recli bench: faiss {status}\n" in outcome.err
    assert f"faiss: {status}" in outcome.out
    rows = json.loads(Path("small.bench.json").read_text())["rows"]
    assert [(row["contestant"], row["status"]) for row in rows] == [
        ("recli", "ok"),
        ("faiss", status),
        ("product", "ok"),
    ]


def test_a_dry_run_says_who_would_run_and_writes_nothing(small: str, recli: Recli) -> None:
    outcome = recli("bench", small, "--rank", "2,4", "--peers", "implicit", "--dry-run", "-k", 3)
    assert outcome.code == 0
    assert "plan: train solver ials rank 2: recli, implicit\n" in outcome.err
    assert "plan: topk solver ials rank 4 k 3: recli, implicit\n" in outcome.err
    assert "each 3 times after one to warm up, to small.bench.json; nothing written" in outcome.err
    assert os.listdir() == ["small.csv"]
    shown = json.loads(recli("bench", small, *QUICK, "-n", "--json", "-q").out)
    assert (shown["config"]["solver"], shown["config"]["k"], shown["output"]) == ("pop", "5", "small.bench.json")


def test_gates_compare_with_an_older_report(small: str, recli: Recli) -> None:
    assert recli("bench", small, *QUICK, "-q", "-o", "old.json").code == 0
    again = ("bench", small, *QUICK, "--baseline", "old.json", "-q", "-o")
    assert recli(*again, "new.json", "--fail-if", "recall@5 < -1%", "--fail-if", "seconds > +99999%") == (0, "", "")
    old = json.loads(Path("old.json").read_text())
    old["rows"][0]["recall@5"] *= 1.5
    Path("old.json").write_text(json.dumps(old))
    outcome = recli(*again, "new.json", "--fail-if", "recall@5 < -1%", "--fail-if", "ndcg@5 < -1%")
    assert outcome.code == 3
    assert re.fullmatch(
        r"recli: error: old\.json: worse than the baseline: recall@5 < -1%: train recli pop rank 0 cpu "
        r"[01]\.\d+ before, 0\.\d+ now \(-33\.3%\)\n",
        outcome.err,
    ), outcome.err
    assert len(json.loads(Path("new.json").read_text())["gates"]["failed"]) == 1  # it shows why
    outcome = recli(
        "bench", small, *QUICK[:-1], "6", "--baseline", "old.json", "--fail-if", "recall@6 < -1%", "-o", "n.json"
    )
    assert (outcome.code, "old.json: it has no recall@6" in outcome.err) == (65, True)
    other = ("--races", "train", "--peers", "none", "-k", "5", "--baseline", "old.json", "--fail-if", "seconds > +9%")
    outcome = recli("bench", small, *other)
    assert (outcome.code, "it has no row for train recli ials rank 64" in outcome.err) == (65, True)
    assert not Path("small.bench.json").exists()
    assert recli(*again, "old.json").code == 73  # the baseline would be gone


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "nothing to measure on: give INPUT"),
        (["small.csv", "--peers", "spotlight"], 2, "--peers spotlight: expected all, none, or some of implicit"),
        (["small.csv", "--races", "train,fly"], 2, "--races train,fly: expected all, none, or some of index"),
        (["small.csv", "--races", "none"], 2, "nothing to measure: --races none, and no --scale"),
        (["small.csv", "--solver", "ials,sgd"], 2, "--solver ials,sgd: expected solvers out of ials, als, svd, pop"),
        (["small.csv", "--rank", "0"], 2, "--rank 0: expected ranks from 1 up"),
        (["small.csv", "-k", "5,x"], 2, "--k 5,x: expected lengths"),
        (["small.csv", "-k", "5,99"], 2, "-k 99: there are 12 items: give at most -k 12"),
        (["small.csv", "--split", "odd"], 2, "--split odd: expected one of random, last, time, users"),
        (["small.csv", "--test-share", "0"], 2, "--test-share 0.0: expected a value above 0 up to 0.9"),
        (["small.csv", "--repeats", "0"], 2, "--repeats 0: expected"),
        (["small.csv", "--train", "a.csv"], 2, "--train and --test go together"),
        (["small.csv", "--synthetic", "9x9x9"], 2, "INPUT and --synthetic exclude each other"),
        (["--synthetic", "300x80x1k", "--split", "last"], 2, "synthetic pairs have no times"),
        (["--synthetic", "300x80x1k", "--where", "rating > 3"], 2, "--where: not with --synthetic"),
        (["--synthetic", "300x80"], 2, "--synthetic 300x80: expected USERSxITEMSxPAIRS"),
        (["--scale", "1M"], 2, "--scale 1M: expected numbers"),
        (["small.csv", "--fail-if", "seconds > +20%"], 2, "there is no --baseline to compare with"),
        (["small.csv", "--baseline", "small.csv", "--fail-if", "seconds>20%"], 2, "expected NAME < -PERCENT% or"),
        (["small.csv", "--baseline", "nowhere.json"], 66, "nowhere.json: no such file"),
        (["small.csv", "--baseline", "small.csv"], 65, "small.csv: expected a report of recli bench"),
        (["small.csv", "--device", "gpu"], 69, "--device gpu: "),
        (["small.csv", "--device", "cpu,abacus"], 2, "--device abacus: expected one of"),
        (["small.csv", "--html", "no/where.html"], 73, "no/where.html: the folder no does not exist"),
        (["small.csv", "--rows", "small.csv"], 73, "small.csv: the output is also an input"),
        (["small.csv", "-o", "-", "--json"], 2, "cannot share stdout"),
        (["small.csv", "-o", "a.json", "--html", "-", "--rows", "-"], 2, "only one of -o, --html, --rows and --json"),
        (["small.csv", "--memory-limit", "1M"], 75, "give --memory-limit"),
        (["nowhere.csv"], 66, "nowhere.csv: no such file"),
    ],
)
def test_what_cannot_be_is_one_line_before_the_work(
    arguments: list[str], code: int, message: str, small: str, recli: Recli
) -> None:
    extra = [] if "--races" in arguments or "--k" in arguments or "-k" in arguments else ["-k", "5"]
    outcome = recli("bench", *arguments, *extra, "-q")
    assert outcome.code == code, outcome.err
    assert message in outcome.err
    assert outcome.err.startswith("recli: error: ")
    assert outcome.err.count("\n") == 1
    assert os.listdir() == ["small.csv"]


def test_without_matplotlib_a_page_is_refused_at_once(
    small: str, recli: Recli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = recli("bench", small, "--html", "r.html")
    assert outcome == (2, "", "recli: error: --html needs matplotlib for its charts: pip install 'recli[bench]'\n")


def test_a_signal_ends_it_and_its_contestants(small: str) -> None:
    command = [
        sys.executable,
        "-m",
        "recli",
        "bench",
        "--synthetic",
        "3kx900x100k",
        "--peers",
        "none",
        "--races",
        "train",
    ]
    run = subprocess.Popen([*command, "--iterations", "100000", "-k", "5", "-o", "b.json"], stderr=subprocess.PIPE)
    try:
        assert run.stderr
        assert any(b"GFLOP/s" in line for line in iter(run.stderr.readline, b""))  # the last before the races
        deadline = time.monotonic() + WAIT
        while not (children := _children(run.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        run.send_signal(signal.SIGTERM)
        assert run.wait(WAIT) == 143
        assert b"Traceback" not in run.stderr.read()
        assert children
        while any(_is_alive(child) for child in children) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(_is_alive(child) for child in children)
        assert os.listdir() == ["small.csv"]
    finally:
        run.kill()
        run.communicate()


def _is_alive(pid: int) -> bool:
    """Not gone, and not waiting for somebody to ask how it ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.glob("*/children") for child in task.read_text().split()]


def test_settings_of_other_commands_are_a_list_of_one(small: str, recli: Recli) -> None:
    Path("recli.toml").write_text("rank = 3\n[bench]\nk = '5,4'\npeers = 'none'\nfail-if = []\n")
    shown = json.loads(recli("bench", small, "-n", "--json", "-q").out)
    assert (shown["config"]["rank"], shown["config"]["k"]) == ("3", "5,4")
    Path("recli.toml").write_text("[bench]\nrank = 2.5\n")
    assert "rank: expected text in quotes, with commas, or a whole number, found 2.5" in recli("bench", small).err


@pytest.mark.parametrize(
    ("peer", "races", "solver"),
    [
        ("lenskit", "index,train", "als"),
        ("sklearn", "svd", "svd"),
        ("faiss", "topk", "ials"),
        ("pandas", "index", "ials"),
    ],
)
def test_peers_that_are_installed_finish_their_races(
    peer: str, races: str, solver: str, small: str, recli: Recli
) -> None:
    pytest.importorskip(peer)
    about = ("--peers", peer, "--races", races, "--solver", solver, "--split", "users")
    assert recli("bench", small, *about, "--rank", 3, "-k", 3, "--repeats", 1, "-q") == (0, "", "")
    rows = [row for row in json.loads(Path("small.bench.json").read_text())["rows"] if row["contestant"] == peer]
    assert [(row["race"], row["status"]) for row in rows] == [(race, "ok") for race in races.split(",")], rows
