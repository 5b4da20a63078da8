"""Fails where its settings say."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from recli.bench.clock import Clock
from recli.bench.problem import Problem


def train(problem: Problem) -> Callable[..., dict[str, Any]]:
    how = problem["how"]
    if how == "import":
        import nowhere_to_be_found  # type: ignore[import-not-found]  # noqa: F401
    if how == "prepare":
        raise ValueError("cannot\nprepare")

    def work(clock: Clock) -> dict[str, Any]:
        with clock:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "exit":
                print("the reason", file=sys.stderr, flush=True)
                os._exit(7)
            if how == "memory":
                return {"sum": float(np.ones(1 << 28).sum())}  # 2 GiB
            if how == "sleep":
                time.sleep(600)
            raise RuntimeError("in the work")

    return work
