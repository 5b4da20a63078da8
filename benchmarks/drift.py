"""What is keeping up with new interactions worth? recall@20 on the last tenth of the time, of models that know less.

    python benchmarks/drift.py [--synthetic 100kx10kx7M] [--drift 1] [--rank 64] [--repeats 3]
    python benchmarks/drift.py --interactions ml-100k/interactions.parquet     # columns user, item, timestamp
    python benchmarks/drift.py --interactions gowalla/train.parquet --shuffle --only bias,rows

Interactions are split by time, 70% / 20% / 10%: the base is trained on the first part, contestants make something of
it and of the second part, and the third judges. Each user who has items there that are new to him gets a list of 20,
without what he had before, whatever the contestant knows of that; recall is the share of all these items, those that
the contestant does not know included. Users whom it does not know get the items that are most popular in it.

    stale      the base as it is
    retrain    ials on the first two parts together, from scratch
    popular    the most popular items of the first two parts
    others     adapters of recli finetune: their rank, rounds or epochs, and the share of the base's numbers that is
               trained (rows of new users and items not counted, since they have no others); "a + b": b trained on the
               base with a, on the same interactions

The old column is forgetting: which share of what users had in the base's interactions (at most 20) is in lists of 20
with nothing left out. The gain is what a contestant adds to stale, as a share of what retrain adds. Seconds are those
of computing alone, the median of --repeats; for retrain, of factorize(), for adapters, of numbering the new
interactions and of finetune().
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recli import io, kernels
from recli.artifacts import Factors, Interactions, Provenance
from recli.bench.drift import drifting
from recli.bench.synthetic import parse_size
from recli.config import FactorizeConfig, FinetuneConfig, ScoreConfig
from recli.errors import UsageError
from recli.factorize import Validation, factorize, no_pairs
from recli.finetune import Adapter, NewData, Task, apply, finetune
from recli.finetune import Exam as Judge
from recli.finetune.quality import FORGETTING
from recli.finetune.tables import Tables
from recli.ids import Csr, Ids, row_numbers, take_rows, to_csr
from recli.kernels.spec import Kernels
from recli.metrics import RankingQuality, Truth
from recli.score import Audience, Catalogue, recommend

K = 20
LONG = 10  # seconds, after which nothing is repeated
PARTS = 0.7, 0.2  # of the interactions: the base's, the new ones; the rest judges
# Of the base and the new interactions: a model, or what makes one of the base, and the share that was trained.
Contestant = Callable[[Factors, Interactions], tuple[Factors | list[Adapter], float]]
LORA = {"adapter": "lora", "fit": "closed"}
ADAPTERS: dict[str, dict[str, Any] | list[dict[str, Any]]] = {
    "bias": {"adapter": "bias"},
    "bias + lora 1%": [{"adapter": "bias"}, {**LORA, "trainable": 0.01}],
    "bias + lora 4%": [{"adapter": "bias"}, {**LORA, "trainable": 0.04}],
    "bias + rows": [{"adapter": "bias"}, {"adapter": "rows"}],
    **{f"bias, stay {stay:g}": {"adapter": "bias", "stay": stay} for stay in (0.0, 0.3, 1.0, 3.0)},
    **{f"rows, stay {stay:g}": {"adapter": "rows", "stay": stay} for stay in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)},
    "bias, gradient": {"adapter": "bias", "fit": "gradient", "epochs": 2},
    "scale": {"adapter": "scale", "epochs": 1},
    "bilinear 8": {"adapter": "bilinear", "rank": 8, "epochs": 1},
    "rows, 1 round": {"adapter": "rows"},
    "rows, 2 rounds": {"adapter": "rows", "epochs": 2},
    "rows, 5%": {"adapter": "rows", "trainable": 0.05},
    **{f"lora {share:.0%}": {**LORA, "trainable": share} for share in (0.01, 0.02, 0.03, 0.05, 0.1)},
    "lora 5%, 2 rounds": {**LORA, "trainable": 0.05, "epochs": 2},
    "lora 5%, gradient": {"adapter": "lora", "fit": "gradient", "trainable": 0.05, "epochs": 2},
}


class Log(NamedTuple):
    """Interactions in the order of time: users int32[n], items int32[n], numbered as they come. A part of it knows the
    first so many of each, therefore; the numbers are the ids.
    """

    users: np.ndarray
    items: np.ndarray

    @classmethod
    def of(cls, users: pl.Series, items: pl.Series) -> Log:
        return cls(*map(numbered, (users, items)))

    def part(self, start: float, end: float) -> Log:
        """From one share of the interactions to another."""
        at = slice(*(round(share * len(self.users)) for share in (start, end)))
        return Log(self.users[at], self.items[at])

    def interactions(self) -> Interactions:
        """As if these were all there is: users and items of others are not in it."""
        user_ids, users = np.unique(self.users, return_inverse=True)
        item_ids, items = np.unique(self.items, return_inverse=True)
        matrix = matrix_of(users, items, len(user_ids), len(item_ids))
        return Interactions(matrix=matrix, user_ids=Ids(user_ids), item_ids=Ids(item_ids))


def numbered(ids: pl.Series) -> np.ndarray:
    """int32[n], numbers in the order of first appearance."""
    known = ids.unique(maintain_order=True)
    return ids.replace_strict(known, pl.int_range(len(known), eager=True, dtype=pl.Int32)).to_numpy()


def matrix_of(rows: np.ndarray, columns: np.ndarray, height: int, width: int) -> Csr:
    """With ones for values, also where a pair is there again."""
    values = np.ones(len(rows), np.float32)
    return to_csr(rows.astype(np.int32), columns.astype(np.int32), values, height, width, "last")[0]


class Exam:
    """users: int[n], ids; had, truth: [n, items], by the ids of items, what each had before and what is new to him."""

    def __init__(self, before: Log, after: Log) -> None:
        height, width = (int(max(x.max(), y.max())) + 1 for x, y in zip(before, after, strict=True))
        had = matrix_of(*before, height, width)
        old, late = (row_numbers(m.indptr) * width + m.indices for m in (had, matrix_of(*after, height, width)))
        users, items = np.divmod(np.setdiff1d(late, old, assume_unique=True), width)
        self.users, rows = np.unique(users, return_inverse=True)
        self.truth = matrix_of(rows, items, len(self.users), width)
        self.had = take_rows(had, self.users)

    def recall(self, model: Factors, backend: Kernels) -> float:
        nums = numbers_in(model.user_ids, self.users)
        truth = Truth(self._known(self.truth, model), np.diff(self.truth.indptr))
        judge = RankingQuality(K, model.item_counts, len(model.user_ids))
        audience = Audience(nums, denied=self._known(self.had, model))
        for block in recommend(model, audience, Catalogue(), ScoreConfig(k=K), backend):
            judge.add(block.items, truth.rows(np.arange(block.start, block.start + len(block.items))))
        return judge.result()[f"recall@{K}"]

    def _known(self, matrix: Csr, model: Factors) -> Csr:
        """Its entries of items that the model knows, by the model's numbers."""
        rows, columns = row_numbers(matrix.indptr), numbers_in(model.item_ids, matrix.indices)
        known = columns >= 0
        return matrix_of(rows[known], columns[known], len(self.users), len(model.item_ids))


def numbers_in(ids: Ids, wanted: np.ndarray) -> np.ndarray:
    """int64[n], of ids in a model, whatever its order; -1 for those that it does not know."""
    numbers = np.full(max(int(ids.values.max(initial=-1)), int(wanted.max(initial=-1))) + 1, -1)
    numbers[ids.values] = np.arange(len(ids))
    found: np.ndarray = numbers[wanted]
    return found


def contestants(both: Interactions, config: FactorizeConfig, backend: Kernels) -> dict[str, Contestant]:
    """both: the base's interactions and the new ones; only those who train from scratch may know of them."""

    def stale(base: Factors, new: Interactions) -> tuple[Factors, float]:
        return base, 0.0

    def retrain(base: Factors, new: Interactions) -> tuple[Factors, float]:
        return factorize(both, config, backend)[0], 1.0

    def popular(base: Factors, new: Interactions) -> tuple[Factors, float]:
        return factorize(both, FactorizeConfig(solver="pop"), backend)[0], 0.0

    adapted = {
        name: adapters(
            [FinetuneConfig(**{"seed": config.seed, **one}) for one in (flags if isinstance(flags, list) else [flags])],
            backend,
        )
        for name, flags in ADAPTERS.items()
    }
    return {"stale": stale, "retrain": retrain, "popular": popular, **adapted}


def adapters(configs: list[FinetuneConfig], backend: Kernels) -> Contestant:
    def adapted(base: Factors, new: Interactions) -> tuple[list[Adapter], float]:
        deltas, trained, total = list[Adapter](), 0, 0
        model = base
        for config in configs:
            model = apply(model, deltas[-1]) if deltas else base
            all_ = io.continue_ids(new, model, "new")
            data = NewData(all_.matrix, all_.matrix, len(all_.user_ids), len(all_.item_ids))
            task = Task(model, data, all_.user_ids, all_.item_ids, ("base",), Provenance())
            delta, outcome = finetune(task, config, backend)
            deltas.append(delta)
            trained, total = trained + outcome.trained, total or outcome.total
        return deltas, trained / total

    return adapted


def timed(contestant: Contestant, base: Factors, new: Interactions, repeats: int) -> tuple[Any, float, Any]:
    """What it makes, the share that it trained, and the medians of its seconds and of those of all cores."""
    seconds = list[tuple[float, float]]()
    while len(seconds) < repeats and sum(wall for wall, _ in seconds) < LONG:
        began, worked = time.perf_counter(), time.process_time()
        made, share = contestant(base, new)
        seconds.append((time.perf_counter() - began, time.process_time() - worked))
    return made, share, np.median(seconds, axis=0)


def kept(base: Factors, model: Factors, backend: Kernels) -> float:
    """recall_capped@20 of what users of the base had, nothing left out; of a model that has the base's numbers."""
    assert base.seen is not None
    users = np.flatnonzero(np.diff(base.seen.indptr))
    old = Validation(no_pairs(len(users)), take_rows(base.seen, users), FORGETTING, 0, backend)
    tables = Tables(model.P[:], model.item_factors(), model.b_u, model.b_v, np.float32(model.b))
    return Judge(users, old).of_tables(tables)


def read(path: Path, shuffled: bool) -> Log:
    """Interactions of the same moment stay in the order of the file; shuffled: in none."""
    if shuffled:
        table = pl.read_parquet(path, columns=["user", "item"]).sample(fraction=1.0, shuffle=True, seed=0)
    else:
        table = pl.read_parquet(path, columns=["user", "item", "timestamp"]).sort("timestamp", maintain_order=True)
    return Log.of(table["user"], table["item"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--interactions", type=Path, help="a Parquet file")
    source.add_argument("--synthetic", type=parse_size, default="100kx10kx7M", metavar="USERSxITEMSxPAIRS")
    parser.add_argument("--shuffle", action="store_true", help="interactions in no order: as if nothing drifted")
    parser.add_argument("--only", help="some contestants, with commas; stale and retrain are always there")
    parser.add_argument("--drift", type=float, default=1.0, help="of synthetic tastes; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    began = time.perf_counter()
    if arguments.interactions:
        log = read(arguments.interactions, arguments.shuffle)
    else:
        made = drifting(arguments.synthetic, arguments.seed, arguments.threads, arguments.drift)
        log = Log.of(pl.Series(made.users), pl.Series(made.items))
    print(f"{len(log.users)} interactions, made or read in {time.perf_counter() - began:.1f} s", flush=True)
    now = sum(PARTS)
    first, new, both = log.part(0, PARTS[0]), log.part(PARTS[0], now), log.part(0, now)
    exam = Exam(both, log.part(now, 1))
    named = {"base": first.interactions(), "new": new.interactions(), "both": both.interactions()}
    for name, part in named.items():
        print(f"{name:5} {len(part.user_ids):8} users {len(part.item_ids):8} items {len(part.matrix.indices):10} pairs")
    unknown = np.count_nonzero(exam.users >= len(named["both"].user_ids))
    print(f"exam  {len(exam.users):8} users, {unknown} of them new; {len(exam.truth.indices)} pairs", flush=True)
    config = FactorizeConfig(rank=arguments.rank, seed=arguments.seed)
    with kernels.load("cpu", arguments.threads) as backend:
        base, _ = factorize(named["base"], config, backend)
        entrants = contestants(named["both"], config, backend)
        results = {}
        wanted = {"stale", "retrain", *(arguments.only.split(",") if arguments.only else entrants)}
        for name, contestant in entrants.items():
            if name not in wanted:
                continue
            try:
                made, share, seconds = timed(contestant, base, named["new"], arguments.repeats)
            except UsageError as error:  # of so small a base
                print(f"{name}: {error}")
                continue
            model = made if isinstance(made, Factors) else functools.reduce(apply, made, base)
            old = np.nan if made is model and model is not base else kept(base, model, backend)
            results[name] = exam.recall(model, backend), old, share, seconds
    (low, *_), (high, _, _, whole) = results["stale"], results["retrain"]
    most = (high - low) or np.nan
    print(
        f"{'contestant':18} recall@{K}    gain     old  trained  seconds  of retrain's     cores'  of retrain's   "
        f"(retrain/stale: {high / low - 1:+.1%})"
    )
    for name, (recall, old, share, seconds) in results.items():
        gain, (wall, cores), (less, less_cores) = (recall - low) / most, seconds, seconds / whole
        times = f"{wall:8.2f} {less:13.1%} {cores:10.2f} {less_cores:13.1%}"
        print(f"{name:18} {recall:9.4f} {gain:7.1%} {old:7.4f} {share:8.2%} {times}")


if __name__ == "__main__":
    main()
