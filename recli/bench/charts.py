"""The charts of a report as SVG, small enough for a phone, by matplotlib; text is drawn as paths, so that it looks the
same everywhere, and each says in words what it shows.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from recli.bench.columns import Row, megabytes_text, seconds_text, who

WIDTH, HEIGHT = 4.6, 3.2  # inches of 72 units; a phone shows 360 pixels
STYLE = {
    "svg.hashsalt": "recli",  # the same report, the same bytes
    "svg.fonttype": "path",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
COLORS = {
    "recli": "#0a7d5a",
    "implicit": "#c2571a",
    "lenskit": "#6a51a3",
    "faiss": "#2166ac",
    "scipy": "#2166ac",
    "sklearn": "#b8860b",
    "pandas": "#2166ac",
    "product": "#8a8a8a",
}
MARKERS = {"ials": "o", "als": "s", "svd": "^", "pop": "D"}


def charts(race: str, rows: Sequence[Row], report: Mapping[str, Any]) -> list[str]:
    """The figures that go with a race's rows, as <figure> elements; none where there is nothing to draw."""
    done = [row for row in rows if row["status"] == "ok"]
    if not done:
        return []
    found: list[str] = []
    if race == "train":
        metric = next((name for name in done[0] if name.startswith("ndcg@")), None)
        if metric:
            found.append(
                _figure(f"{race}-quality", f"Quality against cost: {metric} over seconds", _quality, done, metric)
            )
        found.append(_figure(f"{race}-memory", "Peak memory; pale: before there is data", _memory, done))
    elif race == "objective":
        for rank in dict.fromkeys(row["rank"] for row in done):
            drawn = [row for row in done if row["rank"] == rank and row.get("convergence")]
            if drawn:
                title = f"Rank {rank}: how far the objective is from the lowest reached, over seconds"
                found.append(_figure(f"{race}-{rank}", title, _convergence, drawn))
    elif race == "scale":
        found.append(_figure("scale-seconds", "Seconds over interactions", _growth, done, "seconds"))
        found.append(
            _figure("scale-memory", "Memory beyond the program's own over interactions", _growth, done, "memory")
        )
    elif race in ("topk", "svd", "index"):
        found.append(_figure(f"{race}-time", "Seconds, median; lines from least to most", _times, done))
    return found


def _figure(name: str, caption: str, draw: Callable[..., None], *arguments: Any) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        draw(figure, *arguments)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = _embedded(file.getvalue(), name, caption)
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _embedded(svg: str, name: str, caption: str) -> str:
    """A whole SVG file as an element among others: no prologue, no metadata, ids that are its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href").replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # applies to the whole page, and is its default
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{html.escape(caption, quote=True)}" ', svg, count=1)


def _quality(figure: Figure, rows: Sequence[Row], metric: str) -> None:
    axes = figure.add_subplot()
    series = list(dict.fromkeys((row["contestant"], row["solver"]) for row in rows))
    for contestant, solver in series:
        own = sorted(
            (row for row in rows if (row["contestant"], row["solver"]) == (contestant, solver)),
            key=lambda row: float(row["rank"]),
        )
        axes.plot(
            [row["seconds"] for row in own],
            [row[metric] for row in own],
            marker=MARKERS[solver],
            color=COLORS[contestant],
            label=who(own[0]),
            linewidth=1,
        )
    _log_seconds(axes.set_xscale, axes.xaxis, [row["seconds"] for row in rows])
    axes.set_xlabel("seconds to train")
    axes.set_ylabel(metric)
    axes.margins(0.12, 0.15)
    _name_ranks(figure, axes, rows, metric)
    figure.set_figheight(HEIGHT + 0.1 * len(series))
    figure.legend(loc="outside upper left", ncols=3, columnspacing=1, handletextpad=0.4)


def _name_ranks(figure: Figure, axes: Any, rows: Sequence[Row], metric: str) -> None:
    """The rank beside each point; of points that lie on each other, the first's."""
    figure.draw_without_rendering()
    taken: list[tuple[float, float]] = []
    for row in rows:
        x, y = axes.transData.transform((row["seconds"], row[metric]))
        if row["rank"] and all(abs(x - a) > 24 or abs(y - b) > 12 for a, b in taken):
            taken.append((x, y))
            axes.annotate(
                str(row["rank"]), (row["seconds"], row[metric]), (0, 6), textcoords="offset points", fontsize=8,
                ha="center", color="#444444",
            )  # fmt: skip


def _memory(figure: Figure, rows: Sequence[Row]) -> None:
    axes = figure.add_subplot()
    names = [who(row) + (f", {row['rank']}" if row["rank"] else "") for row in rows]
    places = np.arange(len(rows))[::-1]
    figure.set_figheight(1.2 + 0.3 * len(rows))
    peaks = np.array([row["peak_rss_bytes"] for row in rows]) / 1e6
    bases = np.minimum(np.array([row["base_rss_bytes"] for row in rows]) / 1e6, peaks)
    colors = [COLORS[row["contestant"]] for row in rows]
    axes.barh(places, peaks, color=colors, height=0.6)
    axes.barh(places, bases, color="white", alpha=0.6, height=0.6)
    axes.set_yticks(places, names)
    axes.set_xlabel("MB")
    axes.grid(axis="y", visible=False)
    for place, row in zip(places, rows, strict=True):
        axes.annotate(
            megabytes_text(row["peak_rss_bytes"]), (row["peak_rss_bytes"] / 1e6, place), (4, 0),
            textcoords="offset points", va="center", fontsize=8, color="#444444",
        )  # fmt: skip
    axes.set_xlim(0, float(peaks.max()) * 1.25)


def _convergence(figure: Figure, rows: Sequence[Row]) -> None:
    axes = figure.add_subplot()
    lowest = min(value for row in rows for _, value in row["convergence"])
    last = [row["convergence"][-1][1] for row in rows if row["contestant"] != "recli"]
    for row in rows:
        seconds, values = zip(*row["convergence"], strict=True)
        above = np.array(values) / lowest - 1
        shown = above > 0  # the lowest itself has no place on a logarithmic axis
        axes.plot(
            np.array(seconds)[shown], above[shown], marker=".", color=COLORS[row["contestant"]], label=row["contestant"]
        )
    for value in last:
        if value > lowest:
            axes.axhline(value / lowest - 1, color="#999999", linestyle=":", linewidth=1)
    axes.set_yscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("objective above the lowest")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}" if value >= 1e-3 else f"{value:.0e}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside upper left", ncols=2)


def _times(figure: Figure, rows: Sequence[Row]) -> None:
    axes = figure.add_subplot()
    names = [", ".join([who(row), *(f"{name} {row[name]}" for name in ("rank", "k") if name in row)]) for row in rows]
    places = np.arange(len(rows))[::-1]
    figure.set_figheight(1.2 + 0.3 * len(rows))
    seconds = np.array([row["seconds"] for row in rows])
    spread = np.array([[row["seconds"] - row["seconds_min"], row["seconds_max"] - row["seconds"]] for row in rows]).T
    axes.barh(
        places, seconds, xerr=spread, color=[COLORS[row["contestant"]] for row in rows], height=0.6, ecolor="#444444"
    )
    axes.set_yticks(places, names)
    axes.set_xlabel("seconds")
    axes.grid(axis="y", visible=False)
    for place, row in zip(places, rows, strict=True):
        axes.annotate(
            seconds_text(row["seconds"]), (row["seconds_max"], place), (5, 0), textcoords="offset points", va="center",
            fontsize=8, color="#444444",
        )  # fmt: skip
    axes.set_xlim(0, float(max(row["seconds_max"] for row in rows)) * 1.25)


def _growth(figure: Figure, rows: Sequence[Row], what: str) -> None:
    axes = figure.add_subplot()
    pairs = np.array([row["pairs"] for row in rows], float)
    if what == "seconds":
        values = np.array([row["seconds"] for row in rows])
    else:
        values = np.array([row["peak_rss_bytes"] - row["base_rss_bytes"] for row in rows]) / 1e6
    axes.plot(pairs, values, marker="o", color=COLORS["recli"], label="measured")
    axes.plot(pairs, values[-1] * pairs / pairs[-1], color="#999999", linestyle=":", label="in proportion")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(mpl.ticker.FixedLocator(pairs.tolist()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}M")
    axes.xaxis.set_minor_locator(NullLocator())
    _log_seconds(axes.set_yscale, axes.yaxis, [value for value in values if value > 0])
    axes.set_xlabel("interactions")
    axes.set_ylabel("seconds" if what == "seconds" else "MB")
    figure.legend(loc="outside upper left", ncols=2)


def _log_seconds(set_scale: Callable[[str], None], axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers; ticks at 1, 2, 5 where it is short, so that there are some."""
    set_scale("log")
    decades = np.log10(max(values) / min(values)) if values else 0
    axis.set_major_locator(mpl.ticker.LogLocator(subs=(1,) if decades > 2.5 else (1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")
