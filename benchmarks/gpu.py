"""recli's GPU kernels on data of the shape of ML-20M: seconds, beside peers and what the machine can do at best.

    python benchmarks/gpu.py [--synthetic 138kx27kx20M] [--rank 128 64 256] [-k 100] [--budget 300] [--json gpu.json]

Contestants of a stage take turns, after one run each to warm up; medians count, by the clock of the host, between two
waits for the device. Stages begin in the order of their importance until --budget is used up; one that fails, or whose
package is missing, is reported and does not stop the next. The JSON is written after every stage. gpu.sh runs this, the
tests and `recli bench` in one go.

    iteration   of iALS as `recli factorize` does it, from factors after two iterations; its parts; implicit's GPU
                module, and CuPy's library calls (a sample of rows, extrapolated)
    top-k       exact lists for all users without what they have, from arrays of the host to arrays of the host, and
                without the copies; PyTorch's matmul and topk in fp32, and in fp16, whose lists are not exact
    svd         by block Krylov iteration
    adam        steps on the rows that batches of pairs touch; PyTorch's SparseAdam
    end to end  `recli factorize` and `recli score` as processes; lines: what they said, and when

Fractions are of the roofline (recli/bench/roofline.py) under the ceilings that were measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gpu_stages as measure
from gpu_race import Bench, reason

from recli import kernels
from recli.bench.machine import environment
from recli.bench.synthetic import parse_size
from recli.kernels.device import gpu_problem, gpu_text
from recli.kernels.spec import Kernels

REPEATS = 7
# Targets on an H100: seconds at most at rank 128 on 138kx27kx20M (adam: of a million pairs), and how many times as
# long others take at least.
FORETOLD = {"iteration": 0.020, "top-k": 0.012, "svd": 0.060, "adam": 0.006}
SLOWER = {
    "iteration": {"implicit": 4, "CuPy calls": 1},
    "top-k": {"PyTorch fp32": 5},
    "adam": {"PyTorch SparseAdam": 1},
}


def targets(rows: Iterable[dict[str, Any]], rank: int, is_usual: bool) -> list[dict[str, Any]]:
    """Of what was foretold, and of peers: ratio is above 1 where it is met."""
    seconds = {(row["stage"], row["contestant"]): row["seconds"] for row in rows if "seconds" in row and of(row, rank)}
    million = {row["contestant"]: row["seconds_per_million"] for row in rows if "seconds_per_million" in row}
    found = []
    for stage, limit in FORETOLD.items():
        ours = million.get("recli") if stage == "adam" else seconds.get((stage, "recli"))
        if is_usual:
            found.append({"target": f"{stage}: {limit:g} s", "ratio": limit / ours if ours else None})
    for stage, names in SLOWER.items():
        for name, times in names.items():
            ours, theirs = (seconds.get((stage, one)) for one in (f"recli, beside {name}", name))
            ours = ours or seconds.get((stage, "recli"))
            found.append(
                {
                    "target": f"{stage}: {times} times as fast as {name}",
                    "ratio": theirs / ours / times if ours and theirs else None,
                }
            )
    for row in rows:
        if "differ_from_cpu" in row:
            same = row["checked_users"] - row["differ_from_cpu"]
            found.append(
                {"target": f"top-k: the CPU's lists, rank {row['rank']}", "ratio": same / row["checked_users"]}
            )
    return found


def of(row: dict[str, Any], rank: int) -> bool:
    return row.get("rank", rank) == rank


def target_text(target: dict[str, Any]) -> str:
    ratio = target["ratio"]
    said = "not measured" if ratio is None else f"{'met' if ratio >= 1 else 'missed'}, {ratio:.3g} times what is asked"
    return f"{target['target']:44} {said}"


def row_text(row: dict[str, Any]) -> str:
    text = f"{row['stage']:11} {row['contestant']:32} {row.get('rank', ''):>4}  "
    if "seconds" not in row:
        return text + row["status"]
    number = f"{row['rate']:8.1f} {row['unit']}" if "rate" in row else f"{row['seconds'] * 1e3:8.1f} ms"
    known = ("roofline", "seconds_per_million", "differ_from_cpu", "lists_that_differ", "sets_that_differ", "sampled")
    return text + "  ".join([number, *(f"{name} {_short(row[name])}" for name in known if name in row)])


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def plan(ranks: list[int]) -> list[tuple[str, Callable[[Bench], None]]]:
    """Stages, the most important first."""
    main, others = ranks[0], ranks[1:]
    by_rank: list[tuple[str, Callable[[Bench, int], None], list[int]]] = [
        ("iteration", measure.iteration, [main]),
        ("top-k", measure.top_k, [main]),
        ("iteration", measure.iteration, others),
        ("top-k", measure.top_k, others),
        ("svd", measure.svd, [main]),
        ("adam", measure.adam, [main]),
        ("end to end", measure.end_to_end, [main]),
        ("implicit", lambda bench, rank: measure.iteration_of(bench, "implicit", rank), ranks),
        ("CuPy calls", lambda bench, rank: measure.iteration_of(bench, "CuPy calls", rank), ranks),
    ]
    stages = [(f"{name}, rank {rank}", _at(stage, rank)) for name, stage, each in by_rank for rank in each]
    return [("ceilings", measure.ceilings), *stages]


def _at(stage: Callable[[Bench, int], None], rank: int) -> Callable[[Bench], None]:
    return lambda bench: stage(bench, rank)


def run(arguments: argparse.Namespace, backend: Kernels) -> dict[str, Any]:
    problem = gpu_problem()
    began = time.perf_counter()
    bench, stages = Bench(arguments, backend), []
    made = time.perf_counter() - began
    report: dict[str, Any] = {
        "device": gpu_text() if not problem else f"none: {problem}",
        "environment": environment(),
        "threads": arguments.threads,
        "synthetic": {"size": str(bench.size), "seconds": made},
        "stages": stages,
        "rows": bench.rows,
    }
    for name, stage in plan(arguments.rank):
        began, status = time.perf_counter(), "ok"
        if began > bench.until:
            status = "skipped: out of time"
        else:
            before = len(bench.rows)
            try:
                stage(bench)
            except Exception as error:
                status = f"failed: {reason(error)}"
            for row in bench.rows[before:]:
                print(row_text(row), flush=True)
        if status != "ok":
            print(f"{name}: {status}", flush=True)
        stages.append({"stage": name, "status": status, "seconds": time.perf_counter() - began})
        is_usual = bench.main == 128 and str(bench.size) == "138kx27kx20M"
        report["targets"] = targets(bench.rows, bench.main, is_usual)
        if arguments.json:
            made_here = arguments.json.with_name(arguments.json.name + ".new")
            made_here.write_text(json.dumps(report, indent=1))
            made_here.replace(arguments.json)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = parse_size("138kx27kx20M")
    parser.add_argument(
        "--synthetic", dest="size", type=parse_size, default=usual, metavar="USERSxITEMSxPAIRS", help="[%(default)s]"
    )
    parser.add_argument("--rank", type=int, nargs="+", default=[128, 64, 256], help="the first at most length")
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--budget", type=float, default=300.0, metavar="SECONDS")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        with kernels.load("gpu", arguments.threads) as backend:
            report = run(arguments, backend)
    except ImportError as error:
        print(f"no GPU backend: {reason(error)}; {gpu_problem()}", file=sys.stderr)
        return 69
    for target in report["targets"]:
        print(target_text(target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
