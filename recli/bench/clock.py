"""Seconds and peak memory of marked stretches of work, as seen from inside the process that does it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Self

from recli.process import peak_bytes

REFERENCES = Path("/proc/self/clear_refs")


class Clock:
    """Runs inside `with clock:`; what is between two such blocks does not count.

    seconds: of all blocks together; laps: of each; peak: the most bytes that were resident during one.
    """

    def __init__(self) -> None:
        self.laps: list[float] = []
        self.peak = 0

    @property
    def seconds(self) -> float:
        return sum(self.laps)

    def __enter__(self) -> Self:
        _forget_peak()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.laps.append(time.perf_counter() - self._began)
        self.peak = max(self.peak, peak_bytes())


def _forget_peak() -> None:
    """Where the system cannot (only Linux can), a peak is that of the whole process until then."""
    if REFERENCES.exists():
        try:
            REFERENCES.write_text("5")  # proc(5): resets VmHWM to what is resident now
        except OSError:
            return
