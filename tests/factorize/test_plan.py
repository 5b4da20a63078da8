"""Estimates grow with the job, and bound what it takes in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recli.config import FactorizeConfig
from recli.factorize import Plan, estimate, factorize
from recli.io import write_npz
from recli.kernels import load
from tests.factorize.data import interactions, planted

JOB = {"users": 10_000, "items": 3_000, "pairs": 500_000, "threads": 2}


def plan(**changes: Any) -> Plan:
    sizes = {name: changes.pop(name, value) for name, value in JOB.items()}
    return estimate(FactorizeConfig(**changes), **sizes)


@pytest.mark.parametrize(
    ("more", "grows"),
    [
        ({"users": 20_000}, {"seconds", "bytes", "output_bytes"}),
        ({"items": 6_000}, {"seconds", "bytes", "output_bytes"}),
        ({"pairs": 1_000_000}, {"seconds", "bytes", "output_bytes"}),
        ({"rank": 128}, {"seconds", "bytes", "output_bytes"}),
        ({"iterations": 16}, {"seconds"}),
        ({"threads": 1}, {"seconds"}),
    ],
    ids=lambda value: "-".join(map(str, sorted(value))),  # sets have no order that xdist's workers share
)
def test_a_larger_job_takes_more(more: dict[str, int], grows: set[str]) -> None:
    small, large = plan()._asdict(), plan(**more)._asdict()
    assert {name for name in small if large[name] > small[name]} == grows
    assert all(large[name] >= small[name] for name in small)


def test_popularity_takes_no_factors() -> None:
    assert plan(solver="pop", rank=16_384) == plan(solver="pop", rank=1)
    assert plan(solver="pop").seconds == 0
    assert plan(solver="pop").output_bytes < plan(rank=1).output_bytes


@pytest.mark.parametrize("seen", [True, False])
def test_the_output_is_about_as_large_as_said(tmp_path: Any, seen: bool) -> None:
    dense = planted(800, 300, each=20)
    config = FactorizeConfig(rank=32, iterations=1, seen=seen)
    pairs = int(np.count_nonzero(~np.isnan(dense)))
    with load("reference", 1) as kernels:
        factors, _ = factorize(interactions(dense), config, kernels)
    with open(tmp_path / "model.npz", "w+b") as file:
        write_npz(factors, file)
        size = file.tell()
    assert size == pytest.approx(estimate(config, 800, 300, pairs, 1).output_bytes, rel=0.05)
