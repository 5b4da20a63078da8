"""What gpu.py measures, stage by stage: see there."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gpu_peers as peers
import numpy as np
import polars as pl
from gpu_peers import Work
from gpu_race import WARM, Bench

from recli import kernels
from recli.bench.roofline import als_iteration, exhaustive_topk, sparse_product
from recli.factorize.ials import RELAXATION, STEPS, TOLERANCE
from recli.factorize.svd import NORMALIZATIONS
from recli.finetune.batches import Batches, Distinct, PairBatch
from recli.ids import Csr, row_numbers, transpose
from recli.kernels.spec import Rule
from recli.linalg import truncated_svd

CHECKED = 2000  # users whose lists are compared with the CPU's
BATCH, BATCHES, RATE = 8192, 300, 1e-3
PROCESS_SECONDS = 120
NARROW = 32  # columns of the svd's products


def attribute(name: str) -> int:
    import cupy

    return int(cupy.cuda.Device().attributes.get(name, 0))


def ceilings(bench: Bench) -> None:
    copied, side = (1 << 30, 8192) if bench.is_large else (1 << 20, 64)
    moved = peers.copies(copied)
    rows = bench.race("ceilings", {name: (lambda work=work: work) for name, (work, _) in moved.items()})
    for name, row in rows.items():
        if "seconds" in row:
            row |= {"rate": moved[name][1] / row["seconds"] / 1e9, "unit": "GB/s"}
    kinds = ("fp32", "tf32", "fp16")
    rows = bench.race("ceilings", {f"gemm {kind}": (lambda kind=kind: peers.gemm(kind, side)) for kind in kinds})
    for row in rows.values():
        if "seconds" in row:
            row |= {"rate": 2 * side**3 / row["seconds"] / 1e12, "unit": "TFLOP/s"}
    peers.empty_torch_cache()


def iteration(bench: Bench, rank: int) -> None:
    solver, state = bench.solver(rank)
    gram = state["Q"].T.astype(np.float64) @ state["Q"]

    def half(side: int) -> Work:
        def sweep() -> None:
            tables = (solver._P, solver._Q) if side == 0 else (solver._Q, solver._P)
            solver._half_sweep(side, *tables, STEPS, TOLERANCE, RELAXATION)

        return bench.timed(sweep, lambda: solver.restore(state))

    makers = {
        "recli": lambda: bench.timed(lambda: solver.iterate(WARM), lambda: solver.restore(state)),
        "recli, users alone": lambda: half(0),
        "recli, items alone": lambda: half(1),
        "eigh on the host, twice": lambda: bench.timed(lambda: [np.linalg.eigh(gram) for _ in range(2)]),
    }
    rows = bench.race("iteration", makers, rank=rank)
    bench.add_fraction(rows["recli"], als_iteration("ials", *bench.size, rank, attribute("L2CacheSize")), "fp32")


def iteration_of(bench: Bench, peer: str, rank: int) -> None:
    solver, state = bench.solver(rank)
    P, Q = state["P"], state["Q"]
    makers = {
        "implicit": lambda: peers.implicit_iteration(*solver._sides, P, Q),
        "CuPy calls": lambda: peers.cupy_iteration(solver._sides, (P, Q), solver._alpha0, solver._penalties),
    }
    again = bench.timed(lambda: solver.iterate(WARM), lambda: solver.restore(state))
    rows = bench.race("iteration", {peer: makers[peer], f"recli, beside {peer}": lambda: again}, rank=rank)
    if peer == "CuPy calls":
        rows[peer]["sampled"] = f"1 of {peers.SAMPLED} rows, extrapolated by pairs"


def top_k(bench: Bench, rank: int) -> None:
    backend, k, seen = bench.backend, min(bench.k, bench.size.items), bench.matrix
    P, Q = (bench.solver(rank)[1][name] for name in "PQ")
    index = backend.index_items(Q)
    found: dict[str, dict[str, np.ndarray]] = {"recli": {}, "PyTorch fp32": {}, "PyTorch fp16": {}}

    def ours() -> None:
        found["recli"]["nums"] = backend.topk(index, P, k, seen)[0]

    makers = {
        "recli": lambda: bench.timed(ours),
        "recli, without copies": lambda: _search_alone(bench, index, P, k),
        "PyTorch fp32": lambda: peers.torch_topk(P, Q, seen, k, False, found["PyTorch fp32"]),
        "PyTorch fp16": lambda: peers.torch_topk(P, Q, seen, k, True, found["PyTorch fp16"]),
    }
    rows = bench.race("top-k", makers, rank=rank, k=k)
    peers.empty_torch_cache()
    cost = exhaustive_topk(bench.size.users, bench.size.items, rank, k)
    for name, row in rows.items():
        bench.add_fraction(row, cost, "fp32" if name == "PyTorch fp32" else "fp16")
    if "nums" not in found["recli"]:
        return
    lists, checked = found["recli"]["nums"], min(CHECKED, len(P))
    with kernels.load("cpu", bench.threads) as cpu:
        bounds = seen.indptr[: checked + 1]
        few = Csr(bounds, seen.indices[: bounds[-1]], seen.values[: bounds[-1]])
        same = cpu.topk(cpu.index_items(Q), P[:checked], k, few)[0] == lists[:checked]
    rows["recli"] |= {"checked_users": checked, "differ_from_cpu": int((~same.all(axis=1)).sum())}
    for name in ("PyTorch fp32", "PyTorch fp16"):
        if "nums" in found[name]:
            theirs = found[name]["nums"]
            rows[name]["lists_that_differ"] = int((theirs != lists).any(axis=1).sum())
            rows[name]["sets_that_differ"] = int((np.sort(theirs) != np.sort(lists)).any(axis=1).sum())


def _search_alone(bench: Bench, index: Any, P: np.ndarray, k: int) -> Work:
    """The launches of kernels/gpu/topk.py on what is on the device already."""
    from recli.kernels.gpu import topk

    cuda, seen, rank = bench.backend._cuda, bench.matrix, P.shape[1]  # type: ignore[attr-defined]
    n, size = len(P), min(topk.USERS, len(P))
    users, bounds, had = (cuda.upload(array) for array in (P.reshape(-1), seen.indptr, seen.indices))

    def search() -> None:
        with index.on_device() as items:
            work = topk._Search(cuda, items, size, rank, k)
            for start in range(0, n, size):
                end = min(start + size, n)
                work.run(users[start * rank : end * rank], end - start, (bounds[start : end + 1], 0, had))

    return bench.timed(search)


def svd(bench: Bench, rank: int) -> None:
    users, items, pairs = bench.size
    matrix, backend = NORMALIZATIONS["bias"](bench.matrix, items)[0], bench.backend
    rank = min(rank, users, items)
    ahead, back = backend.matrix(matrix), backend.matrix(transpose(matrix, items))
    rng = np.random.default_rng(0)
    sides = [backend.table(rng.standard_normal((n, NARROW), np.float32)) for n in (items, users)]
    makers = {
        "recli": lambda: bench.timed(lambda: truncated_svd(matrix, items, rank, backend)),
        "recli, a product": lambda: bench.timed(lambda: backend.product(ahead, sides[0])),
        "recli, a product, transposed": lambda: bench.timed(lambda: backend.product(back, sides[1])),
    }
    rows = bench.race("svd", makers, rank=rank)
    cached = attribute("L2CacheSize")
    bench.add_fraction(rows["recli, a product"], sparse_product(users, items, pairs, NARROW, cached), "fp32")
    bench.add_fraction(
        rows["recli, a product, transposed"], sparse_product(items, users, pairs, NARROW, cached), "fp32"
    )


def adam(bench: Bench, rank: int) -> None:
    rng = np.random.default_rng(0)
    P, Q = (rng.standard_normal((n, rank), np.float32) / 4 for n in bench.size[:2])
    batches = list(
        itertools.islice(Batches(bench.matrix, bench.matrix, bench.size.items, BATCH, 0, False, 0).epoch(0), BATCHES)
    )
    pairs = sum(len(batch.users) for batch in batches)
    found: dict[str, dict[str, np.ndarray]] = {"recli": {}, "PyTorch SparseAdam": {}}
    makers = {
        "recli": lambda: _adam(bench, P, Q, batches, found["recli"]),
        "PyTorch SparseAdam": lambda: peers.torch_adam(P, Q, batches, RATE, found["PyTorch SparseAdam"]),
    }
    rows = bench.race("adam", makers, rank=rank, pairs=pairs, batch=BATCH)
    peers.empty_torch_cache()
    for name, row in rows.items():
        if "seconds" in row:
            row["seconds_per_million"] = row["seconds"] / pairs * 1e6
        if found[name] and found["recli"] and name != "recli":
            row["largest_difference"] = max(float(np.abs(found[name][x] - found["recli"][x]).max()) for x in "PQ")


def _adam(bench: Bench, P: np.ndarray, Q: np.ndarray, batches: list[PairBatch], tables: dict[str, np.ndarray]) -> Work:
    """What `recli finetune --adapter full` does on squared errors; tables["P"], tables["Q"] (OUT)."""
    backend, distinct = bench.backend, (Distinct(len(P)), Distinct(len(Q)))

    def work() -> float:
        sides = [backend.table(x) for x in (P, Q)]
        moments = [[backend.zeros(*x.shape) for _ in range(2)] for x in (P, Q)]
        began = bench.clock()
        for step, batch in enumerate(batches, 1):
            entries = batch.users, np.ascontiguousarray(batch.items[:, 0])
            touched = [find(nums) for find, nums in zip(distinct, entries, strict=True)]
            rows = [backend.take(side, nums) for side, (nums, _) in zip(sides, touched, strict=True)]
            at = touched[0][1], touched[1][1]
            slopes = (backend.pair_dots(*rows, *at) - batch.targets) * np.float32(2 / len(batch.users))
            gains = backend.pair_gradients(*rows, *at, slopes)
            rule = Rule("adam", RATE, 0.9, 0.999, step=step)
            for side, moment, (nums, _), gain in zip(sides, moments, touched, gains, strict=True):
                backend.step(rule, side, moment, nums, gain)
        seconds = bench.clock() - began
        tables.update(zip("PQ", map(backend.host, sides), strict=True))
        return seconds

    return work


def end_to_end(bench: Bench, rank: int) -> None:
    """The lines that processes write, and when, show what share the GPU's work is."""
    matrix = bench.matrix
    with tempfile.TemporaryDirectory() as folder:
        table = {"user": row_numbers(matrix.indptr).astype(np.int32), "item": matrix.indices, "rating": matrix.values}
        pl.DataFrame(table).write_parquet(Path(folder, "synthetic.parquet"))
        commands = {
            "recli factorize": ["factorize", "synthetic.parquet", "--rank", str(rank), "-o", "model.npz"],
            "recli score": ["score", "model.npz", "-k", str(bench.k), "-o", "lists.parquet"],
        }
        for name, command in commands.items():
            row = {"stage": "end to end", "contestant": name, "rank": rank, "status": "ok"}
            bench.rows.append(row | _process(folder, [*command, "--device", "gpu", "-v", "--stats", "stats.json"]))


def _process(folder: str, command: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path[1:]))}
    began, lines = time.perf_counter(), []
    limited = ["timeout", str(PROCESS_SECONDS), sys.executable, "-m", "recli", *command]
    with subprocess.Popen(limited, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append([round(time.perf_counter() - began, 3), line.strip()])
    seconds = time.perf_counter() - began
    if process.returncode:
        return {"status": f"exit {process.returncode}: {lines[-1][1] if lines else ''}"[:300], "lines": lines}
    stats = json.loads(Path(folder, "stats.json").read_text())
    return {"seconds": seconds, "stats": stats, "lines": lines}
