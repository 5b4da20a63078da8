"""One bench: its heats one after the other, and what their rows come to together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.bench.compare import paired_difference
from recli.bench.conditions import Conditions
from recli.bench.contest import Entry, Heat, missing
from recli.bench.contestants import CONTESTANTS, RACES
from recli.bench.data import Data
from recli.bench.quality import COMPARED, examine
from recli.config import BenchConfig
from recli.factorize import factorize

PEERS_OF = {"ials": ("implicit", "lenskit"), "als": ("lenskit",), "svd": (), "pop": ()}


@dataclasses.dataclass(frozen=True)
class Heading:
    """One heat to be: about is what its rows have in common."""

    race: str
    about: dict[str, Any]
    entries: tuple[Entry, ...]


def headings(
    config: BenchConfig, peers: Sequence[str], devices: Sequence[str], races: Sequence[str], *, with_table: bool
) -> list[Heading]:
    """The heats of the races asked for, in order. with_table: is there a file to index?"""
    found: list[Heading] = []

    def add(race: str, about: dict[str, Any], names: Sequence[str], on: Sequence[str]) -> None:
        entries = [Entry("recli", {"race": race, **about, "device": device}) for device in on]
        for name in names:
            if name in peers and race in CONTESTANTS[name].races:
                entries.append(Entry(name, {"race": race, **about, "device": "cpu"}, status=missing(name) or "ok"))
        found.append(Heading(race, about, tuple(entries)))

    if "index" in races and with_table:
        add("index", {}, ("pandas", "lenskit"), ("cpu",))
    for solver in config.solvers if "train" in races else ():
        for rank in config.ranks if solver != "pop" else (0,):
            add("train", {"solver": solver, "rank": rank}, PEERS_OF[solver], devices)
    for rank in config.ranks:
        if "objective" in races and "ials" in config.solvers and "implicit" in peers:
            add("objective", {"solver": "ials", "rank": rank}, ("implicit",), ("cpu",))
        if "svd" in races and "svd" in config.solvers:
            add("svd", {"solver": "svd", "rank": rank}, ("scipy", "sklearn"), ("cpu",))
        for k in config.ks if "topk" in races else ():
            add("topk", {"solver": "ials", "rank": rank, "k": k}, ("implicit", "faiss", "product"), devices)
    return sorted(found, key=lambda heading: RACES.index(heading.race))


class Bench:
    """A race's function gets it, and a heading, and gives the rows."""

    def __init__(self, conditions: Conditions, data: Data) -> None:
        self.conditions, self.data, self.config = conditions, data, conditions.config
        self._models: dict[int, tuple[Any, Any]] = {}  # rank -> rows of users and items, by ials
        self._judged: list[tuple[dict[str, Any], dict[str, NDArray[np.float64]]]] = []  # a row, its users' metrics

    def heat(self, race: str, entries: Sequence[Entry], settings: dict[str, Any]) -> Heat:
        shared = {"shape": list(self.data.shape), "seed": self.config.seed, **settings}
        own = [{**shared, "device": entry.about.get("device", "cpu")} for entry in entries]
        for entry, each in zip(entries, own, strict=True):
            entry.settings = each
        return self.conditions.heat(race, entries)

    def rows(self, headings: Sequence[Heading], run: dict[str, RunRace]) -> Iterator[dict[str, Any]]:
        """The rows of all heats, in order, with their ratios to recli's first row in the same heat."""
        for heading in headings:
            rows = run[heading.race](self, heading)
            own = next((row for row in rows if row["contestant"] == "recli" and row["status"] == "ok"), None)
            for row in rows:
                if own and row["status"] == "ok":
                    row["ratio"] = row["seconds"] / own["seconds"]
                    row["memory_ratio"] = row["peak_rss_bytes"] / own["peak_rss_bytes"]
            yield from rows

    def judge(self, row: dict[str, Any], model: Factors) -> None:
        """Adds the model's quality to its row."""
        metrics, each = examine(model, self.data.exam, self.config.ks, self.conditions.kernels)
        row.update(metrics)
        self._judged.append((row, each))

    def compare(self) -> None:
        """To each row with a quality, how it differs from recli's best (by ndcg at the first k), user by user."""
        k = self.config.ks[0]
        own = [(row, each) for row, each in self._judged if row["contestant"] == "recli"]
        if not own:
            return
        reference, ours = max(own, key=lambda judged: float(judged[0][f"ndcg@{k}"]))
        reference["reference"] = True
        for row, each in self._judged:
            for metric in (f"{name}@{k}" for name in COMPARED) if row is not reference else ():
                difference = paired_difference(each[metric], ours[metric], self.config.seed)
                row |= {f"{metric}_difference_{part}": value for part, value in difference._asdict().items()}

    def keep(self, rank: int, model: Factors) -> None:
        """A model of recli's ials at its defaults."""
        self._models[rank] = model.user_rows(slice(None)), model.item_rows()

    def factors(self, rank: int) -> tuple[Any, Any]:
        """User and item rows of recli's ials at its defaults: what the race for lists is about."""
        if rank not in self._models:
            config = self.config.training("ials", rank)
            self.keep(rank, factorize(self.data.train, config, self.conditions.kernels)[0])
        return self._models[rank]


RunRace = Callable[[Bench, Heading], list[dict[str, Any]]]
