"""What holds for all heats of one bench."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recli.bench import roofline
from recli.bench.contest import Entry, Heat
from recli.bench.machine import Machine
from recli.config import BenchConfig
from recli.kernels.spec import Kernels


@dataclass(frozen=True)
class Conditions:
    """devices: of recli's own contestants, as kernels.choose returned them. folder: for what contestants' processes
    read and write. kernels: what judges results. memory_limit: bytes that each process may have. on_run: called before
    each run with what is run.
    """

    config: BenchConfig
    devices: Sequence[str]
    threads: int
    folder: Path
    machine: Machine
    kernels: Kernels
    memory_limit: int | None = None
    on_run: Callable[[str], None] = lambda what: None

    def heat(self, race: str, entries: Sequence[Entry], folder: Path | None = None) -> Heat:
        """folder: of the data, if not the bench's."""
        return Heat(race, entries, folder or self.folder, self.threads, self.memory_limit, self.on_run)

    def iterations(self, entry: Entry, users: int, items: int, pairs: int) -> dict[str, Any]:
        """Columns: how many iterations the entry's runs took, the seconds of each, and of recli's, which share of the
        roofline they reach. None where its solver has no iterations.
        """
        count = entry.runs[-1]["iterations"]
        if not count:
            return {}
        each = statistics.median(run["seconds_per_iteration"] for run in entry.runs)
        found = {"iterations": count, "seconds_per_iteration": each}
        solver, rank = entry.about["solver"], entry.about["rank"]
        if entry.contestant == "recli" and entry.has_roofline and solver in roofline.STEPS:
            work = roofline.als_iteration(solver, users, items, pairs, rank, self.machine.cache_bytes)
            found["roofline"] = work.floor(self.machine) / each
        return found
