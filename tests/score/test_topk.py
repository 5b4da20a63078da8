"""Lists of chosen users: what is left out, who gets the popular items, biases, blocks, and refusals."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from recli.config import ScoreConfig
from recli.errors import BusyError, DataError, UsageError
from recli.kernels.spec import Kernels
from recli.score import Audience, block_users, recommend
from tests.score.models import ALL, EVERYBODY, EVERYONE, ITEMS, USERS, lists, model, predictions


@pytest.mark.parametrize("k", [1, 6, ITEMS])
@pytest.mark.parametrize("keep_seen", [False, True])
def test_lists_are_the_best_predictions_without_what_a_user_has(kernels: Kernels, keep_seen: bool, k: int) -> None:
    of = model()
    expected = predictions(of)
    if not keep_seen:
        for user in EVERYONE:
            expected[user, of.seen_indices[of.seen_indptr[user] : of.seen_indptr[user + 1]]] = -np.inf
    order = np.argsort(-expected, axis=1)[:, :k]
    best = np.take_along_axis(expected, order, axis=1)
    items, scores, popular = lists(recommend(of, EVERYBODY, ALL, ScoreConfig(k=k, keep_seen=keep_seen), kernels))
    np.testing.assert_array_equal(items, np.where(best > -np.inf, order, -1))
    np.testing.assert_allclose(scores, best, rtol=1e-5, atol=1e-6)
    assert not popular.any()


@pytest.mark.parametrize("block", [1, 2, 3, 1000])
def test_unknown_users_get_the_popular_items_wherever_they_stand(kernels: Kernels, block: int) -> None:
    """A block may be all known, all unknown or mixed; users may come in any order, and again."""
    of, config = model(), ScoreConfig(k=7)
    users = np.array([-1, 4, 29, -1, -1, -1, 0, 4, 28])
    items, scores, popular = lists(recommend(of, Audience(users), ALL, config, kernels, block))
    everyone = lists(recommend(of, EVERYBODY, ALL, config, kernels))
    np.testing.assert_array_equal(popular, users < 0)
    np.testing.assert_array_equal(items[users >= 0], everyone[0][users[users >= 0]])
    np.testing.assert_array_equal(scores[users >= 0], everyone[1][users[users >= 0]])
    assert (items[users < 0] == [4, 9, 14, 19, 24, 3, 8]).all()  # ties by number
    assert (scores[users < 0] == [4, 4, 4, 4, 4, 3, 3]).all()


def test_no_users_give_no_blocks(kernels: Kernels) -> None:
    assert list(recommend(model(), Audience(np.zeros(0, np.int64)), ALL, ScoreConfig(), kernels)) == []


@pytest.mark.parametrize("users", [False, True])
@pytest.mark.parametrize("items", [False, True])
@pytest.mark.parametrize("level", [0.0, -2.5])
def test_scores_hold_every_bias(kernels: Kernels, users: bool, items: bool, level: float) -> None:
    rng = np.random.default_rng(1)
    of = model(
        b_u=(rng.standard_normal(USERS) * users).astype(np.float32),
        b_v=(rng.standard_normal(ITEMS) * 3 * items).astype(np.float32),
        b=np.array(level, np.float32),
    )
    found, scores, _ = lists(recommend(of, EVERYBODY, ALL, ScoreConfig(k=ITEMS, keep_seen=True), kernels))
    expected = predictions(of)
    np.testing.assert_array_equal(found, np.argsort(-expected, axis=1))
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1), rtol=1e-5, atol=1e-6)


def test_a_model_of_rank_0_ranks_by_item_biases(kernels: Kernels) -> None:
    nothing = {"P": np.zeros((USERS, 0), np.float32), "Q": np.zeros((ITEMS, 0), np.float32)}
    of = model(**nothing, b_v=np.arange(ITEMS, dtype=np.float32) % 10)
    items, scores, _ = lists(recommend(of, Audience(EVERYONE[:2]), ALL, ScoreConfig(k=3, keep_seen=True), kernels))
    assert items.tolist() == [[9, 19, 8]] * 2
    assert scores.tolist() == [[9, 9, 8]] * 2


def test_more_than_the_catalogue_is_refused_at_once(kernels: Kernels) -> None:
    with pytest.raises(UsageError, match=f"-k {ITEMS + 1}: the model has {ITEMS} items"):
        recommend(model(), EVERYBODY, ALL, ScoreConfig(k=ITEMS + 1), kernels)


def test_a_model_without_seen_lists_cannot_leave_them_out(kernels: Kernels) -> None:
    of = model(seen_indptr=None, seen_indices=None)
    with pytest.raises(DataError, match=r"no seen lists .* give --keep-seen"):
        recommend(of, EVERYBODY, ALL, ScoreConfig(), kernels)
    assert len(list(recommend(of, EVERYBODY, ALL, ScoreConfig(keep_seen=True), kernels))) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"P": 1e20, "Q": 1e18},
        {"P": 1e-3, "Q": 3e38},
        {"b_v": 3e38},
        {"b": 3e38},
        {"b_u": 3e38, "b": 3e38},
        {"b_u": -1e37, "b": 2e37, "b_v": 3e37},
    ],
    ids=str,
)
def test_scores_that_would_overflow_are_refused_at_once(kernels: Kernels, changes: dict[str, float]) -> None:
    of = model()
    arrays = {name: np.full_like(getattr(of, name), value) for name, value in changes.items()}
    with pytest.raises(DataError, match="overflow float32: factorize with a larger --reg"):
        recommend(dataclasses.replace(of, **arrays), EVERYBODY, ALL, ScoreConfig(), kernels)


def test_scores_of_any_size_short_of_that_are_exact(kernels: Kernels) -> None:
    of = model()
    large = dataclasses.replace(of, P=of.P * np.float32(2.0**60), Q=of.Q * np.float32(2.0**58))
    items, scores, _ = lists(recommend(large, EVERYBODY, ALL, ScoreConfig(), kernels))
    expected = lists(recommend(of, EVERYBODY, ALL, ScoreConfig(), kernels))
    np.testing.assert_array_equal(items, expected[0])
    np.testing.assert_array_equal(scores, expected[1] * np.float32(2.0**118))


def test_blocks_shrink_with_k_and_with_the_memory() -> None:
    of = model()
    unlimited = [block_users(of, EVERYBODY, ALL, ScoreConfig(k=k), None) for k in (1, 10, 1000, 1_000_000)]
    assert unlimited == sorted(unlimited, reverse=True)
    assert unlimited[-1] >= 1
    limits = range(350_000_000, 354_000_000, 97_000)
    sizes = [block_users(of, EVERYBODY, ALL, ScoreConfig(k=1000), limit) for limit in limits if limit > 350_200_000]
    assert sizes == sorted(sizes)
    assert 1 <= sizes[0] < sizes[-1] <= unlimited[2]


@pytest.mark.parametrize("k", [1, 130_000, 1_000_000])
def test_too_little_memory_is_refused_with_a_limit_that_will_do(k: int) -> None:
    config = ScoreConfig(k=k)
    with pytest.raises(BusyError, match=r"needs at least [0-9.]+G: give a larger --memory-limit") as caught:
        block_users(model(), EVERYBODY, ALL, config, 1_000_000)
    said = re.search(r"least ([0-9.]+)G", str(caught.value))
    assert said
    assert block_users(model(), EVERYBODY, ALL, config, int(float(said[1]) * 2**30)) >= 1
