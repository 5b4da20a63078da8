"""The backends that every kernel test runs on: another one joins by its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits

from recli.kernels import load
from recli.kernels.spec import Kernels

FAST = ("cpu",)  # what users run; `reference` is the oracle, and is held to the closed forms too


@pytest.fixture(scope="session", params=("reference", *FAST))
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 2) as backend, threadpool_limits(1):  # small products are slower on more
        yield backend


@pytest.fixture(scope="session", params=FAST)
def fast(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """A backend that iterates, where `reference` solves exactly."""
    with load(request.param, 2) as backend, threadpool_limits(1):  # small products are slower on more
        yield backend
