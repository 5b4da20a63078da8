"""Contestants in processes of their own: in turns, apart from each other, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recli.bench import contest
from recli.bench.contest import Entry, Heat, missing
from recli.bench.contestants import CONTESTANTS, PEERS, RACES
from recli.bench.problem import load, save

ROOT = Path(__file__).parents[2]
WAIT = 60


@pytest.fixture(autouse=True)
def _entrants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "PACKAGE", "tests.bench.entrants")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    save(Path("data"), {"x": np.arange(4.0)})


def steady(name: str, seconds: float = 0.0) -> Entry:
    return Entry("steady", {"race": "train"}, {"name": name, "seconds": seconds, "log": os.path.abspath("log")})


def heat(*entries: Entry, limit: int | None = None, on_run: Callable[[str], None] = lambda what: None) -> Heat:
    return Heat("train", entries, Path.cwd(), 2, limit, on_run)


def test_contestants_take_turns_and_their_rows_say_how_it_went() -> None:
    entries, said = [steady("A", 0.01), steady("B", 0.02)], []
    with heat(*entries, on_run=said.append) as running:
        for entry in entries:
            assert running.run(entry) is not None
        running.rounds(3, lambda entry: {"more": 5})
        assert load(running.out(entries[1]), "y")["y"].tolist() == [5, 6, 7, 8]
    assert Path("log").read_text().split() == ["A", "B"] * 4
    assert said == ["train steady"] * 8
    for entry, least in zip(entries, (0.01, 0.02), strict=True):
        row = entry.row()
        assert (row["contestant"], row["status"], row["repeats"]) == ("steady", "ok", 3)
        assert least <= row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
        assert row["noise"] == pytest.approx((row["seconds_max"] - row["seconds_min"]) / row["seconds"])
        assert 0 < row["base_rss_bytes"] <= row["peak_rss_bytes"] * 1.5
        assert [run["sum"] for run in entry.runs] == [6] * 3
        assert entry.runs[0]["threads"] == ["2", 2]
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["data", "log"]


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("import", "failed: needs the package nowhere_to_be_found"),
        ("prepare", "failed: ValueError: cannot prepare"),
        ("raise", "failed: RuntimeError: in the work"),
        ("kill", "failed: ended by SIGKILL (out of memory?)"),
        ("exit", "failed: ended with exit code 7: the reason"),
        ("memory", "failed: out of memory"),
    ],
)
def test_what_happens_to_one_is_said_in_its_row_and_the_others_go_on(how: str, status: str) -> None:
    faulty, other = Entry("faulty", {"race": "train"}, {"how": how}), steady("A")
    with heat(faulty, other, limit=1 << 30 if how == "memory" else None) as running:
        assert running.run(faulty) is None
        running.rounds(2)
    assert faulty.row() == {"race": "train", "contestant": "faulty", "status": status}
    assert other.row()["repeats"] == 2


def test_nothing_of_the_working_folder_is_imported() -> None:
    for name in ("json.py", "recli.py"):
        Path(name).write_text("raise SystemExit('taken from the working folder')\n")
    entry = steady("A")
    with heat(entry) as running:
        running.rounds(1)
    assert entry.row()["status"] == "ok"


def test_one_that_is_not_there_is_not_started() -> None:
    entry = Entry("steady", {"race": "train"}, status="not installed: pip install 'recli[bench]'")
    with heat(entry) as running:
        running.rounds(2)
    assert entry.row() == {
        "race": "train",
        "contestant": "steady",
        "status": "not installed: pip install 'recli[bench]'",
    }


def alive(marker: str) -> list[int]:
    """Worker processes below this one's tree, found by a variable of their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                marker.encode() in (process / "environ").read_bytes()
                and b"recli.bench.worker" in (process / "cmdline").read_bytes()
            ):
                found.append(int(process.name))
    return found


PARENT = """
import sys
from pathlib import Path
from recli.bench import contest
from recli.bench.contest import Entry, Heat
from recli.cli.signals import Signals
contest.PACKAGE = "tests.bench.entrants"
with Signals() as signals:
    entry = Entry("faulty", {}, {"how": "sleep"})
    with Heat("train", [entry], Path.cwd(), 1, None, lambda what: print("running", flush=True)) as heat:
        heat.run(entry)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="no /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_the_bench(number: int) -> None:
    marker = f"RECLI_TEST_MARKER={os.getpid()}-{number}"
    environment = {**os.environ, **dict([marker.split("=")])}
    parent: subprocess.Popen[Any] = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    try:
        assert parent.stdout
        assert parent.stdout.readline() == b"running\n"
        assert alive(marker)
        parent.send_signal(number)
        parent.wait(WAIT)
        deadline = time.monotonic() + WAIT
        while alive(marker) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(marker)
    finally:
        parent.kill()
        parent.communicate()


def test_a_missing_package_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert missing("faiss") == "not installed: pip install 'recli[bench]'"
    assert missing("lenskit") == "not installed: pip install 'recli[lenskit]'"
    monkeypatch.undo()
    assert missing("product") is None


def test_every_contestant_has_a_file_and_known_races() -> None:
    folder = ROOT / "recli" / "bench" / "contestants"
    assert {path.stem for path in folder.glob("[a-z]*.py")} == set(CONTESTANTS) == {"recli", *PEERS}
    for name, contestant in CONTESTANTS.items():
        text = (folder / f"{name}.py").read_text()
        assert set(contestant.races) == {race for race in RACES if f"def {race}(problem: Problem)" in text}
