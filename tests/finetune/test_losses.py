"""Losses against loops in plain numbers, against what they are the same as, and against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, log_expit, log_softmax

from recli.finetune.losses import LOSSES, NEGATIVES, Batch, bpr, logistic, sigmoid, softmax, squared

Doubles = NDArray[np.float64]
BOUNDED = st.floats(-30, 30)


@st.composite
def batches(draw: st.DrawFn, least: int = 0) -> Batch:
    """A few pairs with a few negatives each, some of which do not count."""
    n, m = draw(st.integers(1, 4)), draw(st.integers(least, 5))
    scores, odds = (
        np.array(draw(st.lists(BOUNDED, min_size=n * (m + 1), max_size=n * (m + 1)))).reshape(n, m + 1)
        for _ in range(2)
    )
    kept = np.array(draw(st.lists(st.booleans(), min_size=n * (m + 1), max_size=n * (m + 1)))).reshape(n, m + 1)
    kept[:, 0] = True
    targets = np.array(draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)))
    return Batch(scores, targets, kept, odds / 10)


def random_batch(n: int = 6, m: int = 5, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    kept = rng.random((n, m + 1)) < 0.7
    kept[:, 0] = True
    scores, odds = rng.standard_normal((2, n, m + 1))
    return Batch(scores, (rng.random(n) < 0.5).astype(float), kept, odds)


def plain(name: str, batch: Batch) -> float:
    """One score at a time, as the formulas are written."""
    total = 0.0
    for scores, target, kept, odds in zip(
        batch.scores.tolist(), batch.targets.tolist(), batch.kept.tolist(), batch.log_odds.tolist(), strict=True
    ):
        own, others = scores[0], [at for at in range(1, len(scores)) if kept[at]]
        if name == "squared":
            total += (own - target) ** 2 + sum(scores[at] ** 2 for at in others)
        elif name == "logistic":
            total -= target * math.log(1 / (1 + math.exp(-own))) + (1 - target) * math.log(1 / (1 + math.exp(own)))
            total -= sum(math.log(1 / (1 + math.exp(scores[at]))) for at in others)
        elif name == "bpr":
            each = [-math.log(1 / (1 + math.exp(scores[at] - own))) for at in others]
            total += sum(each) / max(1, len(each))
        else:
            corrected = [math.exp(scores[at] - odds[at]) for at in (0, *others)]
            total -= math.log(corrected[0] / sum(corrected))
    return total / len(batch.scores)


def differences(name: str, batch: Batch, step: float = 1e-4) -> Doubles:
    found = np.zeros_like(batch.scores)
    for at in np.ndindex(*found.shape):
        values = []
        for sign in (1, -1):
            scores = batch.scores.copy()
            scores[at] += sign * step
            values.append(LOSSES[name](batch._replace(scores=scores))[0])
        found[at] = (values[0] - values[1]) / (2 * step)
    return found


@pytest.mark.parametrize("name", LOSSES)
@given(batch=batches())
def test_values_are_those_of_the_formula(name: str, batch: Batch) -> None:
    value, slopes = LOSSES[name](batch)
    assert isinstance(value, float)
    assert value == pytest.approx(plain(name, batch), rel=1e-9, abs=1e-12)
    assert slopes.shape == batch.scores.shape
    assert slopes.dtype == np.float64


@pytest.mark.parametrize("name", LOSSES)
@given(batch=batches())
def test_slopes_are_those_of_finite_differences(name: str, batch: Batch) -> None:
    np.testing.assert_allclose(LOSSES[name](batch)[1], differences(name, batch), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@given(batch=batches(least=1), score=st.sampled_from([-1e30, -3.0, 0.0, 1e30]), odds=BOUNDED)
def test_negatives_that_do_not_count_change_nothing(name: str, batch: Batch, score: float, odds: float) -> None:
    other = batch._replace(
        scores=np.where(batch.kept, batch.scores, score), log_odds=np.where(batch.kept, batch.log_odds, odds)
    )
    (value, slopes), (expected, known) = LOSSES[name](other), LOSSES[name](batch)
    assert value == expected
    np.testing.assert_array_equal(slopes, known)
    assert not slopes[~batch.kept].any()
    for at in range(len(slopes)):  # and a pair is as one that they were never drawn for
        alone = LOSSES[name](
            Batch(*(one[at : at + 1][..., batch.kept[at]] if one.ndim == 2 else one[[at]] for one in batch))
        )
        np.testing.assert_allclose(len(slopes) * slopes[at, batch.kept[at]], alone[1][0], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", LOSSES)
@given(batch=batches(), data=st.data())
def test_neither_the_order_of_pairs_nor_that_of_negatives_matters(name: str, batch: Batch, data: st.DataObject) -> None:
    n, width = batch.scores.shape
    pairs = data.draw(st.permutations(range(n)))
    columns = [0, *data.draw(st.permutations(range(1, width)))]
    moved = Batch(*(one[pairs][:, columns] if one.ndim == 2 else one[pairs] for one in batch))
    (value, slopes), (expected, known) = LOSSES[name](moved), LOSSES[name](batch)
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-14)
    np.testing.assert_allclose(slopes, known[pairs][:, columns], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_the_value_is_a_mean_over_pairs(name: str) -> None:
    batch = random_batch()
    twice = Batch(*(np.concatenate([one, one]) for one in batch))
    (value, slopes), (once, known) = LOSSES[name](twice), LOSSES[name](batch)
    assert value == pytest.approx(once, rel=1e-12)
    np.testing.assert_allclose(slopes, np.concatenate([known, known]) / 2, rtol=1e-12)
    assert once == pytest.approx(np.mean([LOSSES[name](Batch(*(one[[n]] for one in batch)))[0] for n in range(6)]))


@pytest.mark.parametrize("name", LOSSES)
def test_what_it_is_given_stays_as_it_is(name: str) -> None:
    batch = random_batch()
    before = [one.copy() for one in batch]
    LOSSES[name](batch)
    for one, known in zip(batch, before, strict=True):
        np.testing.assert_array_equal(one, known)


@given(st.lists(st.tuples(BOUNDED, BOUNDED), min_size=1, max_size=5))
def test_bpr_of_one_negative_is_the_logistic_loss_of_the_gap(pairs: list[tuple[float, float]]) -> None:
    scores = np.array(pairs)
    n, kept, odds = len(scores), np.ones(scores.shape, bool), np.zeros(scores.shape)
    value, slopes = bpr(Batch(scores, np.zeros(n), kept, odds))
    gaps = scores[:, :1] - scores[:, 1:]
    expected, known = logistic(Batch(gaps, np.ones(n), kept[:, :1], odds[:, :1]))
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(slopes, np.hstack([known, -known]), atol=1e-15)
    same, also = softmax(Batch(scores, np.zeros(n), kept, odds - 2))  # and so is a softmax of two
    assert same == pytest.approx(expected, rel=1e-9, abs=1e-13)
    np.testing.assert_allclose(also, slopes, atol=1e-14)


def test_without_negatives_logistic_is_the_cross_entropy_of_the_labels() -> None:
    scores, labels = np.linspace(-40, 40, 81)[:, None], np.tile([0.0, 1.0, 1.0], 27)
    value, slopes = logistic(Batch(scores, labels, np.ones((81, 1), bool), np.zeros((81, 1))))
    own = scores[:, 0]
    assert value == pytest.approx(-np.where(labels == 1, log_expit(own), log_expit(-own)).mean(), rel=1e-12)
    np.testing.assert_allclose(slopes[:, 0], (expit(own) - labels) / 81, atol=1e-16)


def test_a_negative_is_a_pair_with_label_or_rating_zero() -> None:
    scores, kept = np.array([[0.7, -1.2]]), np.ones((1, 2), bool)
    for loss in (logistic, squared):
        value, slopes = loss(Batch(scores, np.ones(1), kept, np.zeros((1, 2))))
        expected, known = loss(Batch(scores.T, np.array([1.0, 0.0]), kept.T, np.zeros((2, 1))))
        assert value == pytest.approx(2 * expected, rel=1e-12)
        np.testing.assert_allclose(slopes, 2 * known.T, rtol=1e-12)


@pytest.mark.parametrize("shift", [0.0, -4.0, 2.5])
def test_softmax_among_all_items_drawn_alike_is_the_full_softmax(shift: float) -> None:
    scores = np.random.default_rng(0).standard_normal((5, 30)) * 3
    value, slopes = softmax(Batch(scores, np.ones(5), np.ones(scores.shape, bool), np.full(scores.shape, shift)))
    assert value == pytest.approx(-log_softmax(scores, axis=1)[:, 0].mean(), rel=1e-12)
    expected = np.exp(log_softmax(scores, axis=1))
    expected[:, 0] -= 1
    np.testing.assert_allclose(slopes, expected / 5, atol=1e-15)


def test_many_popular_negatives_stand_for_all_items() -> None:
    """Each item pulls as under the full softmax, though some are drawn a hundred times as often as others."""
    rng, items, m = np.random.default_rng(1), 12, 400_000
    scores, counts = rng.standard_normal(items), np.geomspace(1, 100, items)
    share = counts / counts.sum()
    drawn = np.append(3, rng.choice(items, m, p=share))
    kept = drawn != 3
    kept[0] = True
    _, slopes = softmax(Batch(scores[drawn][None], np.ones(1), kept[None], np.log(share * m)[drawn][None]))
    pull = np.bincount(drawn, slopes[0], items)
    expected = np.exp(scores) / (np.exp(scores).sum() - np.exp(scores[3]) + np.exp(scores[3]) / (share[3] * m))
    others = np.arange(items) != 3
    np.testing.assert_allclose(pull[others], expected[others], rtol=0.03)
    assert pull[3] == pytest.approx(-expected[others].sum(), rel=0.01)


@given(batches(), st.floats(-100, 100))
def test_losses_that_compare_see_only_differences(batch: Batch, shift: float) -> None:
    for loss in (bpr, softmax):
        (value, slopes), (expected, _) = loss(batch._replace(scores=batch.scores + shift)), loss(batch)
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-10)
        np.testing.assert_allclose(slopes.sum(axis=1), 0, atol=1e-15)


@pytest.mark.parametrize("size", [50.0, 800.0, 1e5, 1e30])
@pytest.mark.parametrize("signs", [(1, -1), (-1, 1), (1, 1), (-1, -1)])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_extreme_scores_are_finite(size: float, signs: tuple[int, int], target: float) -> None:
    own, other = (sign * size for sign in signs)
    batch = Batch(np.array([[own, other]]), np.array([target]), np.ones((1, 2), bool), np.zeros((1, 2)))
    label = max(0.0, own) - target * own + max(0.0, other)  # log(1 + e^x) of large x is max(x, 0)
    gap = math.log(2) if own == other else max(0.0, other - own)
    for loss, expected in ((logistic, label), (bpr, gap), (softmax, gap)):
        value, slopes = loss(batch)
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-20)
        assert np.abs(slopes).max() <= 1
    assert logistic(batch)[1][0].tolist() == pytest.approx([float(own > 0) - target, float(other > 0)], abs=1e-15)


@pytest.mark.parametrize("name", ["bpr", "softmax"])
def test_a_pair_whose_negatives_do_not_count_says_nothing(name: str) -> None:
    kept = np.array([[True, False, False], [True, True, False]])
    value, slopes = LOSSES[name](Batch(np.ones((2, 3)), np.ones(2), kept, np.zeros((2, 3))))
    assert value == pytest.approx(math.log(2) / 2)
    np.testing.assert_allclose(slopes, [[0, 0, 0], [-0.25, 0.25, 0]], atol=1e-15)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_sigmoid_is_the_logistic_function(x: float, y: float) -> None:
    low, high = sigmoid(np.array(sorted((x, y))))
    assert low == pytest.approx(expit(min(x, y)), abs=1e-15)
    assert 0 <= low <= high <= 1
    assert sigmoid(np.array(-x)) == pytest.approx(1 - sigmoid(np.array(x)), abs=1e-15)


def test_every_loss_says_how_many_negatives_suit_it() -> None:
    assert NEGATIVES.keys() == LOSSES.keys()
