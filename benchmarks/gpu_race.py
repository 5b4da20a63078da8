"""Contestants in turns, for gpu.py and its stages."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from gpu_peers import Work

from recli.bench.machine import Machine
from recli.bench.roofline import Work as Cost
from recli.bench.synthetic import synthetic
from recli.config import FactorizeConfig
from recli.factorize.ials import Ials
from recli.factorize.model import Data
from recli.kernels.spec import Kernels

SECONDS = 20.0  # in which a stage's contestants begin a turn, at most: they share them
WARM = 2  # iterations before one is timed


class Bench:
    """What stages share: the data, the backend, and rows of results."""

    def __init__(self, arguments: argparse.Namespace, backend: Kernels) -> None:
        self.size, self.k, self.threads, self.repeats = (
            arguments.size,
            arguments.k,
            arguments.threads,
            arguments.repeats,
        )
        self.backend, self.main = backend, arguments.rank[0]
        self.is_large = self.size.pairs >= 1_000_000
        self.matrix = synthetic(self.size, 0, arguments.threads)
        self.rows: list[dict[str, Any]] = []
        self.until = time.perf_counter() + arguments.budget
        self.solver = cache(self._solver)

    def _solver(self, rank: int) -> tuple[Ials, dict[str, np.ndarray]]:
        """And its factors P and Q after WARM iterations."""
        solver = Ials(Data(matrix=self.matrix, items=self.size.items), FactorizeConfig(rank=rank), self.backend)
        for iteration in range(WARM):
            solver.iterate(iteration)
        return solver, solver.state()

    def clock(self) -> float:
        """The time, once the device has done what it was given."""
        self.backend.host(self.backend.zeros(1, 1))
        return time.perf_counter()

    def timed(self, work: Callable[[], object], before: Callable[[], object] = lambda: None) -> Work:
        def run() -> float:
            before()
            began = self.clock()
            work()
            return self.clock() - began

        return run

    def race(self, stage: str, makers: dict[str, Callable[[], Work]], **fields: Any) -> dict[str, dict[str, Any]]:
        """A row for each contestant that these make, in turns."""
        rows: dict[str, dict[str, Any]] = {}
        works: dict[str, Work] = {}
        taken: dict[str, list[float]] = {}
        until = min(time.perf_counter() + SECONDS, self.until)
        for name, make in makers.items():
            rows[name] = {"stage": stage, "contestant": name, **fields, "status": "ok"}
            began = time.perf_counter()
            try:
                works[name] = make()
                works[name]()
                rows[name]["first_seconds"] = time.perf_counter() - began  # what is made and compiled before, too
            except Exception as error:
                works.pop(name, None)
                rows[name]["status"] = reason(error)
        for turn in range(self.repeats):
            for name in list(works):
                if turn and time.perf_counter() > until:
                    continue
                try:
                    taken.setdefault(name, []).append(works[name]())
                except Exception as error:
                    works.pop(name)
                    taken.pop(name, None)
                    rows[name]["status"] = reason(error)
        for name, each in taken.items():
            rows[name] |= {
                "seconds": float(np.median(each)), "seconds_min": min(each), "seconds_max": max(each),
                "repeats": len(each),
            }  # fmt: skip
        self.rows += rows.values()
        return rows

    def ceiling(self, name: str) -> float:
        """GB/s or TFLOP/s, of the stage `ceilings`; infinite where it was not measured."""
        return next((row["rate"] for row in self.rows if row["contestant"] == name and "rate" in row), np.inf)

    def add_fraction(self, row: dict[str, Any], cost: Cost, gemm: str) -> None:
        gflops, gbs = self.ceiling(f"gemm {gemm}") * 1e3, self.ceiling("device to device")
        if "seconds" in row and np.isfinite([gflops, gbs]).all():
            row["roofline"] = cost.floor(Machine("", 0, 0, 0, gflops, gbs)) / row["seconds"]


def reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:300]
