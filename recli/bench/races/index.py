"""Read the input table and index it to a sparse matrix."""

from __future__ import annotations

from typing import Any

from recli.bench.bench import Bench, Heading


def index(bench: Bench, heading: Heading) -> list[dict[str, Any]]:
    assert bench.data.table
    with bench.heat("index", heading.entries, bench.data.table._asdict()) as heat:
        heat.measure(bench.config.repeats)
        rows = [entry.row() for entry in heat.entries]
        for row, entry in zip(rows, heat.entries, strict=True):
            if entry.is_ok:
                row["pairs"] = entry.runs[-1]["pairs"]
                row["rows_per_second"] = row["pairs"] / row["seconds"]
        return rows
