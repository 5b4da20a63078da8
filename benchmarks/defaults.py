"""How good are the defaults of ials? recall@20 with nothing but --rank given, against the best point of a grid.

    python benchmarks/defaults.py TRAIN TEST [--rank 64 256] [-o grid.ndjson]
    python benchmarks/defaults.py RATINGS [--where "rating >= 4"] [--rank 64 256] [-o grid.ndjson]

One table is split at random, 80/20, seed 0; every row of the test part counts as relevant, and the full catalogue is
ranked without the training items. The grid is reg x alpha0 x iterations below; -o keeps every point.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from recli import io, kernels
from recli.artifacts import Interactions
from recli.config import FactorizeConfig, ReadConfig, ScoreConfig
from recli.factorize import factorize
from recli.kernels.spec import Kernels
from recli.metrics import RankingQuality
from recli.score import Audience, Catalogue, recommend

REG = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
ALPHA0 = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
ITERATIONS = (4, 8, 16)
K = 20


def tables(paths: list[str], where: str | None, folder: Path) -> tuple[str, str]:
    if len(paths) == 2:
        return paths[0], paths[1]
    frame = pl.read_parquet(paths[0])
    frame = frame.filter(pl.sql_expr(where)) if where else frame
    frame = frame.sample(fraction=1.0, shuffle=True, seed=0)
    cut = len(frame) * 8 // 10
    train, test = folder / "train.parquet", folder / "test.parquet"
    frame[:cut].write_parquet(train)
    frame[cut:].write_parquet(test)
    return str(train), str(test)


def quality(train: Interactions, test: str, config: FactorizeConfig, backend: Kernels) -> tuple[float, float]:
    """recall@K and ndcg@K of one fit."""
    model, _ = factorize(train, config, backend)
    with io.source([test]) as found:
        users, truth = io.read_truth(found, model, ReadConfig())
    judge = RankingQuality(K, model.item_counts, len(model.user_ids))
    for block in recommend(model, Audience(users.nums), Catalogue(), ScoreConfig(k=K), backend):
        rows = range(block.start, block.start + len(block.items))
        judge.add(block.items, truth.rows(pl.Series(rows).to_numpy()))
    result = judge.result()
    return result[f"recall@{K}"], result[f"ndcg@{K}"]


def grid(rank: int) -> Iterator[tuple[dict[str, float], FactorizeConfig]]:
    for reg, alpha0, iterations in itertools.product(REG, ALPHA0, ITERATIONS):
        point = {"reg": reg, "alpha0": alpha0, "iterations": iterations}
        yield point, FactorizeConfig(rank=rank, reg=reg, alpha0=alpha0, iterations=iterations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--where")
    parser.add_argument("--rank", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        train_path, test_path = tables(arguments.tables, arguments.where, folder)
        train, _ = io.read_interactions(stack.enter_context(io.source([train_path])), ReadConfig())
        backend = stack.enter_context(kernels.load("cpu", arguments.threads))
        for rank in arguments.rank:
            ours = quality(train, test_path, FactorizeConfig(rank=rank), backend)
            points = []
            for point, config in grid(rank):
                recall, ndcg = quality(train, test_path, config, backend)
                points.append({"rank": rank, **point, f"recall@{K}": recall, f"ndcg@{K}": ndcg})
            best = max(points, key=lambda point: point[f"recall@{K}"])
            print(
                f"rank {rank}: defaults recall@{K} {ours[0]:.4f} ndcg@{K} {ours[1]:.4f}, "
                f"{ours[0] / best[f'recall@{K}']:.1%} of the best of {len(points)} points: {best}",
                flush=True,
            )
            if arguments.output:
                with arguments.output.open("a") as file:
                    file.writelines(json.dumps(point) + "\n" for point in points)


if __name__ == "__main__":
    main()
