"""How recli's time and memory grow with the interactions: the same catalogue, ever more pairs, a process for each."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recli.artifacts import Interactions
from recli.bench.conditions import Conditions
from recli.bench.contest import Entry
from recli.bench.problem import save
from recli.bench.synthetic import Size, check_density, parse_count, synthetic
from recli.config import BenchConfig
from recli.errors import UsageError
from recli.ids import Ids

CATALOGUE = (100_000, 10_000)  # users and items, unless --synthetic says


def parse_scale(text: str, users: int, items: int) -> list[Size]:
    """Of --scale 1M,3M,10M, ascending. Raises UsageError."""
    counts = [parse_count(part) for part in text.split(",")]
    if len(counts) < 2 or not all(counts) or len(set(counts)) < len(counts):
        raise UsageError(f"--scale {text}: expected numbers of interactions, two at least, as 1M,3M,10M")
    return [
        check_density(Size(users, items, count), f"--scale {text}") for count in sorted(map(int, filter(None, counts)))
    ]


def scale_rows(conditions: Conditions, sizes: Sequence[Size]) -> list[dict[str, Any]]:
    """A row a size: the first solver of --solver, the first rank, everything else at its defaults."""
    return [_row(conditions, size) for size in sizes]


def heading(config: BenchConfig, device: str, size: Size) -> dict[str, Any]:
    """What tells a size's row from others."""
    about = {"race": "scale", "solver": config.solvers[0], "rank": config.ranks[0], "device": device}
    return {**about, "size": str(size)}


def _row(conditions: Conditions, size: Size) -> dict[str, Any]:
    about = {**heading(conditions.config, conditions.devices[0], size), **size._asdict()}
    with tempfile.TemporaryDirectory(prefix="scale-", dir=conditions.folder) as folder:
        ids = Ids(np.arange(size.users)), Ids(np.arange(size.items))
        matrix = synthetic(size, conditions.config.seed, conditions.threads)
        data = Interactions(matrix=matrix, user_ids=ids[0], item_ids=ids[1])
        save(Path(folder, "train_artifact"), data.arrays())
        del matrix, data  # the process that trains may need all the memory there is
        settings = {
            "config": dataclasses.asdict(conditions.config.training(about["solver"], about["rank"])),
            "device": conditions.devices[0],
            "seed": conditions.config.seed,
        }
        entry = Entry("recli", about, settings)
        with conditions.heat("train", [entry], Path(folder)) as heat:
            heat.measure(conditions.config.repeats)
        row = entry.row()
    if entry.is_ok:
        row |= conditions.iterations(entry, *size)
    return row


def exponents(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The powers of the pairs that seconds, and bytes beyond what a process takes before it has data, grow with; and of
    seconds between the two largest sizes, where fixed costs no longer flatten the line.
    """
    done = [row for row in rows if row["status"] == "ok"]
    if len(done) < 2:
        return {}
    pairs, seconds = [row["pairs"] for row in done], [row["seconds"] for row in done]
    found = {"seconds": exponent(pairs, seconds), "seconds_at_the_end": exponent(pairs[-2:], seconds[-2:])}
    grown = [row["peak_rss_bytes"] - row["base_rss_bytes"] for row in done]
    return {**found, "memory": exponent(pairs, grown)} if min(grown) > 0 else found


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log values over log sizes, by least squares: e in values = c sizes^e. All positive, two at least."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
