"""Explanations: a score taken apart is exact, and the parts named are the largest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recli.artifacts import POPULAR, Factors, Scores
from recli.config import ScoreConfig
from recli.errors import DataError
from recli.ids import Csr, take_rows
from recli.kernels.spec import Kernels
from recli.least_squares import ExactSolver, Problems
from recli.score import Audience, Explainer, fold_in, recommend
from tests.score.fitted import SETTINGS, fitted, minimiser, past
from tests.score.models import ALL, EVERYBODY, model


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("user", [0, 17])
def test_base_contributions_and_remainder_are_the_score(settings: dict[str, Any], user: int) -> None:
    factors = fitted(**settings)
    items = np.arange(40, dtype=np.int32)
    row = factors.user_rows(np.array([user]))[0]
    terms = Explainer(factors).terms(past(factors, user), row, items)
    scores = factors.item_rows().astype(np.float64) @ row.astype(np.float64)
    parts = terms.base + terms.contributions.sum(axis=1)
    np.testing.assert_allclose(parts + terms.remainder, scores, atol=1e-5)
    np.testing.assert_allclose(parts, scores, atol=1e-5 * np.abs(scores).max())  # a fitted row is the minimiser
    np.testing.assert_array_equal(terms.past, past(factors, user).indices)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_a_row_has_from_elsewhere_is_the_remainder(settings: dict[str, Any]) -> None:
    factors = fitted(**settings)
    items = np.array([3, 0, 39], np.int32)
    row = factors.user_rows(np.array([5]))[0]
    more = np.linspace(-1, 1, len(row), dtype=np.float32)
    explainer, history = Explainer(factors), past(factors, 5)
    plain, moved = explainer.terms(history, row, items), explainer.terms(history, row + more, items)
    np.testing.assert_array_equal(moved.contributions, plain.contributions)
    np.testing.assert_allclose(
        moved.remainder, plain.remainder + factors.item_rows(items).astype(np.float64) @ more, atol=1e-5
    )


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_contributions_are_those_of_the_minimiser_whatever_row_is_stored(settings: dict[str, Any]) -> None:
    factors = fitted(**settings)
    items = np.arange(40, dtype=np.int32)
    history = past(factors, 8)
    terms = Explainer(factors).terms(history, np.zeros_like(factors.user_rows(slice(1))[0]), items)
    x = minimiser(factors, history)
    expected = factors.Q.astype(np.float64) @ x[:-1] + (x[-1] if settings["solver"] == "als" else 0)
    np.testing.assert_allclose(terms.contributions.sum(axis=1), expected, atol=1e-6 * np.abs(expected).max())


@given(st.data())
def test_terms_are_those_of_the_inverse(data: st.DataObject) -> None:
    """Against A^-1 itself, with fewer entries than columns and more, with and without weights and unobserved pairs."""
    entries, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    alpha0, reg = data.draw(st.sampled_from([0.0, 0.2])), data.draw(st.sampled_from([0.01, 3.0]))
    items = rng.standard_normal((12, width)).astype(np.float32)
    nums = np.sort(rng.choice(12, entries, replace=False)).astype(np.int32)
    weights = rng.uniform(0, 5, entries).astype(np.float32) * data.draw(st.sampled_from([0, 1]))
    targets = rng.standard_normal(entries).astype(np.float32)
    problems = Problems(Csr(np.array([0, entries]), nums, weights), targets, np.array([reg], np.float32))
    Y = items.astype(np.float64)
    A = alpha0 * Y.T @ Y + float(np.float32(reg)) * np.eye(width) + (Y[nums].T * weights) @ Y[nums]
    solver = ExactSolver(items, alpha0)
    found, terms = solver.terms(problems, 0, solver.items[[4, 0]])
    np.testing.assert_array_equal(found, nums)
    np.testing.assert_allclose(terms, Y[[4, 0]] @ np.linalg.solve(A, Y[nums].T) * targets, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(solver.row(problems, 0), np.linalg.solve(A, Y[nums].T @ targets), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("entries", [1, 2, 3])
def test_next_to_no_regularisation_has_an_answer_all_the_same(entries: int) -> None:
    """A = sum y y^T + 1e-30 I is singular in float64: the smallest x with x . y = t is what it tends to."""
    problems = Problems(
        Csr(np.array([0, entries]), np.zeros(entries, np.int32), np.ones(entries, np.float32)),
        np.ones(entries, np.float32),
        np.array([1e-30], np.float32),
    )
    solver = ExactSolver(np.array([[3, 4]], np.float32), 0)
    np.testing.assert_allclose(solver.row(problems, 0), [0.12, 0.16], rtol=1e-6)


def explained(factors: Factors, audience: Audience, kernels: Kernels, count: int, k: int = 4, block: int = 7) -> Scores:
    """All blocks as one."""
    lists = recommend(factors, audience, ALL, ScoreConfig(k=k), kernels, block)
    blocks = list(Explainer(factors).explain(lists, audience, count))
    joined = {
        name: np.concatenate([getattr(each, name) for each in blocks])
        for name in ("items", "scores", "reasons", "because", "because_scores")
    }
    return Scores(start=0, **joined)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_the_largest_contributions_are_named_best_first(count: int, kernels: Kernels) -> None:
    factors = fitted(solver="ials", alpha=1.0)
    users = np.array([9, 0, 22])
    found = explained(factors, Audience(users), kernels, count)
    explainer = Explainer(factors)
    for at, user in enumerate(users):
        terms = explainer.terms(past(factors, user), factors.user_rows(np.array([user]))[0], found.items[at])
        for place in range(4):
            order = np.argsort(-terms.contributions[place], kind="stable")[:count]
            because = found.because[at, place]
            assert because[: len(order)].tolist() == terms.past[order].tolist()
            np.testing.assert_allclose(found.because_scores[at, place, : len(order)], terms.contributions[place][order])
            assert (because[len(order) :] == -1).all()
            assert not found.because_scores[at, place, len(order) :].any()
    assert (found.because >= 0).sum(axis=2).tolist() == [[min(count, n)] * 4 for n in (9, 1, 9)]


def test_with_all_past_items_the_parts_add_up_to_the_score(kernels: Kernels) -> None:
    factors = fitted(solver="ials")
    found = explained(factors, Audience(np.arange(60)), kernels, 9)
    np.testing.assert_allclose(found.because_scores.sum(axis=2), found.scores, atol=1e-5)


@pytest.mark.parametrize("solver", ["ials", "als", "svd"])
def test_users_from_a_history_are_explained_by_it(solver: str, kernels: Kernels) -> None:
    factors = fitted(solver=solver)
    users = np.array([9, 22])
    strangers = Audience(
        np.array([-1, -1, -1, 9]), history=take_rows(factors.seen, np.array([9, -1, 22, 3]), values=True)
    )
    found = explained(factors, fold_in(strangers, factors, kernels), kernels, 4, block=2)
    expected = explained(factors, Audience(users), kernels, 4)
    np.testing.assert_array_equal(found.because[[0, 2]], expected.because)
    np.testing.assert_allclose(found.because_scores[[0, 2]], expected.because_scores, rtol=1e-5)
    assert found.reasons[1] == POPULAR
    assert (found.because[1] == -1).all()
    assert {*found.because[3].ravel()} <= {*past(factors, 9).indices}


def test_lists_that_end_early_have_no_more_explanations(kernels: Kernels) -> None:
    factors = fitted(solver="ials")
    found = explained(factors, Audience(np.array([0])), kernels, 1, k=40)
    assert (found.items[0] >= 0).sum() == 39
    np.testing.assert_array_equal(found.because[0, :, 0] >= 0, found.items[0] >= 0)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (lambda: fitted(solver="pop"), "there is nothing to explain"),
        (lambda: fitted(solver="ials", seen=False), "no seen lists to explain from: factorize without --no-seen"),
        (lambda: model(), "header: solver: expected one of"),
    ],
)
def test_models_that_cannot_tell_are_refused_at_once(factors: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Explainer(factors()).explain(iter([]), EVERYBODY, 2)


def test_a_model_without_seen_lists_explains_by_a_history(kernels: Kernels) -> None:
    factors, seen = fitted(solver="ials", seen=False), fitted(solver="ials").seen
    assert seen is not None
    stranger = Audience(np.array([-1]), history=take_rows(seen, np.array([9]), values=True))
    lists = recommend(factors, fold_in(stranger, factors, kernels), ALL, ScoreConfig(k=3), kernels)
    folded = fold_in(stranger, factors, kernels)
    (block,) = Explainer(factors).explain(lists, folded, 2)
    assert (block.because >= 0).all()
