"""A report as one self-contained page: no script, no network, readable on a phone."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recli.bench.charts import charts
from recli.bench.columns import TITLES, Row, failures, races, table
from recli.bench.report import data_line, exponents_line, headline, machine_line

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; background: #fff; color: #1d1d1f;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.25rem; margin: 0 0 .5rem; color: #0a7d5a; }
.headline { font-size: 1.35rem; line-height: 1.35; margin: 0 0 1rem; max-width: 56rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 0; }
p { margin: .25rem 0 .75rem; }
.note { color: #55555a; font-size: .92rem; max-width: 60rem; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: separate; border-spacing: 0; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e6e6e6; }
th { font-weight: 600; color: #55555a; white-space: normal; vertical-align: bottom; min-width: 4rem; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tr.own td { font-weight: 600; background: #f1f8f5; }
ul.failed { margin: 0 0 1rem; padding-left: 1.2rem; color: #8a3b12; font-size: .92rem; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 30rem)); gap: 1rem 2rem; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 30rem; }
figcaption { color: #55555a; font-size: .85rem; margin-top: .25rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .88rem; margin: .5rem 0; }
dt { color: #55555a; } dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(report: Mapping[str, Any]) -> str:
    """HTML, whole."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>recli bench: {_safe(report['created'][:10])}</title><style>{STYLE}</style></head><body>",
        "<h1>recli bench</h1>",
        f'<p class="headline">{_safe(headline(report))}</p>',
        _gates(report),
        *(_section(race, rows, report) for race, rows in races(report).items()),
        _conditions(report),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _section(race: str, rows: Sequence[Row], report: Mapping[str, Any]) -> str:
    title, what = TITLES[race]
    parts = [f"<section><h2>{_safe(title)}</h2>", f'<p class="note">{_safe(what)}.</p>']
    headings, cells = table(rows)
    if cells:
        parts.append(_table(headings, cells))
    failed = failures(rows)
    if failed:
        parts.append('<ul class="failed">' + "".join(f"<li>{_safe(line)}</li>" for line in failed) + "</ul>")
    if race == "scale" and report.get("scale"):
        parts.append(f'<p class="note">{_safe(exponents_line(report))}</p>')
    figures = charts(race, rows, report)
    if figures:
        parts.append(f'<div class="charts">{"".join(figures)}</div>')
    return "\n".join([*parts, "</section>"])


def _table(headings: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{_safe(heading)}</th>' for heading in headings)
    lines = (
        f"<tr{' class=own' if line[0].startswith('recli') else ''}>"
        + "".join(f"<td>{_safe(cell)}</td>" for cell in line)
        for line in cells
    )
    body = "".join(f"{line}</tr>" for line in lines)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _gates(report: Mapping[str, Any]) -> str:
    gates = report.get("gates")
    if not gates:
        return ""
    said = "Worse than the baseline" if gates["failed"] else "No worse than the baseline"
    lines = [*gates["failed"], *(f"made differently: {line}" for line in gates["differs"])]
    listed = "".join(f"<li>{_safe(line)}</li>" for line in lines)
    return (
        f'<section><h2>{said}</h2><p class="note">Compared with {_safe(gates["baseline"])}; fails if '
        f"{_safe('; '.join(gates['gates']) or 'nothing')}.</p>"
        + (f'<ul class="failed">{listed}</ul>' if lines else "")
        + "</section>"
    )


def _conditions(report: Mapping[str, Any]) -> str:
    """What the numbers depend on."""
    settings = report["settings"]
    facts = {
        "Made": report["created"],
        "Data": data_line(report),
        "Inputs (sha256)": ", ".join(report["data"].get("sha256", [])),
        "Machine": machine_line(report),
        "Settings": ", ".join(f"{name.replace('_', '-')} {value}" for name, value in settings.items()),
        "Versions": ", ".join(f"{name} {version}" for name, version in report["environment"].items()),
    }
    items = "".join(f"<dt>{_safe(name)}</dt><dd>{_safe(value)}</dd>" for name, value in facts.items() if value)
    return (
        "<section><h2>How it was measured</h2>"
        '<p class="note">Each contestant works in a process of its own; they take turns, after one run that does not '
        "count, on the same number of threads. Times are medians; noise is the range over the median; memory is the "
        "peak while the clock ran. A roofline is what the arithmetic or the memory traffic would take at least at the "
        f"machine's measured speed.</p><dl>{items}</dl></section>"
    )


def _safe(text: object) -> str:
    return html.escape(str(text))
