"""What the machine can do at best, measured in the same run, and what it is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from recli import __version__

REPEATS = 5
GEMM_SIZE = 1536
COPY_BYTES = 1 << 27  # more than caches hold
USUAL_CACHE = 32 << 20  # where the system does not say
PACKAGES = (
    *("numpy", "scipy", "polars", "numba", "implicit", "faiss-cpu", "scikit-learn", "lenskit", "pandas"),
    *("matplotlib", "cupy-cuda12x"),
)


class Machine(NamedTuple):
    """gemm_gflops: float32 matrix product, gflop/s; copy_gbs: GB/s, read and written bytes together; both the best of
    REPEATS at this number of threads. cache_bytes: of the last level.
    """

    cpu: str
    cores: int
    threads: int
    cache_bytes: int
    gemm_gflops: float
    copy_gbs: float


def measure(threads: int) -> Machine:
    return Machine(_cpu(), os.cpu_count() or 1, threads, _cache(), _gemm(threads) / 1e9, _copy(threads) / 1e9)


def environment() -> dict[str, str]:
    """Versions: of recli, Python, the system, and the libraries that are installed."""
    found = {"recli": __version__, "python": platform.python_version(), "system": platform.system()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _best(work: Callable[[], object]) -> float:
    """Seconds, of REPEATS, after one that does not count."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _gemm(threads: int) -> float:
    A, B = np.random.default_rng(0).standard_normal((2, GEMM_SIZE, GEMM_SIZE), np.float32)
    C = np.empty_like(A)
    with threadpool_limits(threads):
        return 2 * GEMM_SIZE**3 / _best(lambda: np.matmul(A, B, out=C))


def _copy(threads: int) -> float:
    source, target = np.ones(COPY_BYTES // 8), np.ones(COPY_BYTES // 8)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        return 2 * COPY_BYTES / _best(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _cache() -> int:
    sizes = []
    for level in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        found = re.fullmatch(r"(\d+)([KM]?)", level.read_text().strip())
        if found:
            sizes.append(int(found[1]) * {"": 1, "K": 1024, "M": 1 << 20}[found[2]])
    return max(sizes, default=USUAL_CACHE)
