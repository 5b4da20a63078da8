"""Contestants against each other: each in a process of its own, so that its memory is its own, taking turns, so that a
machine that slows down slows all.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from recli.bench.contestants import CONTESTANTS

# Each library reads its own; all get the same number.
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS"),
    *("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "LK_NUM_THREADS", "LK_NUM_BACKEND_THREADS"),
)
PACKAGE = "recli.bench.contestants"  # whose modules are contestants
POLL = 0.2  # seconds: the longest that a signal waits


@dataclass(eq=False)
class Entry:
    """One contestant in one heat. about: the columns that tell its row from others. settings: see the race. runs: what
    each timed run answered; status: ok, or why there are none.
    """

    contestant: str
    about: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    base_rss_bytes: int = 0
    status: str = "ok"

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"

    @property
    def has_roofline(self) -> bool:
        """Does it run where the machine's ceilings were measured?"""
        return self.is_ok and self.about.get("device", "cpu") == "cpu"

    def row(self) -> dict[str, Any]:
        """What its runs come to: median, least and most seconds, and where there are several runs noise =
        (most - least) / median."""
        row: dict[str, Any] = {**self.about, "contestant": self.contestant, "status": self.status}
        if self.is_ok and self.runs:
            seconds = [run["seconds"] for run in self.runs]
            row["seconds"] = statistics.median(seconds)
            row["seconds_min"], row["seconds_max"] = min(seconds), max(seconds)
            if len(seconds) > 1:
                row["noise"] = (max(seconds) - min(seconds)) / row["seconds"]
            row["repeats"] = len(seconds)
            row["peak_rss_bytes"] = max(run["peak_rss_bytes"] for run in self.runs)
            row["base_rss_bytes"] = self.base_rss_bytes
        return row


class FailedError(Exception):
    """A contestant that cannot go on; the message is for its row."""


class Heat:
    """The entries of one race over one task, their processes alive until the block ends.

    folder: of the data. on_run: called before each run with the contestant's name.
    """

    def __init__(
        self,
        race: str,
        entries: Sequence[Entry],
        folder: Path,
        threads: int,
        memory_limit: int | None,
        on_run: Callable[[str], None],
    ) -> None:
        self._race, self.entries, self._folder = race, list(entries), folder
        self._threads, self._limit, self._on_run = threads, memory_limit, on_run
        self._children: list[_Child | None] = []
        self._scratch = tempfile.TemporaryDirectory(prefix="heat-", dir=folder)

    def __enter__(self) -> Self:
        """Starts all at once: what they prepare is off the clock."""
        try:
            for number, entry in enumerate(self.entries):
                self._children.append(self._start(entry, number) if entry.is_ok else None)
            for entry, child in zip(self.entries, self._children, strict=True):
                if child is not None:
                    self._await(entry, child)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for child in filter(None, self._children):
            child.kill()
        self._scratch.cleanup()

    def out(self, entry: Entry) -> Path:
        """Where the entry's results are."""
        return Path(self._scratch.name, str(self.entries.index(entry)))

    def run(self, entry: Entry, **arguments: Any) -> dict[str, Any] | None:
        """One run that does not count: to warm up, to look at results. None where the entry has failed."""
        child = self._children[self.entries.index(entry)]
        if child is None or not entry.is_ok:
            return None
        self._on_run(f"{self._race} {entry.contestant}")
        try:
            return child.ask({"run": arguments})
        except FailedError as failure:
            entry.status = f"failed: {failure}"
            return None

    def measure(self, repeats: int, arguments: Callable[[Entry], Mapping[str, Any]] = lambda entry: {}) -> None:
        """Warms all up, then the rounds."""
        for entry in self.entries:
            self.run(entry, **arguments(entry))
        self.rounds(repeats, arguments)

    def rounds(self, repeats: int, arguments: Callable[[Entry], Mapping[str, Any]] = lambda entry: {}) -> None:
        """Runs that count: A B A B."""
        for _ in range(repeats):
            for entry in self.entries:
                answer = self.run(entry, **arguments(entry))
                if answer is not None:
                    entry.runs.append(answer)

    def _start(self, entry: Entry, number: int) -> _Child:
        out = Path(self._scratch.name, str(number))
        out.mkdir()
        task = {
            "race": self._race,
            "module": f"{PACKAGE}.{entry.contestant}",
            "folder": str(self._folder),
            "out": str(out),
            "threads": self._threads,
            "settings": entry.settings,
            "memory_limit": self._limit,
        }
        return _Child(self._threads, task)

    def _await(self, entry: Entry, child: _Child) -> None:
        try:
            entry.base_rss_bytes = child.answer()["base_rss_bytes"]
        except FailedError as failure:
            entry.status = f"failed: {failure}"


class _Child:
    """A worker process, leader of its own group: Ctrl-C reaches the bench alone, which then ends it."""

    def __init__(self, threads: int, task: Mapping[str, Any]) -> None:
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONWARNINGS": "ignore"}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (kill closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "recli.bench.worker"],  # -P: nothing of the working folder is imported
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            start_new_session=True,
        )
        self._post(task)

    def ask(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Raises FailedError."""
        self._post(content)
        return self.answer()

    def _post(self, content: Mapping[str, Any]) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended: the answer says how
            self._process.stdin.write(json.dumps(content).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Raises FailedError."""
        line = self._read_line()
        if not line.endswith(b"\n"):
            raise FailedError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise FailedError(answer["error"])
        return answer

    def _read_line(self) -> bytes:
        """Waits in Python, so that a signal's exception gets through."""
        assert self._process.stdout
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if selector.select(POLL):
                    part = os.read(self._process.stdout.fileno(), 1 << 16)
                    if not part:
                        break
                    line += part
        return line

    def _last_words(self) -> str:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return f"ended with exit code {code}" + (f": {lines[-1][:300]}" if lines else "")

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def missing(contestant: str) -> str | None:
    """Why the contestant's package cannot be imported here, as a row's status; None where it is there."""
    package, extra, _ = CONTESTANTS[contestant]
    if importlib.util.find_spec(package) is not None:
        return None
    return f"not installed: pip install 'recli[{extra}]'"
