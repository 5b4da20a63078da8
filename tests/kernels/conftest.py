"""The backends that every kernel test runs on: another one joins by its name. The GPU's runs on a GPU where there is
one, else on a CPU, through the shim.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from recli.kernels import choose, load
from recli.kernels.spec import Kernels

# What users run; `reference` is the oracle, and is held to the closed forms too. FAR: a GPU without room for tables and
# matrices, which travel from the host in small parts.
FAR = "gpu far"
FAST = ("cpu", "gpu", FAR)

if choose("auto")[0] == "cpu":
    sys.path.insert(0, str(Path(__file__).parent / "shim"))


@pytest.fixture(scope="session", params=("reference", *FAST))
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with backend(request.param) as kernels:
        yield kernels


@pytest.fixture(scope="session", params=FAST)
def fast(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """A backend that iterates, where `reference` solves exactly."""
    with backend(request.param) as kernels:
        yield kernels


@contextmanager
def backend(name: str) -> Iterator[Any]:
    with load(name.split()[0], 2) as kernels, threadpool_limits(1):  # small products are slower on more
        if name == FAR:
            from recli.kernels.gpu.memory import Shares

            kernels._cuda.shares = Shares(kept=0, block_bytes=10_000, part=2e-6, part_bytes=8000)  # type: ignore[attr-defined]
        yield kernels
