"""The report: one JSON document, bench/1, and its rows flat, for dashboards.

    kind, version, recli_version, created (UTC)
    data          source, sha256 of the inputs (no path), split, sizes
    machine       cpu, cores, threads, gemm_gflops, copy_gbs: measured in the same run
    environment   versions of the libraries
    settings      solver, rank, k, ..., as given
    rows          one for each contestant in each heat; see below
    scale         exponents of time and memory, with --scale
    gates         with --baseline: its gates, what failed, and what else differs

Of a row: race, contestant, solver, rank, device, k, size; status (ok, or why not); seconds (median), seconds_min,
seconds_max, noise = (max - min) / median, repeats; peak_rss_bytes while the clock ran, and base_rss_bytes before there
was data; ratio and memory_ratio to recli's in the same heat; roofline, the share of what the machine's CPUs could do
(no column of rows that a GPU computed); and by race iterations, seconds_per_iteration, objective, convergence (seconds
and objective after each iteration), artifact_bytes, users_per_second, rows_per_second, value_error, residual, metric@k,
and metric@k_difference_mean, _low, _high to the row that is the reference, with a 95% interval.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from recli import __version__
from recli.bench.machine import Machine, environment
from recli.config import BenchConfig

Row = Mapping[str, Any]
NESTED = ("convergence",)


def document(
    config: BenchConfig, data: Mapping[str, Any], machine: Machine, rows: Sequence[Row], more: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "kind": "bench",
        "version": 1,
        "recli_version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "data": dict(data),
        "machine": machine._asdict(),
        "environment": environment(),
        "settings": config.semantic(),
        "rows": [dict(row) for row in rows],
        **more,
    }


def flat_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each row with what is the same for all: when, which recli, data and machine. Numbers and names only."""
    data, machine = report["data"], report["machine"]
    shared = {
        "created": report["created"],
        "recli_version": report["recli_version"],
        "data_sha256": ",".join(data.get("sha256", [])) or data.get("synthetic"),
        "cpu": machine["cpu"],
        "threads": machine["threads"],
    }
    return [{**shared, **{name: value for name, value in row.items() if name not in NESTED}} for row in report["rows"]]


def headline(report: Mapping[str, Any]) -> str:
    """One sentence: what was measured, and how recli did against the best of the others in each race."""
    data = report["data"]
    if "pairs" not in data:
        return "How recli grows with the interactions."
    of = f"{data['pairs']:,} pairs of {data['users']:,} users and {data['items']:,} items"
    results = []
    for race, phrase in (
        ("objective", "to its objective"),
        ("topk", "with all users' lists"),
        ("svd", "with an SVD to the same error"),
        ("index", "to read and index the table"),
    ):
        rivals = [
            row
            for row in report["rows"]
            if row["race"] == race and row["status"] == "ok" and row["contestant"] not in ("recli", "product")
        ]
        if rivals and all("ratio" in row for row in rivals):
            best = min(rivals, key=lambda row: float(row["ratio"]))
            results.append(f"{best['ratio']:.2g} times as fast as {best['contestant']} {phrase}")
    quality = [row for row in report["rows"] if row.get("reference")]
    if quality:
        metric = next(name for name in quality[0] if name.startswith("ndcg@"))
        of += f" (recli's best {metric}: {quality[0][metric]:.4f})"
    said = f"recli is {', '.join(results)}" if results else "recli was measured"
    return f"On {of}, {said}."


def exponents_line(report: Mapping[str, Any]) -> str:
    found = report["scale"]
    parts = [f"time grows with the interactions to the power {found['seconds']:.2f}"]
    parts.append(f"{found['seconds_at_the_end']:.2f} between the two largest sizes")
    if "memory" in found:
        parts.append(f"memory beyond the program's own to the power {found['memory']:.2f}")
    return "; ".join(parts)


def data_line(report: Mapping[str, Any]) -> str:
    data = report["data"]
    if "pairs" not in data:
        return "synthetic pairs of the sizes below"
    how = f"split {data['split']}, {data['test_share']:.0%} held out" if "split" in data else "as given, train and test"
    return (
        f"{data['source']}, {data['users']:,} users x {data['items']:,} items, {data['train_pairs']:,} pairs to learn "
        f"from, {data['test_pairs']:,} of {data['test_users']:,} users to judge by ({how})"
    )


def machine_line(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    return (
        f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores: {machine['gemm_gflops']:.0f} GFLOP/s "
        f"(float32 product), {machine['copy_gbs']:.1f} GB/s (copy)"
    )
