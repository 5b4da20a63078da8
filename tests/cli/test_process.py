"""The program as the shell, cron and an operator see it: real pipes, signals, terminals and killed runs."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.models import write_random

Process = Callable[..., "subprocess.CompletedProcess[bytes]"]
SLOW = ["factorize", "large.parquet", "--rank", "128", "--iterations", "100000", "--tol", "0"]
WAIT = 60  # seconds, at most, for what should take one or two


@pytest.fixture
def large() -> None:
    """A ratings table that keeps a solver busy for minutes, and a model whose lists take a while to write."""
    rng = np.random.default_rng(0)
    pl.DataFrame({"user": rng.integers(0, 30_000, 300_000), "item": rng.integers(0, 900, 300_000)}).write_parquet(
        "large.parquet"
    )
    write_random("large.npz", 60_000, 900)
    for name in ("old.npz", "old.csv"):
        Path(name).write_text("of last night")


def start(*arguments: str, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "recli", *arguments], stderr=subprocess.PIPE, **more)


@contextlib.contextmanager
def ended(run: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Whatever a test finds, its process does not outlive it."""
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


def wait_for(condition: Callable[[], object], run: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert run.poll() is None, "it ended before it came to that"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def hidden() -> list[str]:
    """Temporary files and locks."""
    return [name for name in os.listdir() if name.startswith(".")]


def is_writing() -> bool:
    return any(Path(name).stat().st_size > 0 for name in hidden() if name.endswith(".tmp"))


def shell(script: str, **more: Any) -> subprocess.CompletedProcess[str]:
    script = f'recli() {{ {sys.executable} -m recli "$@"; }}\n{script}'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=WAIT, check=False, **more)


def on_terminal(stream: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Runs with `stream` (stdout or stderr) on a terminal: exit code, what the terminal got, what the other got."""
    ours, theirs = pty.openpty()
    other = "stderr" if stream == "stdout" else "stdout"
    streams: dict[str, Any] = {stream: theirs, other: subprocess.PIPE}
    environment = {**os.environ, "TERM": "xterm-256color", **environment}
    run = subprocess.Popen([sys.executable, "-m", "recli", *arguments], env=environment, **streams)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux' way to say that the last writer has gone
        while part := os.read(ours, 1 << 16):
            shown += part
    os.close(ours)
    rest = next(filter(None, run.communicate(timeout=WAIT)), b"")
    return run.returncode, shown.decode().replace("\r\n", "\n"), rest.decode()


def test_a_pipeline_gives_what_files_give(sample: Path, recli: Callable[..., Any]) -> None:
    done = shell(
        f"set -o pipefail; cat {sample}/ratings.csv | recli factorize - --rank 8 -o - "
        "| recli score - -k 5 -o - > piped.parquet"
    )
    assert done.returncode == 0, done.stderr
    assert recli("factorize", sample / "ratings.csv", "--rank", 8, "-o", "m.npz").code == 0
    assert recli("score", "m.npz", "-k", 5, "-o", "r.parquet").code == 0
    assert Path("piped.parquet").read_bytes() == Path("r.parquet").read_bytes()
    assert len(pl.read_parquet("r.parquet")) == 1188 * 5


def test_a_pipeline_fails_visibly_when_its_first_stage_does() -> None:
    done = shell("set -o pipefail; recli factorize nowhere.csv -o - | recli score - -k 5 -o - | cat")
    assert done.returncode == 65
    assert done.stdout == ""
    assert sorted(done.stderr.splitlines()) == [
        "recli: error: nowhere.csv: no such file",
        "recli: error: stdin: expected a table, found nothing",
    ]


@pytest.mark.usefixtures("large")
def test_a_reader_that_has_seen_enough_ends_it_without_a_trace() -> None:
    done = shell("recli score large.npz -k 50 --keep-seen -q -o - --output-format csv | head -1; echo ${PIPESTATUS[0]}")
    assert done.stdout == "user,item,rank,score,reason\n141\n"
    assert done.stderr == ""


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["factorize", "score", "stdin"])
def test_a_signal_ends_it_at_once_and_leaves_only_what_was_there(command: str, number: int, code: int) -> None:
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    if command == "factorize":
        run = start(*SLOW, "-o", "old.npz")
    elif command == "score":
        run = start("score", "large.npz", "-k", "500", "--keep-seen", "-o", "old.csv")
    else:
        run = start("factorize", "-", "-o", "old.npz", stdin=subprocess.PIPE)
    with ended(run):
        if command == "factorize":
            assert run.stderr
            lines = iter(run.stderr.readline, b"")
            assert any(b"device" in line for line in lines)  # the last line before the solver
            time.sleep(1)
        else:
            wait_for(is_writing if command == "score" else hidden, run)
        run.send_signal(number)
        assert run.wait(WAIT) == code
        assert run.stderr
        assert b"Traceback" not in run.stderr.read()
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


SIGNALLED_IN_AN_IMPORT = """
import os, sys
import recli.cli.main as cli

def app(*_, **__):
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
    except BaseException as error:
        raise RuntimeError("__set_name__ failed") from error

cli.app = app
sys.exit(cli.main([]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_an_import_passed_on_as_another_error_is_still_a_signal(number: int) -> None:
    code = [sys.executable, "-c", SIGNALLED_IN_AN_IMPORT, str(int(number))]
    done = subprocess.run(code, capture_output=True, timeout=WAIT, check=False)
    assert (done.returncode, done.stderr) == (128 + number, b"")


def test_a_background_job_of_a_script_goes_on_ignoring_ctrl_c(ratings: Path) -> None:
    recli = f"{sys.executable} -m recli factorize - -q -o m.npz"
    job = subprocess.Popen(["bash", "-c", f"trap '' INT; exec {recli}"], stdin=subprocess.PIPE)
    with ended(job) as run:
        wait_for(hidden, run)
        run.send_signal(signal.SIGINT)
        run.communicate(ratings.read_bytes(), timeout=WAIT)
        assert run.returncode == 0


@pytest.mark.usefixtures("large")
def test_after_a_kill_the_old_file_is_whole_and_the_next_run_works() -> None:
    with ended(start("score", "large.npz", "-k", "500", "--keep-seen", "-o", "old.csv")) as run:
        wait_for(is_writing, run)
        run.kill()
        assert run.wait(WAIT) == -signal.SIGKILL
    assert Path("old.csv").read_text() == "of last night"
    Path("users.txt").write_text("1\n2\n")
    again = shell("recli score large.npz -k 500 --keep-seen --users users.txt -o old.csv -q")
    assert (again.returncode, again.stderr) == (0, "")
    assert len(pl.read_csv("old.csv")) == 1000
    assert hidden() == []


def test_of_two_runs_on_one_output_one_is_told_of_the_other(ratings: Path, process: Process) -> None:
    with ended(start("factorize", "-", "-q", "-o", "m.npz", stdin=subprocess.PIPE)) as first:
        wait_for(hidden, first)
        second = process("factorize", ratings, "-q", "-o", "m.npz")
        assert second.returncode == 75
        assert f"m.npz: another recli run (process {first.pid}) is writing it" in second.stderr.decode()
        first.communicate(ratings.read_bytes(), timeout=WAIT)
        assert first.returncode == 0
    assert process("factorize", ratings, "-q", "-o", "other.npz").returncode == 0
    assert Path("m.npz").read_bytes() == Path("other.npz").read_bytes()
    assert hidden() == []


@pytest.mark.parametrize("command", ["factorize", "score"])
def test_a_file_that_cannot_grow_is_an_error_and_the_old_one_stays(
    command: str, sample: Path, model: Path, process: Process
) -> None:
    """RLIMIT_FSIZE stands in for a full disk: what is written fails half-way, as there."""
    Path("old").write_text("of last night")
    given = [sample / "ratings.csv"] if command == "factorize" else [model, "-k", 2, "--output-format", "parquet"]
    before = sorted(os.listdir())
    done = process(
        command, *given, "-q", "-o", "old", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    )
    assert done.returncode == 74
    assert re.fullmatch(rb"recli: error: old: writing failed: .*; the old file is intact\n", done.stderr)
    assert Path("old").read_text() == "of last night"
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("command", ["score model.npz -k 2 -o -", "score model.npz -k 2 --json", "score --help"])
@pytest.mark.usefixtures("model")
def test_a_full_disk_behind_stdout_is_an_io_error(command: str) -> None:
    done = shell(f"recli {command} {'' if 'help' in command else '-q'} > /dev/full")
    assert done.returncode == 74
    assert re.fullmatch(r"recli: error: .*No space left on device\n", done.stderr)


@pytest.mark.usefixtures("model")
def test_closed_streams_do_not_mix_the_log_into_the_results() -> None:
    whole = shell("recli score model.npz -k 2 -o - --output-format csv")
    assert whole.returncode == 0
    assert whole.stdout.startswith("user,item,rank,score,reason\n")
    assert shell("recli score model.npz -k 2 -o - --output-format csv 2>&-").stdout == whole.stdout
    assert shell("recli score model.npz -k 2 -q -o lists.csv >&- 2>&-").returncode == 0
    assert Path("lists.csv").read_text() == whole.stdout
    assert shell("recli score model.npz -k 2 -o - >&-").returncode == 73


@pytest.mark.usefixtures("model")
def test_binary_is_not_for_terminals_and_text_is() -> None:
    code, shown, log = on_terminal("stdout", "score", "model.npz", "-k", "2", "-o", "-", "-q")
    assert (code, shown) == (73, "")
    assert log == "recli: error: stdout is a terminal, and this output is binary: give -o FILE, or a pipe\n"
    assert on_terminal("stdout", "factorize", "ratings.csv", "-o", "-", "-q")[0] == 73
    code, shown, log = on_terminal("stdout", "score", "model.npz", "-k", "2", "-o", "-", "--output-format", "csv", "-q")
    assert (code, log) == (0, "")
    assert shown.startswith("user,item,rank,score,reason\n")


@pytest.mark.usefixtures("model")
def test_the_bar_is_for_terminals_and_results_go_to_stdout_beside_it() -> None:
    """Escape codes draw it: ESC[...m is colour, others move the cursor."""
    Path("truth.csv").write_text("user,item\nu0,i0\nu3,i3\n")
    arguments = ["score", "model.npz", "-k", "2", "--truth", "truth.csv"]
    code, shown, table = on_terminal("stderr", *arguments)
    assert code == 0
    assert "\x1b[" in shown
    assert "2/2" in shown
    assert table.startswith("2 users with held-out items\n  recall@2")
    assert "\x1b" not in table
    assert on_terminal("stderr", *arguments, "-q") == (0, "", table)
    for dull in (on_terminal("stderr", *arguments, TERM="dumb")[1], shell(f"recli {' '.join(arguments)}").stderr):
        assert "\x1b" not in dull
        assert dull.endswith("recli score: users 2/2\n")
    colourless = on_terminal("stderr", *arguments, NO_COLOR="1")[1]
    assert "2/2" in colourless
    assert re.search(r"\x1b\[[0-9;]*m", shown)
    assert not re.search(r"\x1b\[[0-9;]*m", colourless)


def test_the_same_job_is_the_same_bytes_in_any_process_on_any_number_of_threads(
    sample: Path, recli: Callable[..., Any]
) -> None:
    done = shell(
        f"""set -e
        run() {{
            recli factorize {sample}/ratings.csv --rank 16 -o m$1.npz --threads $2
            recli score m$1.npz -k 5 -o r$1.parquet --threads $2
        }}
        run a 1
        PYTHONOPTIMIZE=1 PYTHONHASHSEED=7 LC_ALL=C run b 2
        """
    )
    assert done.returncode == 0, done.stderr
    recli("factorize", sample / "ratings.csv", "--rank", 16, "-o", "mc.npz", "--threads", 2, "-v")
    recli("score", "mc.npz", "-k", 5, "-o", "rc.parquet", "--threads", 1)
    for name in ("m{}.npz", "r{}.parquet"):
        a, b, c = (Path(name.format(run)).read_bytes() for run in "abc")
        assert a == b == c
