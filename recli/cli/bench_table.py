"""The report of recli bench on a terminal or in a pipe: a table a race, on stdout."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PIPE_WIDTH = 200  # a pipe has no width of its own
LABELS = ("", "rank", "k", "size")  # columns that are there again where a table goes on below
GAP = 2


def print_report(report: Mapping[str, Any]) -> None:
    from rich.console import Console as Terminal

    from recli.bench.columns import TITLES, failures, races, table
    from recli.bench.report import exponents_line, headline, machine_line

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH
    terminal = Terminal(width=width, highlight=False, markup=False)

    def say(text: str, style: str | None = None) -> None:
        terminal.print(textwrap.fill(text, width), style=style)

    say(headline(report))
    say(machine_line(report))
    for race, rows in races(report).items():
        terminal.print()
        say(": ".join(TITLES[race]), "bold")
        headings, cells = table(rows)
        for part in blocks([headings, *cells], width) if cells else ():
            first, *others = aligned(part)
            terminal.print(first, style="bold", soft_wrap=True)
            for line in others:
                terminal.print(line, soft_wrap=True)
        for line in failures(rows):
            say(line)
        if race == "scale" and report.get("scale"):
            say(exponents_line(report))


def blocks(lines: Sequence[Sequence[str]], width: int) -> Iterator[list[list[str]]]:
    """A table of lines, headings first, as tables that are no wider, one below the other; each begins with the columns
    that say what a line is about.
    """
    widths = [max(map(len, column)) + GAP for column in zip(*lines, strict=True)]
    labels = [at for at, heading in enumerate(lines[0]) if heading in LABELS]
    left = [at for at in range(len(widths)) if at not in labels]
    while left:
        taken = [left.pop(0)]
        while left and sum(widths[at] for at in (*labels, *taken, left[0])) - GAP <= width:
            taken.append(left.pop(0))
        yield [[line[at] for at in (*labels, *taken)] for line in lines]


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Names to the left, numbers to the right."""
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    return [
        (" " * GAP).join([line[0].ljust(first), *(cell.rjust(n) for cell, n in zip(line[1:], others, strict=True))])
        for line in lines
    ]
