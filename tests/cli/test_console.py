"""What people and log collectors see."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from recli.cli.console import Console, print_json, print_table, size_text
from recli.errors import UsageError


@pytest.mark.parametrize(
    ("total", "seen"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (10, list(range(1, 11))),
        (25, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 25]),
        (1000, list(range(100, 1001, 100))),
    ],
)
def test_progress_without_a_terminal_is_a_line_for_about_each_tenth(
    total: int, seen: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    with Console("job").progress("step", total) as advance:
        for done in range(1, total + 1):
            advance(done, "")
    assert capfd.readouterr().err.splitlines() == [f"recli job: step {done}/{total}" for done in seen]


def test_progress_in_large_steps_ends_with_the_last(capfd: pytest.CaptureFixture[str]) -> None:
    with Console("job").progress("users", 1000) as advance:
        for done in (370, 740, 1000):
            advance(done, f"at {done}")
    assert capfd.readouterr().err.splitlines() == [f"recli job: users {n}/1000, at {n}" for n in (370, 740, 1000)]


def test_a_quiet_console_collects_numbers_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    console = Console("job", quiet=True)
    console.note("read", fields={"rows": 3})
    console.note("more", detail=True, fields={"pairs": 2})
    with console.progress("step", 1) as advance:
        advance(1, "")
    assert capfd.readouterr() == ("", "")
    numbers = console.finish()
    assert (numbers["command"], numbers["rows"], numbers["pairs"]) == ("job", 3, 2)
    assert 1e6 < numbers["peak_rss_bytes"] < 1e12


def test_details_are_for_verbose_consoles(capfd: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        Console("job", verbose=verbose).note("threads", detail=True)
    assert capfd.readouterr().err == "recli job: threads\n"


def test_json_lines_survive_any_text(capfd: pytest.CaptureFixture[str]) -> None:
    """Also a file name that is not UTF-8, as Python hands it over."""
    name = os.fsdecode(b'caf\xe9 "quoted"\n\xff.csv')
    Console("job", log_format="json").note(f"read {name}", fields={"file": name})
    print_json({"output": name})
    out, err = capfd.readouterr()
    assert json.loads(err)["file"] == json.loads(out)["output"] == name
    assert (out.count("\n"), err.count("\n")) == (1, 1)


def test_an_unknown_log_format_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--log-format yaml: expected text or json"):
        Console("job", log_format="yaml")


def test_a_table_lines_up_whatever_the_width_of_its_title(capfd: pytest.CaptureFixture[str]) -> None:
    print_table("a title that is much longer than any row", {"recall@20": "0.3955", "novelty@20": "13.3061"})
    assert capfd.readouterr().out == (
        "a title that is much longer than any row\n"
        "  recall@20    0.3955\n"
        "  novelty@20  13.3061\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (350_000_000, "350 MB"), (2.5e9, "2.5 GB"), (4e15, "4e+03 TB")],
)
def test_sizes_are_for_people(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize("log", ["/dev/full", "closed pipe"])
def test_a_log_that_cannot_be_written_does_not_stop_the_work(log: str) -> None:
    code = """
import sys
from recli.cli.console import Console
console = Console("job")
for step in range(3):
    console.note("still here")
print("done")
"""
    if log == "/dev/full":
        stderr = os.open(log, os.O_WRONLY)
    else:
        reader, stderr = os.pipe()
        os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=stderr, check=False)
    os.close(stderr)
    assert (done.returncode, done.stdout) == (0, b"done\n")
