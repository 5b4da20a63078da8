"""The objective of the race, by blocks, against the dense formula; and implicit's own loss."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from recli.bench import objective
from recli.bench.objective import initial, objective_value, report
from recli.config import FactorizeConfig
from recli.factorize import Data
from recli.factorize.ials import Ials
from recli.kernels import load
from tests.kernels.problems import csr

LENGTHS = [0, 3, 7, 1, 9]


@pytest.mark.parametrize("block", [1, 40, 1 << 22])
def test_it_is_the_sum_over_all_cells(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "BLOCK_NUMBERS", block)
    matrix = csr(np.random.default_rng(0), LENGTHS, 12)
    P, Q = (
        np.random.default_rng(1).standard_normal((5, 4), np.float32),
        np.random.default_rng(2).standard_normal((12, 4), np.float32),
    )
    stored = sp.csr_array((np.ones(len(matrix.indices)), matrix.indices, matrix.indptr), (5, 12)).toarray() > 0
    weights = sp.csr_array((matrix.values, matrix.indices, matrix.indptr), (5, 12)).toarray()
    s = P.astype(float) @ Q.T.astype(float)
    expected = (
        np.where(stored, (1 + 3 * weights) * (1 - s) ** 2, s**2).sum() + 0.5 * (P**2.0).sum() + 0.5 * (Q**2.0).sum()
    )
    assert objective_value(matrix, P, Q, 3, 0.5) == pytest.approx(expected, rel=1e-6)


def test_it_is_what_recli_minimises_and_reports() -> None:
    """The constant of spec.py apart, which recli adds: 11 per stored pair, of weight 1 + 10."""
    matrix = csr(np.random.default_rng(0), [3, 7, 4, 9, 6], 12)
    ones = matrix._replace(values=np.ones_like(matrix.values))
    X, Y = initial((5, 12), 4, 0)
    config = FactorizeConfig(rank=4, loss="hu", alpha0=1.0, nu=0.0, alpha=10.0, reg=5.0)
    with load("cpu", 1) as kernels:
        solver = Ials(Data(matrix=ones, items=12), config, kernels)
        solver.restore({"P": X, "Q": Y})
        values = [objective_value(ones, X, Y, 10, 5)]
        said = []
        for iteration in range(6):
            said.append(solver.iterate(iteration))
            state = solver.state()
            values.append(objective_value(ones, state["P"], state["Q"], 10, 5))
    assert values == sorted(values, reverse=True)
    for before, between, after in zip(values[:-1], said, values[1:], strict=True):
        assert after - 1e-3 <= between <= before + 1e-3  # it is told between the two half-sweeps


def test_the_start_is_the_same_for_the_same_seed() -> None:
    X, Y = initial((50, 30), 8, 3)
    again = initial((50, 30), 8, 3)
    assert (again[0] == X).all()
    assert (again[1] == Y).all()
    assert X.dtype == Y.dtype == np.float32
    assert 0 <= min(X.min(), Y.min()) <= max(X.max(), Y.max()) < 0.01


def test_an_answer_has_the_end_of_each_iteration() -> None:
    answer = report(np.array([2.0, 3.0, 5.0]), [9.0, 8.0, 7.0])
    assert answer == {"iterations": 3, "seconds_per_iteration": 1.5, "done": [2, 3, 5], "objectives": [9, 8, 7]}
