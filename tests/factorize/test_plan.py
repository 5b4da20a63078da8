"""Plans count the arrays of a job, and bound what it takes in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recli.config import FactorizeConfig
from recli.factorize import factorize, stored_bytes, train_bytes
from recli.factorize.plan import SCRATCH_BYTES, basis_width
from recli.io import write_npz
from recli.kernels import load
from tests.factorize.data import interactions, planted

JOB = {"users": 10_000, "items": 3_000, "pairs": 500_000}


def memory(weighted: bool = False, **changes: Any) -> int:
    sizes = {name: changes.pop(name, value) for name, value in JOB.items()}
    return train_bytes(FactorizeConfig(**changes), **sizes, weighted=weighted)


@pytest.mark.parametrize("more", [{"users": 20_000}, {"items": 6_000}, {"pairs": 1_000_000}, {"rank": 128}])
@pytest.mark.parametrize("solver", ["ials", "als"])
def test_a_larger_job_takes_more(more: dict[str, int], solver: str) -> None:
    assert memory(solver=solver, **more) > memory(solver=solver)
    sizes, config = {**JOB, **more}, FactorizeConfig(solver=solver, rank=more.get("rank", 64))
    assert stored_bytes(config, sizes["users"], sizes["items"], sizes["pairs"]) > stored_bytes(
        FactorizeConfig(solver=solver), *JOB.values()
    )
    assert memory(solver=solver, iterations=100) == memory(solver=solver)


def test_the_arrays_of_a_small_job_are_counted_as_by_hand() -> None:
    tables = 4 * (4 * 13_000 * 64)  # trained and settled, each with its padding, then on the host and rotated
    by_item, ones = 8 * 500_000, 4 * 500_000
    assert memory() - SCRATCH_BYTES == by_item + ones + tables
    assert memory(weighted=True) - SCRATCH_BYTES == by_item + 2 * ones + tables  # ones of both sides, to start with
    assert memory(loss="hu") - SCRATCH_BYTES == by_item + ones + 2 * ones + tables
    assert memory(rank=65) - SCRATCH_BYTES == by_item + ones + tables * 80 // 64
    # als: two more columns; ones of both sides, then indices and weights of 8 bytes while columns are weighed
    assert memory(solver="als") - SCRATCH_BYTES == by_item + 2 * ones + 16 * 500_000 + tables * 80 // 64
    assert memory(solver="pop") - SCRATCH_BYTES == 12 * 500_000
    assert memory(solver="svd", pairs=9_000_000) - SCRATCH_BYTES == 40 * 9_000_000  # float64 while biases are taken off
    assert memory(solver="svd", pairs=1) - SCRATCH_BYTES == 12 + max(4 * 3_000 * 512, 3 * 4 * 13_000 * 64)


def test_a_basis_is_no_wider_than_the_space() -> None:
    assert basis_width(64, 100) == 100
    assert basis_width(64, 10**6) == 512


def test_popularity_takes_no_factors() -> None:
    assert memory(solver="pop", rank=16_384) == memory(solver="pop", rank=1)
    assert stored_bytes(FactorizeConfig(solver="pop"), *JOB.values()) < stored_bytes(
        FactorizeConfig(rank=1), *JOB.values()
    )


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
    assert size == pytest.approx(stored_bytes(config, 800, 300, pairs), rel=0.05)
