"""What holds for all heats of one bench."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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

    def iteration_share(self, solver: str, users: int, items: int, pairs: int, rank: int, seconds: float) -> float:
        """The share of the roofline that iterations of so many seconds reach, of a solver in roofline.STEPS."""
        work = roofline.als_iteration(solver, users, items, pairs, rank, self.machine.cache_bytes)
        return work.floor(self.machine) / seconds
