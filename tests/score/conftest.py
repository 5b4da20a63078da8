"""The backends that scoring is tested on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recli.kernels import load
from recli.kernels.spec import Kernels


@pytest.fixture(scope="module", params=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 2) as backend:
        yield backend
