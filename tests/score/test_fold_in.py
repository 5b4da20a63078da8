"""Folded-in users: their rows are the minimisers of the model's objective, and their lists those of such rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from recli.artifacts import HISTORY, MODEL, POPULAR, Factors, Provenance
from recli.config import ScoreConfig
from recli.errors import DataError
from recli.ids import Csr, take_rows
from recli.kernels.spec import Kernels
from recli.score import Audience, RowProblem, fold_in, recommend
from recli.score.fold_in import folded_rows
from tests.score.fitted import RANK, SETTINGS, fitted, minimiser, past
from tests.score.models import ALL, EVERYBODY, csr, model

NEW = np.array([-1])


def row_of(factors: Factors, x: np.ndarray) -> np.ndarray:
    """p and b_u in the layout of Factors.user_rows."""
    if not factors.b:
        return x[:-1]
    return np.concatenate([x[:-1], [x[-1] + float(factors.b), 1]])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_row_is_the_minimiser_of_the_objective(settings: dict[str, Any], kernels: Kernels) -> None:
    factors = fitted(**settings)
    rng = np.random.default_rng(1)
    lengths = [1, 2, 7, 25, 40]  # fewer and more than the rank, and all there is
    indices = np.concatenate([np.sort(rng.choice(40, n, replace=False)) for n in lengths]).astype(np.int32)
    values = rng.uniform(0.5, 5, len(indices)).astype(np.float32)
    history = Csr(np.append(0, np.cumsum(lengths)), indices, values)
    rows = folded_rows(factors, history, kernels)
    for user in range(len(lengths)):
        expected = row_of(factors, minimiser(factors, take_rows(history, np.array([user]), values=True)))
        np.testing.assert_allclose(rows[user], expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_history_of_a_user_of_the_model_gives_the_same_row(settings: dict[str, Any], kernels: Kernels) -> None:
    factors = fitted(**settings)
    assert factors.seen is not None
    rows = folded_rows(factors, take_rows(factors.seen, np.arange(60), values=True), kernels)
    np.testing.assert_allclose(rows, factors.user_rows(slice(None)), atol=2e-6 * np.abs(rows).max())


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("alpha0", [0.0, 0.01])
def test_rows_are_exact_where_conjugate_gradients_are_slow(scale: float, alpha0: float, kernels: Kernels) -> None:
    """Weights that differ by orders of magnitude, and far above the regularisation."""
    rng = np.random.default_rng(2)
    rank, users, each = 48, 12, 40
    factors = dataclasses.replace(
        fitted(solver="ials"), Q=rng.standard_normal((40, rank)).astype(np.float32), P=np.zeros((60, rank), np.float32)
    )
    header = {**factors.provenance.config, "alpha0": alpha0, "reg": 1e-3}
    factors = dataclasses.replace(factors, provenance=dataclasses.replace(factors.provenance, config=header))
    indices = np.tile(np.arange(each, dtype=np.int32), users)
    values = (1 + scale * rng.pareto(1.0, len(indices))).astype(np.float32)
    history = Csr(np.arange(users + 1) * each, indices, values)
    rows = folded_rows(factors, history, kernels)
    for user in range(users):
        expected = minimiser(factors, take_rows(history, np.array([user]), values=True))[:-1]
        np.testing.assert_allclose(rows[user], expected, atol=1e-4 * np.abs(expected).max())


HEADER = Provenance(config={"solver": "ials", "loss": "rendle", "alpha0": 0.1, "reg": 0.1, "nu": 1.0})


def test_only_users_without_a_row_of_their_own_are_folded_in(kernels: Kernels) -> None:
    """User 8 has one item, user 7 has none; of two strangers, one has a history."""
    P = model().P.copy()
    P[7] = 0
    factors = dataclasses.replace(model(P=P), provenance=HEADER)
    history = csr([[1, 2], [3, 4], [], [5, 6], []])
    audience = Audience(np.array([8, 7, 7, -1, -1]), history=history)
    folded = fold_in(audience, factors, kernels)
    assert folded.reasons(factors).tolist() == [MODEL, HISTORY, POPULAR, HISTORY, POPULAR]
    assert folded.folded is not None
    np.testing.assert_array_equal(folded.folded, folded_rows(factors, csr([[3, 4], [5, 6]]), kernels))
    np.testing.assert_array_equal(folded.rows(factors, np.array([0, 3])), [P[8], folded.folded[1]])
    out = folded.left_out(factors, keep_seen=False)
    assert out is not None
    seen = past(factors, 8).indices
    assert {*out.indices[: out.indptr[1]]} == {1, 2, *seen}
    assert out.indices[out.indptr[1] :].tolist() == [3, 4, 5, 6]
    assert folded.left_out(factors, keep_seen=True) is None
    for start, end in ((0, 5), (1, 4), (4, 5), (2, 9)):
        part = folded.part(start, end)
        np.testing.assert_array_equal(part.reasons(factors), folded.reasons(factors)[start:end])
        np.testing.assert_array_equal(
            part.left_out(factors, keep_seen=False).indices, out.indices[out.indptr[start] : out.indptr[min(end, 5)]]
        )


def test_an_audience_without_a_history_stays_as_it_is(kernels: Kernels) -> None:
    assert fold_in(EVERYBODY, model(), kernels) is EVERYBODY


@pytest.mark.parametrize("solver", ["ials", "als", "svd"])
def test_a_stranger_with_a_users_history_gets_that_users_list(solver: str, kernels: Kernels) -> None:
    factors = fitted(solver=solver)
    assert factors.seen is not None
    who = np.array([7, 31, 7])
    strangers = Audience(np.full(3, -1), history=take_rows(factors.seen, who, values=True))
    (block,) = recommend(factors, fold_in(strangers, factors, kernels), ALL, ScoreConfig(k=5), kernels)
    (expected,) = recommend(factors, Audience(who), ALL, ScoreConfig(k=5), kernels)
    np.testing.assert_array_equal(block.items, expected.items)
    np.testing.assert_allclose(block.scores, expected.scores, rtol=1e-5)
    assert (block.reasons == HISTORY).all()


def test_popularity_leaves_the_history_out(kernels: Kernels) -> None:
    factors = fitted(solver="pop")
    best = np.argsort(-factors.item_counts, kind="stable")
    audience = fold_in(Audience(NEW, history=csr([[best[0], best[2]]])), factors, kernels)
    (block,) = recommend(factors, audience, ALL, ScoreConfig(k=3), kernels)
    assert block.items.tolist() == [best[[1, 3, 4]].tolist()]


def test_rows_that_overflow_are_refused(kernels: Kernels) -> None:
    Q = np.full((40, RANK), 1e-3, np.float32)
    Q[1] *= -1
    header = Provenance(config={"solver": "als", "reg": 1e-12, "nu": 1})
    factors = dataclasses.replace(fitted(solver="als"), Q=Q, provenance=header)
    history = csr([[1, 2]])._replace(values=np.array([-3e37, 3e37], np.float32))
    with pytest.raises(DataError, match="rows of its users overflow float32"):
        folded_rows(factors, history, kernels)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({}, "header: solver: expected one of .*, found None"),
        ({"solver": "imported"}, "imported model does not say how its rows were learned"),
        ({"solver": ["ials"]}, r"header: solver: expected one of .*, found \['ials'\]"),
        ({"solver": "ials"}, "header: alpha0: expected that of the ials model, found None"),
        ({"solver": "als", "reg": 0.1}, "header: nu: expected that of the als model, found None"),
        ({"solver": "als", "reg": "0.1", "nu": 1}, "header: .*str"),
        ({"solver": "als", "reg": float("nan"), "nu": 1}, "header: --reg nan"),
        ({"solver": "als", "reg": 1e-99, "nu": 1}, "header: reg: expected that of the als model, found 1e-99"),
        ({"solver": "svd"}, "header: normalize: expected bias, degree or none, found auto"),
        ({"solver": "svd", "normalize": "bias"}, "header: user_damping: expected that of the svd model, found None"),
        ({"solver": "svd", "normalize": "bias", "user_damping": 0}, "header: user_damping: .* found 0"),
        ({"solver": "ials", "reg": 0.1, "nu": 1, "alpha0": -1}, "header: --alpha0 -1: expected a value from 0"),
    ],
    ids=str,
)
def test_a_header_that_does_not_say_how_is_refused(header: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        RowProblem(dataclasses.replace(model(), provenance=Provenance(config=header)))


def test_degrees_are_the_sums_of_seen_lists() -> None:
    with pytest.raises(DataError, match=r"no seen lists .*, whose sums its rows are divided by"):
        RowProblem(fitted(solver="svd", normalize="degree", seen=False))


def test_values_are_what_the_solver_takes_them_for() -> None:
    history = csr([[1, 2]])._replace(values=np.array([2, 3], np.float32))
    for settings, weighted, expected in (
        ({"solver": "als"}, False, [2, 3]),
        ({"solver": "ials", "alpha": 4.0}, False, [8, 12]),
        ({"solver": "ials"}, True, [2, 3]),
        ({"solver": "ials"}, False, [1, 1]),
    ):
        problem = RowProblem(fitted(**settings))
        assert problem.learned(history, weighted=weighted).values.tolist() == expected
    with pytest.raises(DataError, match="expected values of at least 0, as --normalize degree does, found -1"):
        RowProblem(fitted(solver="svd", normalize="degree")).learned(
            history._replace(values=np.array([1, -1], np.float32)), weighted=False
        )
    with pytest.raises(DataError, match="expected weights of at least 0, found -1"):
        problem.learned(history._replace(values=np.array([1, -1], np.float32)), weighted=True)
