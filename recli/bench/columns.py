"""A report's rows for people: which columns a race's table has, and what stands in them. The terminal and the page show
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Format = Callable[[Any], str]

TITLES = {
    "train": ("Models", "From the indexed pairs to a model, by each library's own defaults; quality on the test part"),
    "objective": (
        "Time to an objective",
        "Seconds to implicit's objective after its 15 iterations, from the same start",
    ),
    "topk": ("Lists", "Exact lists of all users by recli's ials; faiss and the bare product leave nothing out"),
    "svd": ("Singular value decomposition", "To the same error: values within 1e-4, residuals below 1e-3"),
    "index": ("Reading", "The input table, read and indexed to a sparse matrix"),
    "scale": ("Growth", "recli on ever more synthetic pairs of one catalogue"),
}


def seconds_text(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 99.5 else f"{seconds:,.0f} s"


def megabytes_text(count: float) -> str:
    megabytes = count / 1e6
    return f"{megabytes:,.0f} MB" if megabytes >= 99.5 else f"{megabytes:.3g} MB"


COLUMNS: dict[str, tuple[str, Format]] = {
    "rank": ("rank", lambda rank: str(rank or "")),
    "k": ("k", str),
    "size": ("size", str),
    "seconds": ("time", seconds_text),
    "noise": ("noise", lambda share: f"{share:.0%}"),
    "ratio": ("time / recli's", lambda ratio: f"{ratio:.2f}"),
    "iterations": ("iterations", str),
    "seconds_per_iteration": ("each", seconds_text),
    "users_per_second": ("users / s", lambda rate: f"{rate:,.0f}"),
    "rows_per_second": ("pairs / s", lambda rate: f"{rate:,.0f}"),
    "roofline": ("of roofline", lambda share: f"{share:.1%}"),
    "peak_rss_bytes": ("peak memory", megabytes_text),
    "artifact_bytes": ("model", megabytes_text),
}
FIRST = ("rank", "k", "size", "seconds", "noise", "ratio")  # then the metrics, then the rest
MEAN = "_difference_mean"


def races(report: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Race -> its rows, those that are shown first first."""
    return {race: rows for race in TITLES if (rows := [row for row in report["rows"] if row["race"] == race])}


def who(row: Row) -> str:
    """The contestant, with what tells its rows in the race apart: recli svd, recli ials gpu, lenskit als."""
    parts = [row["contestant"]]
    if row["race"] in ("train", "scale"):
        parts.append(row["solver"])
    if row.get("device", "cpu") != "cpu":
        parts.append(row["device"])
    return " ".join(parts)


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings, and the cells of the rows that are ok; the first column says who. Columns without any are left out."""
    done = [row for row in rows if row["status"] == "ok"]
    columns = {name: column for name, column in COLUMNS.items() if any(row.get(name) is not None for row in done)}
    metrics = dict.fromkeys(name for row in done for name in row if "@" in name and "_difference" not in name)
    shown = {name: (name, "{:.4f}".format) for name in metrics}
    first = {name: columns.pop(name) for name in FIRST if name in columns}
    compared = next((name for row in done for name in row if name.startswith("ndcg") and name.endswith(MEAN)), None)
    all_columns: dict[str, tuple[str, Format]] = {**first, **shown, **columns}
    headings = ["", *(heading for heading, _ in all_columns.values())]
    cells = [
        [who(row), *("" if row.get(name) is None else form(row[name]) for name, (_, form) in all_columns.items())]
        for row in done
    ]
    if compared:
        at = 1 + len(first) + len(shown)
        headings.insert(at, f"{compared.removesuffix(MEAN)} above the best (95%)")
        for line, row in zip(cells, done, strict=True):
            line.insert(at, _difference(row, compared.removesuffix(MEAN)))
    return headings, cells


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for each contestant without a result, and why."""
    lines = []
    for row in rows:
        if row["status"] != "ok":
            rank = f" at rank {row['rank']}" if row.get("rank") and row["status"].startswith("failed") else ""
            lines.append(f"{who(row)}{rank}: {row['status']}")
    return list(dict.fromkeys(lines))


def _difference(row: Row, metric: str) -> str:
    if row.get("reference"):
        return "the best"
    if metric + MEAN not in row:
        return ""
    mean, low, high = (row[f"{metric}_difference_{part}"] for part in ("mean", "low", "high"))
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"
