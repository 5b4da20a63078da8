"""Seconds from a cold start until a few users have their lists, with and without --index.

    python benchmarks/index.py [--users 1000000] [--items 1000000] [--rank 64]

The model is random, with item norms that fall as rank^-0.3; processes alternate, and medians count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from recli import io
from recli.artifacts import Factors
from recli.ids import Ids

REPEATS, ASKED = 3, 100


def write_model(path: Path, users: int, items: int, rank: int) -> None:
    rng = np.random.default_rng(0)
    P = rng.standard_normal((users, rank), np.float32)
    Q = rng.standard_normal((items, rank), np.float32) * (1 + np.arange(items, dtype=np.float32))[:, None] ** -0.3
    factors = Factors(
        P=P,
        Q=Q.astype(np.float32),
        b_u=np.zeros(users, np.float32),
        b_v=np.zeros(items, np.float32),
        b=np.array(0, np.float32),
        user_ids=Ids(np.arange(users)),
        item_ids=Ids(np.arange(items)),
        item_counts=np.arange(items)[::-1].copy(),
    )
    with open(path, "w+b") as file:
        io.write_npz(factors, file)


def seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "recli", *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rank", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large, small, asked = Path(folder, "large.npz"), Path(folder, "small.npz"), Path(folder, "asked.txt")
        write_model(large, arguments.users, arguments.items, arguments.rank)
        write_model(small, 1200, 600, 32)
        asked.write_text("".join(f"{user}\n" for user in range(0, 1200, 1200 // ASKED)))
        command = ("--users", str(asked), "--keep-seen", "-k", "10", "-o", str(Path(folder, "lists.parquet")))
        index = ("--index", str(Path(folder, "index.npz")))
        seconds("score", str(large), *command, *index)  # makes it
        runs = {
            "recli --version": ("--version",),
            "a model of 600 items": ("score", str(small), *command),
            "the large model": ("score", str(large), *command),
            "the large model, --index": ("score", str(large), *command, *index),
        }
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(REPEATS):
            for name, run in runs.items():
                taken[name].append(seconds(*run))
        for name, each in taken.items():
            print(f"{name}: {np.median(each):.2f} s ({min(each):.2f} to {max(each):.2f})")


if __name__ == "__main__":
    main()
