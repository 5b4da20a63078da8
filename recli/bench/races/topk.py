"""Exact lists of all users, what they have left out, by the factors of recli's ials at its defaults."""

from __future__ import annotations

from typing import Any

from recli.bench import roofline
from recli.bench.bench import Bench, Heading
from recli.bench.problem import save


def topk(bench: Bench, heading: Heading) -> list[dict[str, Any]]:
    rank, k = heading.about["rank"], heading.about["k"]
    P, Q = bench.factors(rank)
    save(bench.conditions.folder / "topk", {"P": P, "Q": Q})
    with bench.heat("topk", heading.entries, {"k": k}) as heat:
        heat.measure(bench.config.repeats)
        rows = [entry.row() for entry in heat.entries]
    work = roofline.exhaustive_topk(len(P), len(Q), P.shape[1], k)
    for row, entry in zip(rows, heading.entries, strict=True):
        if entry.is_ok:
            row["users_per_second"] = len(P) / row["seconds"]
        if entry.has_roofline:
            row["roofline"] = work.floor(bench.conditions.machine) / row["seconds"]
    return rows
