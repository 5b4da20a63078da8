"""Seconds and memory of marked stretches alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from recli.bench.clock import REFERENCES, Clock
from recli.process import peak_bytes

CODE = """
import numpy as np
from recli.bench.clock import Clock
from recli.process import peak_bytes
before = peak_bytes()
large = np.ones(40_000_000)  # 320 MB, off the clock
del large
clock = Clock()
with clock:
    small = np.ones(5_000_000)  # 40 MB
print(before, clock.peak, peak_bytes())
"""


def test_what_is_between_blocks_does_not_count() -> None:
    clock = Clock()
    for _ in range(3):
        with clock:
            time.sleep(0.01)
        time.sleep(0.05)
    assert len(clock.laps) == 3
    assert 0.03 <= clock.seconds == sum(clock.laps)
    assert clock.seconds < 0.15


def test_a_block_that_raises_counts_too() -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="x"), clock:
        raise ValueError("x")
    assert len(clock.laps) == 1


@pytest.mark.skipif(not REFERENCES.exists(), reason="only Linux can forget a peak")
def test_the_peak_is_that_of_the_blocks() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    before, peak, _ = map(int, done.stdout.split())
    assert before + 39e6 < peak < before + 200e6


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_a_peak_is_not_that_of_the_program_which_started_it() -> None:
    """getrusage's would be."""
    large = np.ones(60_000_000)
    code = "from recli.process import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < large.nbytes < peak_bytes()
