"""Seconds and peak memory from a Parquet file of ratings with text ids to a sparse matrix by user, against LensKit's
way and the usual one with pandas.

    python benchmarks/read.py [--rows 20000000] [--users 300000] [--items 60000] [--repeat-share 0] [--threads 2]

The file is synthetic: power-law users and items, ids such as user-0123456 and B00XXXXXXX, every pair once unless
--repeat-share draws that share of the rows a second time (LensKit refuses those, and pandas' way adds them up; recli
keeps the last by timestamp). Each contestant reads it in a process of its own, which has imported its libraries before
the clock starts; they alternate, and medians count. Peak memory is the process's, libraries and all. Needs pandas,
pyarrow and lenskit.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPEATS = 3
COLUMNS = ["user_id", "item_id", "rating"]


def recli(path: str) -> Any:
    from recli.cli.options import limit_threads

    limit_threads(None)  # as every command does, before it loads anything
    from recli import io, kernels  # noqa: F401  the kernels are loaded before a table is read, in every command
    from recli.config import ReadConfig

    yield
    with io.source([path]) as found:
        yield io.read_interactions(found, ReadConfig())[0].matrix.indices


def pandas(path: str) -> Any:
    import pandas as pd
    import pyarrow.parquet  # noqa: F401
    import scipy.sparse as sp

    yield
    frame = pd.read_parquet(path, columns=COLUMNS)
    users, user_ids = pd.factorize(frame["user_id"])
    items, item_ids = pd.factorize(frame["item_id"])
    yield sp.coo_array((frame["rating"], (users, items)), shape=(len(user_ids), len(item_ids))).tocsr().indices


def lenskit(path: str) -> Any:
    import pandas as pd
    import pyarrow.parquet  # noqa: F401
    from lenskit.data import from_interactions_df

    yield
    data = from_interactions_df(pd.read_parquet(path, columns=COLUMNS))
    yield data.interactions().matrix().scipy("rating", layout="csr").indices


CONTESTANTS = {"recli": recli, "pandas": pandas, "lenskit": lenskit}


def write_ratings(path: str, rows: int, users: int, items: int, repeat_share: float) -> None:
    """Ids of users and items by Zipf's law with a flattened head, half stars, times of ten years."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)

    def draw(count: int, ids: int, head: float) -> np.ndarray:
        shares = np.cumsum(1 / (np.arange(ids) + head * ids))
        return rng.permutation(ids)[np.searchsorted(shares / shares[-1], rng.random(count)).clip(0, ids - 1)]

    once = rows - int(rows * repeat_share)
    pairs = np.zeros(0, np.int64)
    while len(pairs) < once:
        more = once - len(pairs) + rows // 50
        pairs = np.unique(np.append(pairs, draw(more, users, 0.05) * items + draw(more, items, 0.01)))
    pairs = rng.permutation(pairs)[:once]
    pairs = rng.permutation(np.append(pairs, rng.choice(pairs, rows - once)))
    user_ids = pl.Series([f"user-{user:07d}" for user in range(users)])
    item_ids = pl.Series([f"B00{item * 7919 % 36**5:07X}" for item in range(items)])
    table = {
        "user_id": user_ids.gather(pairs // items),
        "item_id": item_ids.gather(pairs % items),
        "rating": (rng.integers(1, 11, rows) / 2).astype(np.float32),
        "timestamp": rng.integers(1_400_000_000, 1_700_000_000, rows),
    }
    pl.DataFrame(table).write_parquet(path)


def contest(name: str, path: str) -> dict[str, float]:
    """One contestant's run, in this process."""
    steps = CONTESTANTS[name](path)
    next(steps)
    start = time.perf_counter()
    entries = len(next(steps))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "entries": entries}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--repeat-share", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--keep", metavar="FILE", help="the table, made if it is not there, instead of a temporary one")
    parser.add_argument("--contest", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contest:
        print(json.dumps(contest(*arguments.contest)))
        return
    variables = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "ARROW_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(variables, str(arguments.threads))}
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.keep or str(Path(folder, "ratings.parquet"))
        if not os.path.exists(path):  # in a process of its own, so that memory for it is free again
            sizes = (arguments.rows, arguments.users, arguments.items, arguments.repeat_share)
            make = f"import read; read.write_ratings({path!r}, *{sizes})"
            subprocess.run([sys.executable, "-c", make], check=True, cwd=Path(__file__).parent)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.contestants}
        for repeat in range(REPEATS + 1):
            for name, results in runs.items():
                command = [sys.executable, __file__, "--contest", name, path]
                result = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
                if repeat:  # the first round compiles, and warms the cache of the file
                    results.append(result)
    medians = {
        name: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for name, results in runs.items()
    }
    for name, median in medians.items():
        times = [result["seconds"] for result in runs[name]]
        ours = medians["recli"]
        print(
            f"{name}: {median['seconds']:.2f} s ({min(times):.2f} to {max(times):.2f}), peak {median['peak'] / 1e6:.0f}"
            f" MB, {median['entries']:,.0f} entries; {median['seconds'] / ours['seconds']:.1f} times recli's seconds, "
            f"{median['peak'] / ours['peak']:.1f} times its memory"
        )


if __name__ == "__main__":
    main()
