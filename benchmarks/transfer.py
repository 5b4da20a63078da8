"""From one domain to another: a model of ml-1m, adapted to the titles that ml-100k shares with it and to a tenth of its
users. Is that better than what that tenth alone teaches?

    python benchmarks/transfer.py ML_1M ML_100K [--share 0.1] [--rank 64] [--groups 0 10]

Both are folders with interactions.parquet and items.parquet. Items are the same where their titles are, letter by
letter. The users of ml-100k are new to the model. They are divided into groups; of each group's pairs four fifths are
what there is to learn from, and recall@20 and ndcg@20 are taken on the last fifth, drawn at random, over the shared
titles. Training on the group alone is given the best of several ranks. Intervals are 95% of a bootstrap over users, of
each contestant's difference to that. Settings of the adapters were chosen on groups 0 to 2.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recli import io, kernels
from recli.artifacts import Factors, Interactions, Provenance
from recli.config import FactorizeConfig, FinetuneConfig, ScoreConfig
from recli.factorize import factorize
from recli.finetune import NewData, Task, apply, finetune
from recli.ids import Csr, Ids, take_rows, to_csr
from recli.kernels.spec import Kernels
from recli.metrics import Truth, per_user
from recli.score import Audience, Catalogue, recommend
from recli.splits import apart, take_pairs

K, DRAWS = 20, 2000
RANKS = 8, 16, 32, 64  # tried for the model of the share alone; the best counts
SQUARED = {"loss": "squared", "negatives": 32, "epochs": 20, "fit": "gradient"}
BIAS, LORA = {"adapter": "bias"}, {"adapter": "lora", **SQUARED}
ADAPTERS: dict[str, list[dict[str, Any]]] = {
    "folded in": [{"adapter": "scale", "epochs": 1, "learning_rate": 1e-9}],
    "bias": [BIAS],
    "bilinear 8": [{"adapter": "bilinear", "rank": 8, **SQUARED, "learning_rate": 0.003}],
    "rows, closed": [{"adapter": "rows", "stay": 0.0, "epochs": 3}],
    "lora 4": [{**LORA, "rank": 4, "learning_rate": 0.003}],
    "lora 8": [{**LORA, "rank": 8, "learning_rate": 0.003}],
    "lora 16": [{**LORA, "rank": 16, "learning_rate": 0.001}],
    "bias+lora 8": [BIAS, {**LORA, "rank": 8, "learning_rate": 0.003}],
    "bias+lora 16": [BIAS, {**LORA, "rank": 16, "learning_rate": 0.001}],
    "bias+rows": [BIAS, {"adapter": "rows", "stay": 0.0, "epochs": 3}],
    "full": [{"adapter": "full", **SQUARED, "learning_rate": 0.001}],
}


def read(folder: Path, title: str) -> pl.DataFrame:
    """Columns user and title, each pair once."""
    items = pl.read_parquet(folder / "items.parquet", columns=["item", title]).rename({title: "title"})
    pairs = pl.read_parquet(folder / "interactions.parquet", columns=["user", "item"])
    return pairs.join(items, on="item").select("user", "title").unique(maintain_order=True)


def interactions(table: pl.DataFrame, titles: pl.Series) -> Interactions:
    """Items are numbered as in titles; users as they come."""
    users = table["user"].unique().sort()
    user = users.search_sorted(table["user"]).to_numpy().astype(np.int32)
    item = (
        table["title"].replace_strict(titles, pl.int_range(len(titles), eager=True), return_dtype=pl.Int32).to_numpy()
    )
    ones = np.ones(len(table), np.float32)
    matrix, _ = to_csr(user, item, ones, len(users), len(titles), "last")
    return Interactions(matrix=matrix, user_ids=Ids(users.to_numpy()), item_ids=Ids(np.arange(len(titles))))


def judged(model: Factors, users: np.ndarray, truth: Csr, allowed: np.ndarray, backend: Kernels) -> np.ndarray:
    """float64[n, 2]: recall and ndcg of each user who has some truth, by ids int[users]."""
    some = np.flatnonzero(np.diff(truth.indptr))
    order = np.argsort(model.user_ids.values)
    nums = order[np.searchsorted(model.user_ids.values, users[some], sorter=order)]
    wanted, found = take_rows(truth, some), []
    catalogue = Catalogue(np.flatnonzero(allowed).astype(np.int32))
    for block in recommend(model, Audience(nums), catalogue, ScoreConfig(k=K), backend):
        at = np.arange(block.start, block.start + len(block.items))
        metrics = per_user(block.items, Truth(wanted, np.diff(wanted.indptr)).rows(at))
        found.append(np.stack([metrics["recall"], metrics["ndcg"]], axis=1))
    return np.concatenate(found)


def adapted(base: Factors, some: Interactions, flags: list[dict[str, Any]], backend: Kernels) -> Factors:
    """The base with these adapters, each trained on it with those before."""
    for one in flags:
        joined = io.continue_ids(some, base, "some")
        data = NewData(joined.matrix, joined.matrix, len(joined.user_ids), len(joined.item_ids))
        task = Task(base, data, joined.user_ids, joined.item_ids, ("base",), Provenance())
        base = apply(base, finetune(task, FinetuneConfig(**one), backend)[0])
    return base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--groups", type=int, nargs=2, default=(0, 10), help="from and to, the last not included")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    source, target = read(arguments.source, "title"), read(arguments.target, "movie_title")
    target = target.with_columns(pl.col("user") + 1_000_000)  # other people
    titles = source["title"].unique().sort()
    shared = titles.is_in(target["title"].unique().implode()).to_numpy()
    target = target.filter(pl.col("title").is_in(titles.implode()))
    print(print(f"{shared.sum()} titles, {target['user'].n_unique()} users and {len(target)} pairs of the target"))
    with kernels.load("cpu", arguments.threads) as backend:
        base, _ = factorize(interactions(source, titles), FactorizeConfig(rank=arguments.rank), backend)
        sums: dict[str, list[np.ndarray]] = {}
        everyone = np.random.default_rng(0).permutation(target["user"].unique().sort().to_numpy())
        size = round(arguments.share * len(everyone))
        for group in range(*arguments.groups):
            few = pl.Series(everyone[group * size : (group + 1) * size])
            whole = interactions(target.filter(pl.col("user").is_in(few.implode())), titles)
            held, _ = apart(whole.matrix, "random", 0.2, group)
            some = dataclasses.replace(whole, matrix=take_pairs(whole.matrix, ~held))
            given = whole.user_ids.values, take_pairs(whole.matrix, held), shared, backend
            alone = {rank: judged(factorize(some, FactorizeConfig(rank=rank), backend)[0], *given) for rank in RANKS}
            best = max(alone, key=lambda rank: float(alone[rank][:, 1].mean()))
            popular, _ = factorize(some, FactorizeConfig(solver="pop"), backend)
            results = {"group alone": alone[best], "popular": judged(popular, *given)}
            for name, flags in ADAPTERS.items():
                results[name] = judged(adapted(base, some, flags, backend), *given)
            print(f"group {group}: {len(few)} users; rank {best} alone", flush=True)
            for name, values in results.items():
                sums.setdefault(name, []).append(values)
    rng = np.random.default_rng(0)
    every = {name: np.concatenate(values) for name, values in sums.items()}
    draws = rng.multinomial(
        len(every["popular"]), np.full(len(every["popular"]), 1 / len(every["popular"])), size=DRAWS
    )
    draws = draws / draws.sum(axis=1, keepdims=True)
    print(f"{'':12} recall@{K}  ndcg@{K}   recall less the group alone's [95%]")
    for name, values in every.items():
        gap = values[:, 0] - every["group alone"][:, 0]
        low, high = np.quantile(draws @ gap, [0.025, 0.975])
        recall, ndcg = values.mean(axis=0)
        print(f"{name:12} {recall:9.4f} {ndcg:8.4f}   {gap.mean():+.4f} [{low:+.4f}, {high:+.4f}]")


if __name__ == "__main__":
    main()
