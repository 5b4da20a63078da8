"""The settings of each command: the only home of defaults and ranges. Field names are the flags' names."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from recli.errors import UsageError


def number(default: Any, low: float, high: float, *, above: bool = False) -> Any:
    """A numeric field with its range; `above` leaves `low` itself out."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


def choice(default: str, *names: str) -> Any:
    return field(default=default, metadata={"names": names})


def text(default: str, pattern: str, expected: str) -> Any:
    """A text field that a regular expression matches, and what it asks for in words."""
    return field(default=default, metadata={"pattern": pattern, "expected": expected})


@dataclass(frozen=True, kw_only=True)
class Config:
    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if value is not None:
                _check(f.name, value, **f.metadata)

    def semantic(self) -> dict[str, Any]:
        """What goes into an artifact's header: settings that change the result, no path and no clock."""
        return dataclasses.asdict(self)


def _check(
    name: str,
    value: Any,
    *,
    low: float = 0,
    high: float | None = None,
    above: bool = False,
    names: tuple[str, ...] = (),
    pattern: str = "",
    expected: str = "",
) -> None:
    flag = f"--{name.replace('_', '-')} {value}"
    if names and value not in names:
        raise UsageError(f"{flag}: expected one of {', '.join(names)}")
    if pattern and not re.fullmatch(pattern, value):
        raise UsageError(f"{flag}: expected {expected}")
    if high is not None and not (low < value <= high if above else low <= value <= high):
        least = f"above {_plain(low)} up" if above else f"from {_plain(low)}"
        raise UsageError(f"{flag}: expected a value {least} to {_plain(high)}")


def _plain(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


DUPLICATES = ("last", "first", "sum", "mean", "max", "error")


@dataclass(frozen=True, kw_only=True)
class ReadConfig(Config):
    """How an interaction table is read.

    columns: role -> column name, for the roles user, item, rating, timestamp; roles left out are guessed from usual
    names. weight: a column of confidence weights, or None. where: an SQL condition on the rows. duplicates: what
    becomes of several rows of one user and item: the last (by timestamp, else in the file), the first, the sum, mean or
    max of their values, or an error.
    """

    columns: dict[str, str] = field(default_factory=dict)
    weight: str | None = None
    where: str | None = None
    duplicates: str = choice("last", *DUPLICATES)
    header: bool = True
    format: str | None = None

    def semantic(self) -> dict[str, Any]:
        """Which rows and values, not how the file is laid out: the same data in another format gives the same model."""
        return {"weight": self.weight, "where": self.where, "duplicates": self.duplicates}


PROCESS_BYTES = 350_000_000  # Python, polars, numba and their code: what any job takes
UNOBSERVED_SHARE = 8.0  # alpha0 = this * density: the best of a grid on sparse and dense data alike (docs/quality.md)
REGULARIZATION = {"ials": 0.01, "als": 0.7}  # reg where none is given; both from grids (docs/quality.md)
ACTIVITY_POWER = {"ials": 1.0, "als": 0.6}  # nu where none is given
# Where none are given: ials starts near its end, als from noise. More give the same quality (docs/quality.md).
ITERATIONS = {"ials": 5, "als": 8}


@dataclass(frozen=True, kw_only=True)
class FactorizeConfig(Config):
    """See kernels/spec.py for the objectives; least_squares.py for reg and nu.

    alpha0: the weight of unobserved pairs; None gives them UNOBSERVED_SHARE times the weight of the stored ones in all.
    alpha: ratings times alpha are the confidence weights; None gives every stored pair 1, whatever its rating.
    normalize: what svd takes from the values before it factors them (factorize/svd.py); auto is bias where they differ.
    energy: svd takes the smallest rank that keeps this share of the squared values, at most `rank`. metric: of
    validation, name@k or rmse; auto is rmse for als, else ndcg@10. patience: validations without a better one, after
    which training stops. store, keep_rows, hash_users, hash_items: how the model is stored (factorize/compress.py).
    """

    solver: str = choice("ials", "ials", "als", "svd", "pop")
    rank: int = number(64, 1, 16384)
    loss: str = choice("rendle", "rendle", "hu")
    reg: float | None = number(None, 0, 1e6, above=True)
    nu: float | None = number(None, 0, 2)
    alpha: float | None = number(None, 0, 1e6, above=True)
    alpha0: float | None = number(None, 0, 1e6)
    normalize: str = choice("auto", "auto", "bias", "degree", "none")
    energy: float | None = number(None, 0, 1, above=True)
    iterations: int | None = number(None, 1, 100_000)
    tol: float = number(0.0, 0, 1)
    metric: str = text(
        "auto",
        r"auto|rmse|(recall|recall_capped|ndcg|map|hit_rate|mrr)@[1-9][0-9]{0,3}",
        "auto, rmse, or recall, recall_capped, ndcg, map, hit_rate or mrr at a length, as ndcg@10",
    )
    patience: int = number(3, 1, 100_000)
    seed: int = number(0, 0, 2**63 - 1)
    seen: bool = True
    store: str = choice("f32", "f32", "f16", "int8", "pq")
    keep_rows: bool = False
    hash_users: int | None = number(None, 1, 2**31 - 1)
    hash_items: int | None = number(None, 1, 2**31 - 1)

    @property
    def sweeps(self) -> int:
        """Iterations, of users and items, at most."""
        return self.iterations or ITERATIONS.get(self.solver, 1)


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Config):
    """max_per: column of the item table -> how many items of one value a list may have. explain: how many past items to
    name for each recommended one.
    """

    k: int = number(10, 1, 1_000_000)
    keep_seen: bool = False
    min_score: float | None = number(None, -3e38, 3e38)
    max_per: dict[str, int] = field(default_factory=dict)
    explain: int = number(0, 0, 1000)


@dataclass(frozen=True, kw_only=True)
class FeaturizeConfig(Config):
    """min_user, min_item: fewest training pairs of an id. since, until: moments, the first included and the last not.
    weights: of events, as view=1,buy=10. half_life: after which a row counts half. weighting: of the pairs, see
    featurize/weighting.py. split: see splits.py; valid_share: of what the test leaves.
    """

    min_user: int = number(1, 1, 2**31 - 1)
    min_item: int = number(1, 1, 2**31 - 1)
    since: str | None = None
    until: str | None = None
    weights: str | None = None
    half_life: str | None = None
    weighting: str = choice("none", "none", "bm25", "tfidf", "ips")
    split: str = choice("none", "none", "random", "last", "time", "users")
    test_share: float = number(0.2, 0, 0.9, above=True)
    valid_share: float = number(0.1, 0, 0.9)
    seed: int = number(0, 0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Config):
    """adapter: see finetune/. fit: closed (a regularised least-squares solution) or gradient; auto is closed where the
    adapter has such a form. rank: of lora and bilinear. trainable: the share of the model's parameters that may be
    trained; ranks, rows and widths are chosen to stay below. loss: auto is softmax, or squared where the model predicts
    ratings, or logistic for head. negatives: drawn for each pair; None: what suits the loss. sampling: where they are
    drawn from. epochs: passes over the pairs, or rounds of closed solutions. l1, l2, decay: pull what is trained
    towards nothing, that is the model towards its base; stay: the rows themselves (gradient), or how much the pairs
    that the base was learned from still count (closed). schedule: of the learning rate after warm-up. clip: the longest
    gradient of a batch. reg: of features' closed form.
    """

    adapter: str = choice("rows", "bias", "rows", "scale", "bilinear", "lora", "features", "head", "full")
    fit: str = choice("auto", "auto", "closed", "gradient")
    rank: int = number(4, 1, 16384)
    hidden: int = number(32, 1, 65536)
    trainable: float | None = number(None, 0, 1, above=True)
    loss: str = choice("auto", "auto", "squared", "logistic", "bpr", "softmax")
    negatives: int | None = number(None, 0, 10_000)
    sampling: str = choice("auto", "auto", "uniform", "popularity")
    optimizer: str = choice("adam", "sgd", "adagrad", "adam", "adamw")
    learning_rate: float | None = number(None, 0, 1e6, above=True)
    momentum: float = number(0.9, 0, 1)
    schedule: str = choice("linear", "constant", "linear", "cosine")
    warm_up: float = number(0.1, 0, 1)
    clip: float | None = number(None, 0, 1e9, above=True)
    batch: int | None = number(None, 1, 1 << 24)
    epochs: int | None = number(None, 1, 100_000)
    patience: int = number(2, 1, 100_000)
    metric: str = text(
        "auto",
        r"auto|rmse|logloss|(recall|recall_capped|ndcg|map|hit_rate|mrr)@[1-9][0-9]{0,3}",
        "auto, rmse, logloss, or recall, recall_capped, ndcg, map, hit_rate or mrr at a length, as ndcg@10",
    )
    l1: float = number(0.0, 0, 1e9)
    l2: float = number(0.0, 0, 1e9)
    decay: float = number(0.0, 0, 1e9)
    dropout: float = number(0.0, 0, 0.95)
    stay: float | None = number(None, 0, 1e9)
    reg: float | None = number(None, 0, 1e9, above=True)
    seed: int = number(0, 0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class BenchConfig(Config):
    """solver, rank, k: lists with commas, every combination of which is measured. split, test_share: see splits.py.
    repeats: timed runs of each contestant, after one to warm up. iterations: of ials and als, as in FactorizeConfig.
    """

    solver: str = text(
        "ials", r"(ials|als|svd|pop)(,(ials|als|svd|pop))*", "solvers out of ials, als, svd, pop, as ials,svd"
    )
    rank: str = text("64", r"[1-9][0-9]{0,4}(,[1-9][0-9]{0,4})*", "ranks from 1 up, as 64,128")
    k: str = text("20", r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*", "lengths of lists from 1 to 9999, as 10,100")
    split: str = choice("random", "random", "last", "time", "users")
    test_share: float = number(0.2, 0, 0.9, above=True)
    repeats: int = number(3, 1, 1000)
    iterations: int | None = number(None, 1, 100_000)
    seed: int = number(0, 0, 2**63 - 1)

    @property
    def solvers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.solver.split(",")))

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(map(int, self.rank.split(","))))

    @property
    def ks(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(map(int, self.k.split(","))))

    def training(self, solver: str, rank: int) -> FactorizeConfig:
        """What `recli factorize` would be given; everything else is its default."""
        return FactorizeConfig(solver=solver, rank=rank, iterations=self.iterations, seed=self.seed)
