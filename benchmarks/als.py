"""Held-out rmse of als, with nothing but --solver als and --rank given.

    python benchmarks/als.py ml-100k/interactions.parquet --fold fold      # a column of test folds: the mean over them
    python benchmarks/als.py ml-1m/interactions.parquet                    # random 90/10, seed 0

A test pair whose user or item has no training rating is predicted from what biases are left.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path

import polars as pl

from recli.cli.main import main


def judge(train: pl.DataFrame, test: pl.DataFrame, options: list[str]) -> tuple[float, float]:
    """rmse on the test part, and the seconds of recli factorize: files included, the start of Python not."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder, name)) for name in ("train.parquet", "test.parquet", "model.npz")}
        train.write_parquet(paths["train.parquet"])
        test.write_parquet(paths["test.parquet"])
        began = time.perf_counter()
        model = paths["model.npz"]
        assert main(["factorize", paths["train.parquet"], "--solver", "als", "-q", "-o", model, *options]) == 0
        seconds = time.perf_counter() - began
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            assert (
                main(
                    ["score", model, "--pairs", paths["test.parquet"], "--truth", paths["test.parquet"], "-q", "--json"]
                )
                == 0
            )
    return json.loads(shown.getvalue())["rmse"], seconds


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings")
    parser.add_argument("--fold", help="column of test folds")
    parser.add_argument("--rank", default="64")
    arguments, more = parser.parse_known_args()
    ratings = pl.read_parquet(arguments.ratings)
    if arguments.fold:
        tests = [pl.col(arguments.fold) == fold for fold in ratings[arguments.fold].unique().sort()]
    else:
        ratings = ratings.sample(fraction=1.0, shuffle=True, seed=0).with_row_index("at")
        tests = [pl.col("at") >= len(ratings) * 9 // 10]
    results = [judge(ratings.filter(~test), ratings.filter(test), ["--rank", arguments.rank, *more]) for test in tests]
    for rmse, seconds in results:
        print(f"rmse {rmse:.4f}  factorize {seconds:.2f} s")
    print(f"mean {sum(rmse for rmse, _ in results) / len(results):.4f}")


if __name__ == "__main__":
    run()
