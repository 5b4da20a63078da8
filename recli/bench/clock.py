"""Seconds and peak memory of marked stretches of work, as seen from inside the process that does it."""

from __future__ import annotations

import re
import resource
import sys
import time
from pathlib import Path
from typing import Self

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
        self.peak = max(self.peak, peak_rss())


def peak_rss() -> int:
    """Bytes: the most that were resident since this program began, or since the peak was last forgotten.

    Linux' VmHWM, since getrusage's maximum begins with that of the process which started this one.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    if found:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _forget_peak() -> None:
    """Where the system cannot (only Linux can), a peak is that of the whole process until then."""
    if REFERENCES.exists():
        try:
            REFERENCES.write_text("5")  # proc(5): resets VmHWM to what is resident now
        except OSError:
            return
