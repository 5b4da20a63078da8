"""Items that nobody has yet, recommended by their attributes: recall@20 and ndcg@20 against popularity and content.

    python benchmarks/cold.py INTERACTIONS ITEMS [--spec spec.toml] [--rank 64] [--folds 5]

Items are put into folds at random; in turn, all interactions of a fold's items are taken away, `recli featurize` and
ials learn from the others, the closed form of `recli finetune --adapter features` maps the attributes of warm items to
their factors (statistics of interactions are left out), and each user who has some of the fold's items gets a list of
those items alone, or of the full catalogue without what the user has. Every interaction counts as relevant. Against it:

    content     sum over the user's items of the cosine of attributes
    foretold    popularity as a ridge regression on the same attributes foretells it, log(1 + count): all that can be
                known of the popularity of an item without interactions
    oracle      popularity as it will turn out, counted in what was taken away: nobody can know it
    random      any order

How strong the ridge is, and how much popular items weigh, is chosen by ndcg@20 on warm items that are taken to be cold:
by the adapter itself, and for foretold on items taken away from the training part in the same way. Intervals are 95% of
a bootstrap over users, paired for differences.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from recli import io, kernels
from recli.artifacts import Features, Interactions
from recli.cli.main import main as recli
from recli.config import FactorizeConfig
from recli.factorize import factorize
from recli.finetune.features import Attributes, learned_map, ridge, stretched
from recli.ids import Csr
from recli.kernels.spec import Kernels
from recli.metrics import Truth, per_user

K, DRAWS, BLOCK = 20, 2000, 1024
REG, POWER = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0), (0.0, 0.5, 1.0)
METRICS = ("recall", "ndcg")
Point = tuple[float, float]  # of REG x POWER


@dataclass
class Task:
    """Cold items are those from number `warm` on. P float32[U, r], Q float32[warm, r]; seen: scipy [U, items]; truth:
    the same of what was taken away.
    """

    attributes: Attributes
    P: np.ndarray
    Q: np.ndarray
    seen: sp.csr_array
    truth: sp.csr_array

    @property
    def warm(self) -> int:
        return len(self.Q)

    def mapped(self, target: np.ndarray, point: Point) -> np.ndarray:
        """What a ridge regression on the attributes makes of all items, learned from the warm ones' float[warm, m]."""
        reg, power = point
        weights = self.seen.sum(axis=0)[: self.warm] ** power
        every = matrix_of(self.attributes)
        return every @ ridge(every[: self.warm], target, weights, reg)

    def item_factors(self, backend: Kernels) -> np.ndarray:
        """As `recli finetune --adapter features` has them."""
        had = self.seen[:, : self.warm].T.tocsr()
        matrix = Csr(had.indptr.astype(np.int64), had.indices.astype(np.int32), had.data.astype(np.float32))
        counts = self.counts().astype(np.int64)
        W, point = learned_map(self.attributes, self.Q, counts, self.P, matrix, None, 0, backend)
        print(f"  chosen: {point}", flush=True)
        return np.vstack([self.Q, self.attributes.times(stretched(W, self.attributes, self.Q))[self.warm :]])

    def counts(self) -> np.ndarray:
        return np.asarray(self.seen.sum(axis=0), np.float64)[: self.warm]


def prepare(table: pl.DataFrame, items: Path, cold: pl.Series, spec: str | None, rank: int, backend: Kernels) -> Task:
    """Features and factors of all but the cold items. table: columns user, item."""
    is_cold = pl.col("item").is_in(cold.implode())
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "train.parquet"))
        table.filter(~is_cold).write_parquet(path)
        flags = ["--items", str(items), "-o", f"{folder}/features", "-q", *(["--spec", spec] if spec else [])]
        assert recli(["featurize", path, *flags]) == 0
        interactions = read(f"{folder}/features/interactions.npz", Interactions)
        features = read(f"{folder}/features/items.npz", Features)
    model, _ = factorize(interactions, FactorizeConfig(rank=rank), backend)
    ids, users = features.ids.values, interactions.user_ids.values
    taken = table.filter(
        is_cold & pl.col("user").is_in(pl.Series(users).implode()) & pl.col("item").is_in(pl.Series(ids).implode())
    )
    order = np.argsort(ids)
    rows = np.searchsorted(users, taken["user"].to_numpy())
    columns = order[np.searchsorted(ids, taken["item"].to_numpy(), sorter=order)]
    shape = len(users), len(ids)
    matrix = interactions.matrix
    return Task(
        attributes=Attributes.of(features, np.arange(len(ids))),
        P=model.P,
        Q=model.item_factors(),
        seen=scipy_csr(matrix._replace(values=np.ones(len(matrix.indices), np.float32)), len(ids)),
        truth=sp.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape),
    )


def read(path: str, kind: Any) -> Any:
    with io.source([path]) as found:
        return io.read_artifact(found, kind)


def matrix_of(attributes: Attributes) -> sp.csr_array:
    return scipy_csr(attributes.matrix, attributes.columns)


def scipy_csr(matrix: Csr, columns: int) -> sp.csr_array:
    return sp.csr_array((matrix.values, matrix.indices, matrix.indptr), shape=(len(matrix.indptr) - 1, columns))


class Method:
    """scores: of users' rows and the task, float[n, items]."""

    def __init__(self, task: Task, name: str, point: Point, backend: Kernels) -> None:
        self.task, self.name = task, name
        rng = np.random.default_rng(0)
        popularity = np.append(task.counts(), np.zeros(len(task.attributes.there) - task.warm))
        if name == "features":
            self.factors = task.item_factors(backend)
        elif name == "content":
            both = matrix_of(task.attributes)[:, :-1]
            norms = np.sqrt(both.multiply(both).sum(axis=1))
            self.unit = sp.diags_array(1 / np.maximum(norms, 1e-12)) @ both
        elif name == "oracle":
            popularity[task.warm :] = task.truth.sum(axis=0)[task.warm :]
        elif name == "foretold":
            popularity[task.warm :] = np.expm1(task.mapped(np.log1p(task.counts())[:, None], point)[task.warm :, 0])
        else:
            popularity = rng.random(len(popularity))
        self.popularity = popularity

    def scores(self, users: np.ndarray) -> np.ndarray:
        if self.name == "features":
            return self.task.P[users] @ self.factors.T
        if self.name == "content":
            return ((self.task.seen[users] @ self.unit) @ self.unit.T).toarray()
        return np.tile(self.popularity, (len(users), 1))


def judge(method: Method, users: np.ndarray, *, full: bool) -> np.ndarray:
    """float64[users, METRICS]. full: against the warm items, too, but for those that the user has."""
    task, found = method.task, []
    for start in range(0, len(users), BLOCK):
        block = users[start : start + BLOCK]
        scores = method.scores(block)
        if full:
            scores[task.seen[block].nonzero()] = -np.inf
        else:
            scores[:, : task.warm] = -np.inf
        lists = np.argsort(-scores, axis=1, kind="stable")[:, :K].astype(np.int32)
        part = task.truth[block]
        truth = Truth(Csr(part.indptr.astype(np.int64), part.indices, part.data), np.diff(part.indptr))
        metrics = per_user(lists, truth)
        found.append(np.stack([metrics[name] for name in METRICS], axis=1))
    return np.concatenate(found)


def with_truth(task: Task) -> np.ndarray:
    return np.flatnonzero(np.diff(task.truth.indptr))


def best_point(task: Task, name: str, backend: Kernels) -> tuple[Point, float]:
    """And its ndcg@K."""
    users = with_truth(task)
    found = {
        point: float(judge(Method(task, name, point, backend), users, full=False)[:, 1].mean())
        for point in itertools.product(REG, POWER)
    }
    return max(found.items(), key=lambda item: item[1])


def interval(values: np.ndarray, draws: np.ndarray) -> str:
    """values: float64[users, 2], of sums and how many; draws: int[DRAWS, users]."""
    low, high = np.quantile(draws @ values[:, 0] / (draws @ values[:, 1]), [0.025, 0.975])
    return f"{values[:, 0].sum() / values[:, 1].sum():+.4f} [{low:+.4f}, {high:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("items", type=Path)
    parser.add_argument("--spec")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    table = pl.read_parquet(arguments.interactions)
    known = table["item"].unique().sort()
    everyone = table["user"].unique().sort()
    rng = np.random.default_rng(0)
    fold = rng.integers(arguments.folds, size=len(known))
    names = ("features", "content", "foretold", "oracle", "random")
    sums = {(name, full): np.zeros((len(everyone), 1 + len(METRICS))) for name in names for full in (False, True)}
    with kernels.load("cpu", arguments.threads) as backend:
        settings = arguments.items, arguments.spec, arguments.rank, backend
        for at in range(arguments.folds):
            cold, warm = known.filter(fold == at), known.filter(fold != at)
            train = table.filter(~pl.col("item").is_in(cold.implode()))
            apart = warm.filter(rng.integers(arguments.folds, size=len(warm)) == 0)
            inner = prepare(train, settings[0], apart, *settings[1:])
            points = {name: best_point(inner, name, backend) for name in ("foretold",)}
            print(f"fold {at}: {len(cold)} items; inner (reg, power), ndcg@{K}: {points}", flush=True)
            task = prepare(table, settings[0], cold, *settings[1:])
            users = with_truth(task)
            for name in names:
                method = Method(task, name, points.get(name, ((0.0, 0.0), 0.0))[0], backend)
                for full in (False, True):
                    sums[name, full][users, :-1] += judge(method, users, full=full)
                    sums[name, full][users, -1] += 1
    draws = rng.multinomial(len(everyone), np.full(len(everyone), 1 / len(everyone)), size=DRAWS)
    for full, metric in itertools.product((False, True), range(len(METRICS))):
        print(f"{METRICS[metric]}@{K}, {'full catalogue' if full else 'cold items alone'}; ridge less the other")
        ours = sums["features", full]
        for name in names:
            theirs = sums[name, full]
            own = interval(theirs[:, [metric, -1]], draws)
            gap = interval(np.stack([ours[:, metric] - theirs[:, metric], ours[:, -1]], axis=1), draws)
            print(f"  {name:9} {own}" + ("" if name == "features" else f"   {gap}"))


if __name__ == "__main__":
    main()
