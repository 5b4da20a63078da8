"""Pairs held out, and the metrics on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recli.artifacts import Factors
from recli.config import FactorizeConfig
from recli.factorize import Validation, factorize, metric_of, valid
from recli.factorize.model import Fit
from recli.ids import Csr
from recli.kernels import load
from recli.kernels.spec import Kernels
from recli.splits import hold_out
from tests.factorize.data import interactions, planted
from tests.kernels.problems import csr


@pytest.fixture(scope="module")
def kernels() -> Iterator[Kernels]:
    with load("reference", 1) as backend:
        yield backend


def pairs(matrix: Csr) -> dict[tuple[int, int], float]:
    user = np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))
    return dict(zip(zip(user.tolist(), matrix.indices.tolist(), strict=True), matrix.values.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=12), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
def test_the_two_parts_are_the_whole_and_no_user_is_left_bare(lengths: list[int], share: float, seed: int) -> None:
    whole = csr(np.random.default_rng(0), lengths, 9)
    train, held = hold_out(whole, share, seed)
    assert pairs(train) | pairs(held) == pairs(whole)
    assert len(pairs(train)) + len(pairs(held)) == len(pairs(whole))
    assert ((np.diff(train.indptr) > 0) == (np.diff(whole.indptr) > 0)).all()
    again = hold_out(whole, share, seed)
    assert all(
        (x == y).all() for part, same in zip((train, held), again, strict=True) for x, y in zip(part, same, strict=True)
    )


def test_about_the_share_asked_for_is_held_out() -> None:
    whole = csr(np.random.default_rng(0), [50] * 200, 60)
    held = hold_out(whole, 0.1, 3)[1]
    assert len(held.indices) == pytest.approx(1000, rel=0.1)


def scores(of: Factors) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.asarray(of.P) @ np.asarray(of.Q).T + of.b_u[:, None] + of.b_v + float(of.b)


@pytest.mark.parametrize("solver", ["ials", "als", "pop"])
def test_ranking_metrics_are_those_of_the_lists_without_training_items(kernels: Kernels, solver: str) -> None:
    data = interactions(planted())
    train, held = hold_out(data.matrix, 0.3, 1)
    factors, fit = factorize(data, FactorizeConfig(solver=solver, rank=3), kernels, train=train)
    ranked = scores(factors)
    for user, item in pairs(train):
        ranked[user, item] = -np.inf
    lists = np.argsort(-ranked, axis=1, kind="stable")[:, :5]
    truth = [{item for u, item in pairs(held) if u == user} for user in range(len(lists))]
    expected = np.mean(
        [len(mine & set(row)) / len(mine) for mine, row in zip(truth, lists.tolist(), strict=True) if mine]
    )
    validation = Validation(train, held, "recall@5", 0, kernels)
    assert validation.of_fit(fit) == pytest.approx(expected)
    assert validation.of_factors(factors) == pytest.approx(expected)


def test_rmse_is_that_of_the_held_ratings_and_negative_since_more_is_better(kernels: Kernels) -> None:
    data = interactions(planted())
    train, held = hold_out(data.matrix, 0.3, 1)
    factors, fit = factorize(data, FactorizeConfig(solver="als", rank=3), kernels, train=train)
    errors = [scores(factors)[pair] - value for pair, value in pairs(held).items()]
    assert Validation(train, held, "rmse", 0, kernels).of_fit(fit) == pytest.approx(
        -np.sqrt(np.mean(np.square(errors)))
    )


def test_a_list_longer_than_the_catalogue_is_the_catalogue(kernels: Kernels) -> None:
    data = interactions(planted())
    train, held = hold_out(data.matrix, 0.3, 1)
    fit = factorize(data, FactorizeConfig(rank=3), kernels, train=train)[1]
    assert Validation(train, held, "recall@1000", 0, kernels).of_fit(fit) == 1


def test_many_users_are_sampled_by_the_seed(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valid, "MOST_USERS", 20)
    rng = np.random.default_rng(0)
    held = csr(rng, [1] * 100, 30)
    fit = Fit(P=rng.standard_normal((100, 3)).astype(np.float32), Q=rng.standard_normal((30, 3)).astype(np.float32))
    nothing = Csr(np.zeros(101, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    by_seed = [Validation(nothing, held, "mrr@30", seed, kernels).of_fit(fit) for seed in (0, 0, 1, 2)]
    assert by_seed[0] == by_seed[1]
    assert len(set(by_seed)) > 1


def test_the_metric_follows_the_solver_unless_named() -> None:
    assert metric_of(FactorizeConfig(solver="als")) == "rmse"
    assert metric_of(FactorizeConfig(solver="svd")) == metric_of(FactorizeConfig()) == "ndcg@10"
    assert metric_of(FactorizeConfig(solver="als", metric="mrr@3")) == "mrr@3"
