"""The memory of this process."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The most that was resident since this program began, or since the system was told to forget it.

    Linux' VmHWM, since getrusage's maximum begins with that of the process which started this one.
    """
    if (found := _status("VmHWM")) is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # the one unit is bytes, the other KiB


def held_bytes() -> int:
    """What is resident now; where the system does not say, the peak."""
    found = _status("VmRSS")
    return peak_bytes() if found is None else found


def _status(name: str) -> int | None:
    """Bytes, of proc(5); None where there is no such thing."""
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    return int(found[1]) * 1024 if found else None
