"""The report of recli bench on a terminal or in a pipe: a table a race, on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

PIPE_WIDTH = 240  # a pipe has no width of its own


def print_report(report: Mapping[str, Any]) -> None:
    from rich.console import Console as Terminal
    from rich.table import Table

    from recli.bench.columns import TITLES, failures, races, table
    from recli.bench.report import exponents_line, headline, machine_line

    color: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    terminal = Terminal(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, color_system=color)
    terminal.print(headline(report), markup=False)
    terminal.print(machine_line(report), markup=False)
    for race, rows in races(report).items():
        headings, cells = table(rows)
        terminal.print()
        terminal.print(": ".join(TITLES[race]), style="bold", markup=False)
        if cells:
            shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
            for number, heading in enumerate(headings):
                shown.add_column(heading, justify="right" if number else "left")
            for line in cells:
                shown.add_row(*line)
            terminal.print(shown)
        for failure in failures(rows):
            terminal.print(failure, markup=False)
        if race == "scale" and report.get("scale"):
            terminal.print(exponents_line(report), markup=False)
