"""What a person or a log collector sees. Results go to stdout; everything here goes to stderr."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from recli.errors import UsageError
from recli.process import peak_bytes


def say(text: str, log_format: str, level: str, event: str, fields: Mapping[str, Any] | None = None) -> None:
    """One line on stderr. If it cannot be written (its reader has gone, the log's disk is full), work goes on."""
    if log_format == "json":
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        record = {"ts": now, "level": level, "event": event, "message": text, **(fields or {})}
        text = json.dumps(record)
    else:
        text = f"recli: error: {text}" if level == "error" else f"recli {event}: {text}"
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        abandon(sys.stderr)


def abandon(stream: TextIO) -> None:
    """What is left in the stream's buffer goes nowhere: it would fail again when the interpreter closes the stream."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@dataclass
class Console:
    """Log lines and progress, and the numbers for --stats."""

    command: str
    quiet: bool = False
    verbose: bool = False
    log_format: str = "text"
    started: float = field(default_factory=time.perf_counter)
    stats: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.log_format not in ("text", "json"):
            raise UsageError(f"--log-format {self.log_format}: expected text or json")

    @classmethod
    def of(cls, command: str, params: Mapping[str, Any]) -> Console:
        return cls(command, params["quiet"], params["verbose"], params["log_format"])

    def note(self, text: str, *, detail: bool = False, fields: Mapping[str, Any] | None = None) -> None:
        """One line; fields go into the JSON form and into stats. detail: only with -v."""
        fields = fields or {}
        self.stats.update(fields)
        if self.quiet or (detail and not self.verbose):
            return
        say(text, self.log_format, "info", self.command, fields)

    def note_device(self, asked: str, chosen: str, reason: str, threads: int) -> None:
        """What computes, and why: said when it was left to us, else a detail."""
        fields = {"device": chosen, "threads": threads}
        self.note(f"device {chosen} ({reason}), {threads} threads", detail=asked != "auto", fields=fields)

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """A callback (done, text): a bar on a terminal, else a log line for about every tenth part."""
        if self.quiet:
            yield lambda done, text: None
        elif self.log_format == "text" and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            with self._bar(what, total) as advance:
                yield advance
        else:
            yield self._lines(what, total)

    @contextlib.contextmanager
    def _bar(self, what: str, total: int) -> Iterator[Callable[[int, str], None]]:
        from rich.console import Console as Terminal
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        terminal = Terminal(stderr=True, color_system=None if os.environ.get("NO_COLOR") else "auto")
        text = TextColumn("{task.fields[text]}")
        # results go to the real stdout, also while there is a bar
        with Progress(*columns, text, console=terminal, transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(what, total=total, text="")
            yield lambda done, text: bar.update(task, completed=done, text=text)

    def _lines(self, what: str, total: int) -> Callable[[int, str], None]:
        every = max(1, total // 10)
        reached = 0

        def advance(done: int, text: str) -> None:
            nonlocal reached
            if done >= total or done // every > reached:
                reached = done // every
                self.note(f"{what} {done}/{total}" + (f", {text}" if text else ""))

        return advance

    def finish(self) -> dict[str, Any]:
        """All numbers so far with the seconds since the start and the peak memory."""
        return {
            "command": self.command,
            **self.stats,
            "seconds": round(self.seconds(), 3),
            "peak_rss_bytes": peak_bytes(),
        }

    def seconds(self) -> float:
        return time.perf_counter() - self.started


def counted(count: int, noun: str) -> str:
    """1 user, 2,000 users."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size_text(count: float) -> str:
    """Bytes for people: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def print_json(content: Mapping[str, Any]) -> None:
    """One object on one line on stdout."""
    print(json.dumps(content))


def print_table(title: str, rows: Mapping[str, str], file: TextIO | None = None) -> None:
    """Names and values on stdout (or another file), the same on a terminal and in a pipe."""
    names, values = (max(map(len, column)) for column in (rows.keys(), rows.values()))
    print(title, *(f"  {name:<{names}}  {value:>{values}}" for name, value in rows.items()), sep="\n", file=file)
