"""The backends that every kernel test runs on: another one joins by its name. The GPU's runs on a GPU where there is
one, else on a CPU, through the shim.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from recli.kernels import choose, load
from recli.kernels.spec import Kernels

FAST = ("cpu", "gpu")  # what users run; `reference` is the oracle, and is held to the closed forms too

if choose("auto")[0] == "cpu":
    sys.path.insert(0, str(Path(__file__).parent / "shim"))


@pytest.fixture(scope="session", params=("reference", *FAST))
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 2) as backend, threadpool_limits(1):  # small products are slower on more
        yield backend


@pytest.fixture(scope="session", params=FAST)
def fast(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """A backend that iterates, where `reference` solves exactly."""
    with load(request.param, 2) as backend, threadpool_limits(1):  # small products are slower on more
        yield backend
