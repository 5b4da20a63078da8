"""Seconds are what a sample took, times how often the job does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recli.config import FactorizeConfig
from recli.factorize import pilot, train_seconds
from recli.factorize.ials import USUAL_STEPS
from recli.factorize.pilot import Costs
from recli.factorize.start import ROUNDS
from recli.ids import Csr, to_csr
from recli.kernels import load

USERS, ITEMS, PAIRS = 40, 30, 400


@pytest.fixture
def matrix() -> Csr:
    at = np.random.default_rng(0).permutation(USERS * ITEMS)[:PAIRS].astype(np.int32)
    return to_csr(at // ITEMS, at % ITEMS, np.ones(PAIRS, np.float32), USERS, ITEMS, "last")[0]


def test_the_parts_of_ials_add_up(matrix: Csr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "_costs", lambda *sizes, **more: Costs(5.0, 0.1, (0.02, 0.03)))
    monkeypatch.setattr(pilot, "PAIR_SECONDS", 0.01)
    with load("reference", 1) as kernels:
        found = train_seconds(FactorizeConfig(iterations=7), matrix, ITEMS, int(pilot.WRITTEN), kernels)
    by_user, by_item = 5 + 0.1 * (ITEMS + USERS / 2), 5 + 0.1 * (USERS + ITEMS / 2)
    iteration = by_user + by_item + PAIRS * (1 + USUAL_STEPS) * (0.02 + 0.03)  # the residual and the steps
    settling = by_user + PAIRS * 13 * 0.02
    around = 0.01 * PAIRS + 1 + 0.1 * (USERS + ITEMS) / 2
    start = ROUNDS * (PAIRS * (0.02 + 0.03) + 5 + 0.1 * ITEMS)
    assert found == pytest.approx(start + 7 * iteration + settling + around)


@pytest.mark.parametrize("solver", ["ials", "als", "svd", "pop"])
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_every_solver_is_foretold_on_every_device(
    solver: str, device: str, matrix: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pilot, "ROWS", (8, 16))
    monkeypatch.setattr(pilot, "SAMPLE", 1 << 10)
    monkeypatch.setattr(pilot, "FEWEST", 1 << 8)
    monkeypatch.setattr(pilot, "TABLE", 1 << 8)
    with load(device, 1) as kernels:
        found = train_seconds(FactorizeConfig(solver=solver, rank=4), matrix, ITEMS, 1000, kernels)
    assert 0 < found < float("inf")


def test_samples_have_rows_of_the_lengths_there_are() -> None:
    lengths = np.array([3, 0, 5, 3, 5, 0, 3])
    columns = np.arange(12, dtype=np.int32)
    sample = pilot._sample(lengths, columns, np.random.default_rng(0))
    assert sample.indptr[0] == 0
    assert sample.indptr[-1] == len(sample.indices) == len(sample.values) == 12
    found: list[Any] = np.diff(sample.indptr).tolist()
    assert set(found[:-1]) <= {0, 3, 5}  # the last one may be cut


def test_one_costly_row_is_a_sample_too() -> None:
    sample = pilot._sample(np.array([9]), np.arange(4, dtype=np.int32), np.random.default_rng(0))
    assert sample.indptr.tolist() == [0, 4]
