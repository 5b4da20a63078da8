"""What `recli factorize --dry-run` foretells of seconds and peak memory, beside what the job then takes.

    python benchmarks/plan.py [--sizes 20000x5000x1M 100000x10000x7M 200000x30000x20M] [--rank 16 64 128 256]
        [--solver ials als svd] [--threads 2]

Tables are synthetic (power-law users and items, integer ids), in a temporary folder. Seconds are of the whole process,
peak memory is its resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

UNITS = {"": 1, "k": 10**3, "M": 10**6}


def draw(rng: np.random.Generator, count: int, ids: int) -> np.ndarray:
    shares = np.cumsum(1 / (np.arange(ids) + 0.05 * ids))
    return rng.permutation(ids)[np.searchsorted(shares / shares[-1], rng.random(count)).clip(0, ids - 1)]


def write_ratings(path: Path, users: int, items: int, pairs: int) -> None:
    rng = np.random.default_rng(0)
    known = np.zeros(0, np.int64)
    while len(known) < pairs:
        more = pairs - len(known) + pairs // 50
        known = np.unique(np.append(known, draw(rng, more, users) * items + draw(rng, more, items)))
    known = rng.permutation(known)[:pairs]
    ratings = (rng.integers(1, 11, pairs) / 2).astype(np.float32)
    pl.DataFrame({"user_id": known // items, "item_id": known % items, "rating": ratings}).write_parquet(path)


def run(*arguments: str) -> tuple[dict[str, Any], float, int]:
    """The result, seconds and peak bytes of a process."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "recli", "factorize", *arguments, "--json", "-q"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit {process.returncode}")
    return json.loads(out), time.perf_counter() - began, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["20000x5000x1M", "100000x10000x7M", "200000x30000x20M"])
    parser.add_argument("--rank", nargs="+", default=["16", "64", "128", "256"])
    parser.add_argument("--solver", nargs="+", default=["ials", "als", "svd"])
    parser.add_argument("--threads", default="2")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            match = re.fullmatch(r"([0-9]+)x([0-9]+)x([0-9]+)([kM]?)", size)
            if not match:
                parser.error(f"--sizes {size}: expected USERSxITEMSxPAIRS")
            table = Path(folder, f"{size}.parquet")
            write_ratings(table, int(match[1]), int(match[2]), int(match[3]) * UNITS[match[4]])
            for solver in arguments.solver:
                for rank in arguments.rank:
                    flags = ("--solver", solver, "--rank", rank, "--threads", arguments.threads)
                    job = (str(table), *flags, "-o", str(Path(folder, "model.npz")))
                    plan = run(*job, "--dry-run")[0]["plan"]
                    _, seconds, peak = run(*job)
                    print(
                        f"{size} {solver} rank {rank}: foretold {plan['seconds']:.1f} s, {plan['bytes'] / 1e6:.0f} MB; "
                        f"took {seconds:.1f} s ({plan['seconds'] / seconds - 1:+.0%}), "
                        f"{peak / 1e6:.0f} MB ({plan['bytes'] / peak - 1:+.0%})",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
