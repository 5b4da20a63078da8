"""iALS reaches the optimum of the published objectives, and implicit's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from implicit.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors
from recli.config import FactorizeConfig, ScoreConfig
from recli.errors import DataError, DivergedError
from recli.factorize import Progress, Watch, factorize
from recli.factorize.ials import canonical
from recli.kernels import load
from recli.kernels.spec import Kernels
from recli.score import Audience, Catalogue, recommend
from tests.factorize.data import interactions, planted

Dense = NDArray[np.floating]


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 2) as kernels, threadpool_limits(1):  # small products are slower on more
        yield kernels


class Objective:
    """Rendle et al. 2022, eq. 3 and 4, or Hu, Koren, Volinsky 2008, eq. 3, on dense arrays."""

    def __init__(self, dense: Dense, config: FactorizeConfig, chosen: Mapping[str, Any], weighted: bool) -> None:
        alpha0 = chosen["alpha0"]
        self.stored = ~np.isnan(dense)
        values = np.nan_to_num(dense)
        weight = values if weighted else values * config.alpha if config.alpha is not None else self.stored * 1.0
        users, items = dense.shape
        self.reg = [
            chosen["reg"] * (self.stored.sum(axis=axis) + alpha0 * others) ** chosen["nu"]
            for axis, others in ((1, items), (0, users))
        ]
        # each loss as sum c (t - s)^2 + a constant: c and c t are all that a least-squares solution needs
        self.c = weight + alpha0
        self.ct = (weight + alpha0) * self.stored if config.loss == "hu" else weight
        self.constant = float((self.ct**2 / np.maximum(self.c, 1e-300)).sum())
        self.at_zero = float(self.ct.sum())  # sum of the weights of the ones

    def __call__(self, P: Dense, Q: Dense) -> float:
        s = P.astype(float) @ Q.astype(float).T
        fit = float((self.c * s**2 - 2 * self.ct * s).sum()) + self.at_zero
        return fit + sum(
            float(reg @ (rows.astype(float) ** 2).sum(axis=1)) for reg, rows in zip(self.reg, (P, Q), strict=True)
        )

    def minimise(self, rank: int, sweeps: int) -> float:
        """Exact alternating least squares in float64, row by row, from a start of its own."""
        rng = np.random.default_rng(1)
        P, Q = (rng.standard_normal((n, rank)) * 0.1 for n in self.c.shape)
        for _ in range(sweeps):
            for X, Y, c, ct, reg in ((P, Q, self.c, self.ct, self.reg[0]), (Q, P, self.c.T, self.ct.T, self.reg[1])):
                for row in range(len(X)):
                    A = (Y * c[row][:, None]).T @ Y + reg[row] * np.eye(rank)
                    X[row] = np.linalg.solve(A, Y.T @ ct[row])
        return self(P, Q)


@pytest.mark.parametrize(
    ("settings", "weighted"),
    [
        ({}, False),
        ({"nu": 0.0, "reg": 0.3}, False),
        ({"alpha": 2.0, "alpha0": 0.5, "reg": 0.02}, False),
        ({"alpha0": 0.3}, True),
        ({"loss": "hu", "alpha0": 0.4}, False),
        ({"loss": "hu", "alpha": 0.5, "nu": 0.5, "reg": 0.2}, False),
        ({"loss": "hu", "nu": 0.5, "reg": 0.05}, True),
        ({"rank": 45}, False),  # more than items
    ],
    ids=str,
)
def test_the_optimum_is_that_of_exact_least_squares(cpu: Kernels, settings: dict[str, Any], weighted: bool) -> None:
    dense = planted()
    config = FactorizeConfig(**{"rank": 5, "iterations": 400, **settings})
    factors, fit = factorize(interactions(dense, weighted=weighted), config, cpu)
    objective = Objective(dense, config, fit.settings, weighted)
    found = objective(factors.P, factors.Q)
    assert found == pytest.approx(objective.minimise(config.rank, 300), rel=1e-5)
    assert found == pytest.approx(fit.objectives[-1], rel=1e-5)


def test_hu_with_nu_0_and_alpha0_1_is_what_implicit_minimises(cpu: Kernels) -> None:
    """implicit's confidence is its stored value: 1 + A r. At rank 4 all starts lead to one optimum."""
    dense, A, L = planted(), 3.0, 2.0
    config = FactorizeConfig(loss="hu", nu=0, alpha0=1, alpha=A, reg=L, rank=4, iterations=300)
    factors, _ = factorize(interactions(dense), config, cpu)
    there = ~np.isnan(dense)
    confidence = csr_matrix(np.where(there, 1 + A * np.nan_to_num(dense), 0).astype(np.float32))
    with threadpool_limits(1, "blas"):  # implicit warns otherwise
        model = AlternatingLeastSquares(
            4, regularization=L, iterations=300, use_cg=False, num_threads=1, random_state=0
        )
        model.fit(confidence, show_progress=False)
    c = np.where(there, 1 + A * np.nan_to_num(dense), 1)

    def objective(P: Dense, Q: Dense) -> float:
        P, Q = P.astype(float), Q.astype(float)
        return float((c * (there - P @ Q.T) ** 2).sum() + L * ((P**2).sum() + (Q**2).sum()))

    theirs = objective(model.user_factors, model.item_factors)
    assert objective(factors.P, factors.Q) == pytest.approx(theirs, rel=1e-5)
    assert theirs < 0.5 * objective(0 * factors.P, factors.Q)


def test_planted_tastes_are_recovered_far_better_than_by_popularity(cpu: Kernels) -> None:
    """Five kinds of users who like items of their kind only; two likes of each user are held out."""
    rng = np.random.default_rng(0)
    users, items = rng.permutation(200) % 5, rng.permutation(100) % 5
    dense, held_out = np.full((200, 100), np.nan), np.zeros((200, 2), int)
    for u in range(200):
        chosen = rng.choice(np.flatnonzero(items == users[u]), 10, replace=False)
        dense[u, chosen[2:]], held_out[u] = 1, chosen[:2]

    def recall(factors: Factors) -> float:
        lists = np.vstack(
            [block.items for block in recommend(factors, Audience(np.arange(200)), Catalogue(), ScoreConfig(k=12), cpu)]
        )
        return float(np.mean([np.isin(truth, row).mean() for truth, row in zip(held_out, lists, strict=True)]))

    ials, pop = (
        recall(factorize(interactions(dense), FactorizeConfig(rank=8, solver=s), cpu)[0]) for s in ("ials", "pop")
    )
    assert ials > 0.95  # 20 items a kind less 8 seen ones leave 12
    assert pop < 0.3


def test_a_seed_is_a_model_whatever_the_threads(cpu: Kernels) -> None:
    dense = planted()
    config = FactorizeConfig(rank=7, iterations=3)

    def bytes_of(kernels: Kernels, **settings: Any) -> list[bytes]:
        factors, _ = factorize(interactions(dense), FactorizeConfig(rank=7, iterations=3, **settings), kernels)
        return [factors.P.tobytes(), factors.Q.tobytes()]

    with load("cpu", 1) as alone:
        assert bytes_of(cpu) == bytes_of(cpu, seed=config.seed) == bytes_of(alone)
    assert bytes_of(cpu, seed=1) != bytes_of(cpu, seed=2)


def test_every_iteration_lowers_the_objective_and_is_reported(cpu: Kernels) -> None:
    seen: list[Progress] = []
    _, fit = factorize(
        interactions(planted()), FactorizeConfig(rank=4, iterations=9), cpu, Watch(on_progress=seen.append)
    )
    assert [(at.done, at.total) for at in seen] == [(n, 9) for n in range(1, 10)]
    assert [at.objective for at in seen] == fit.objectives == sorted(fit.objectives, reverse=True)


def test_tol_stops_once_an_iteration_gains_less(cpu: Kernels) -> None:
    _, whole = factorize(interactions(planted()), FactorizeConfig(rank=4, iterations=30), cpu)
    _, fit = factorize(interactions(planted()), FactorizeConfig(rank=4, iterations=30, tol=0.01), cpu)
    gains = -np.diff(whole.objectives) / whole.objectives[1:]
    stop = int(np.argmax(gains < 0.01)) + 2
    assert 2 < stop < len(whole.objectives)
    assert fit.objectives == whole.objectives[:stop]


def test_the_factors_carry_what_scoring_needs(cpu: Kernels) -> None:
    given = interactions(planted())
    factors, fit = factorize(given, FactorizeConfig(rank=4, iterations=1), cpu)
    np.testing.assert_array_equal(factors.item_counts, (~np.isnan(planted())).sum(axis=0))
    assert factors.seen_indices is not None
    np.testing.assert_array_equal(factors.seen_indices, given.matrix.indices)
    assert factors.provenance.config["alpha0"] == fit.settings["alpha0"]  # what was chosen, not None
    assert (factors.provenance.command, factors.provenance.device) == ("factorize", "cpu")
    unseen, _ = factorize(given, FactorizeConfig(rank=4, iterations=1, seen=False), cpu)
    assert unseen.seen_indices is unseen.seen_indptr is None
    assert unseen.P.tobytes() == factors.P.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 2)])
def test_a_rank_above_the_data_is_no_trouble(cpu: Kernels, shape: tuple[int, int]) -> None:
    dense = np.ones(shape)
    factors, _ = factorize(interactions(dense), FactorizeConfig(rank=40, reg=1e-3, alpha0=1e-3, iterations=30), cpu)
    np.testing.assert_allclose(factors.P @ factors.Q.T, dense, atol=0.01)


def test_an_item_and_a_user_without_entries_become_zero(cpu: Kernels) -> None:
    dense = planted()
    dense[:, 7] = dense[5] = np.nan
    factors, fit = factorize(interactions(dense), FactorizeConfig(rank=4), cpu)
    assert not factors.P[5].any()
    assert not factors.Q[7].any()
    assert fit.objectives == sorted(fit.objectives, reverse=True)


@pytest.mark.parametrize("weighted", [True, False])
def test_negative_weights_are_refused(cpu: Kernels, weighted: bool) -> None:
    dense = planted()
    dense[0, 3] = -2
    config = FactorizeConfig(alpha=None if weighted else 0.5, rank=2)
    with pytest.raises(DataError, match=rf"expected weights of at least 0, found -{2 if weighted else 1} "):
        factorize(interactions(dense, weighted=weighted), config, cpu)
    factorize(interactions(dense), FactorizeConfig(rank=2, iterations=1), cpu)  # a rating that weighs nothing


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize(
    ("scale", "settings"),
    [(1e36, {}), (1, {"reg": 1e-50, "alpha0": 0}), (1e36, {"reg": 1e-30, "alpha0": 0.0})],
    ids=str,
)
def test_overflow_is_an_error_with_a_remedy(device: str, scale: float, settings: dict[str, Any]) -> None:
    config = FactorizeConfig(rank=8, **settings)
    with load(device, 1) as kernels, pytest.raises(DivergedError, match="larger --reg"):
        factorize(interactions(planted() * scale, weighted=True), config, kernels)


def test_canonical_is_the_same_model_in_a_basis_of_its_own() -> None:
    rng = np.random.default_rng(0)
    P, Q = (rng.standard_normal((n, 6)).astype(np.float32) for n in (20, 30))
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0].astype(np.float32)
    (P1, Q1), (P2, Q2) = canonical(P, Q), canonical(P @ rotation, Q @ rotation)
    np.testing.assert_allclose(P1 @ Q1.T, P @ Q.T, atol=1e-5)
    gram = Q1.T.astype(float) @ Q1
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4)
    assert list(np.diag(gram)) == sorted(np.diag(gram), reverse=True)
    assert (Q1[np.abs(Q1).argmax(axis=0), range(6)] > 0).all()
    np.testing.assert_allclose(np.hstack([P1.T, Q1.T]), np.hstack([P2.T, Q2.T]), atol=1e-4)


def test_canonical_refuses_factors_whose_squares_overflow() -> None:
    Q = np.full((3, 2), 1e20, np.float32)
    with pytest.raises(DivergedError, match="overflow"):
        canonical(np.ones((4, 2), np.float32), Q)
