"""Lists with caps are what a walk down the whole ranking takes, and with one cap the best that there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.config import ScoreConfig
from recli.errors import BusyError
from recli.kernels.spec import Kernels
from recli.score import Audience, Cap, Catalogue, block_users, caps, recommend
from tests.score.models import ALL, EVERYBODY, ITEMS, WITH_STRANGERS, csr, lists, model


def walk(ranking: NDArray[np.int32], k: int, of: tuple[Cap, ...]) -> list[int]:
    """The definition."""
    taken: list[int] = []
    for item in ranking[ranking >= 0].tolist():
        groups = [(cap, cap.groups[item]) for cap in of]
        full = (group >= 0 and sum(cap.groups[other] == group for other in taken) >= cap.most for cap, group in groups)
        if not any(full) and len(taken) < k:
            taken.append(item)
    return taken


def assert_walked(
    of: Factors, audience: Audience, catalogue: Catalogue, k: int, kernels: Kernels, *, keep_seen: bool = False
) -> None:
    """For every user; scores are those of the items without caps."""
    whole = Catalogue(catalogue.items), ScoreConfig(k=ITEMS, keep_seen=keep_seen)
    items, scores, _ = lists(recommend(of, audience, catalogue, ScoreConfig(k=k, keep_seen=keep_seen), kernels, 8))
    every, every_score, _ = lists(recommend(of, audience, *whole, kernels))
    for user, ranking in enumerate(every):
        expected = walk(ranking, k, catalogue.caps)
        score_of = dict(zip(ranking.tolist(), every_score[user].tolist(), strict=True))
        assert items[user].tolist() == expected + [-1] * (k - len(expected))
        assert scores[user].tolist() == [score_of[item] for item in expected] + [-np.inf] * (k - len(expected))


def groups(data: st.DataObject, numbers: int) -> NDArray[np.int32]:
    """Some big groups and many small ones, with items in none."""
    return np.array(data.draw(st.lists(st.integers(-1, numbers), min_size=ITEMS, max_size=ITEMS)), np.int32)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_lists_are_what_a_walk_down_the_ranking_takes(kernels: Kernels, data: st.DataObject) -> None:
    """Merged or walked, with one cap or two, in one look or several, with exclusions of all kinds."""
    draw = data.draw
    cap = st.integers(1, 3)
    several = tuple(Cap(groups(data, draw(st.sampled_from([1, 3, 20]))), draw(cap)) for _ in range(draw(cap)))
    allowed = draw(st.none() | st.sets(st.integers(0, ITEMS - 1), min_size=1))
    denied = draw(st.none() | st.lists(st.sets(st.integers(0, ITEMS - 1)), min_size=33, max_size=33))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caps, "PARTS", draw(st.sampled_from([0, 256])))
        patch.setattr(caps, "CANDIDATES", draw(st.sampled_from([1, 4])))
        patch.setattr(caps, "MASK_ENTRIES", 3 * ITEMS)
        patch.setattr(caps, "ENTRIES", draw(st.sampled_from([100, 1 << 19])))
        assert_walked(
            model(),
            Audience(WITH_STRANGERS, denied=None if denied is None else csr([sorted(row) for row in denied])),
            Catalogue(None if allowed is None else np.array(sorted(allowed), np.int32), several),
            draw(st.integers(1, 12)),
            kernels,
            keep_seen=draw(st.booleans()),
        )


def test_ties_are_walked_by_item_number(kernels: Kernels) -> None:
    """All scores are equal, so that the list is the first items whose groups are not full."""
    same = model(P=np.ones((30, 4), np.float32), Q=np.ones((ITEMS, 4), np.float32))
    cap = Cap(np.array([0, 0, 0, 1, 1, -1, 2] + [0] * 18, np.int32), 2)
    items, _, _ = lists(
        recommend(same, EVERYBODY.part(0, 1), Catalogue(None, (cap,)), ScoreConfig(k=6, keep_seen=True), kernels)
    )
    assert items.tolist() == [[0, 1, 3, 4, 5, 6]]


@pytest.mark.parametrize("parts", [0, 256])
def test_a_list_with_one_cap_has_the_highest_scores_that_a_list_can(
    kernels: Kernels, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caps, "PARTS", parts)
    few, k = np.arange(9, dtype=np.int32), 4
    cap = Cap(np.array([0, 0, 0, 1, 1, 1, 2, 2, -1] + [-1] * (ITEMS - 9), np.int32), 1)
    _, every, _ = lists(recommend(model(), EVERYBODY, Catalogue(few), ScoreConfig(k=9, keep_seen=True), kernels))
    order = lists(recommend(model(), EVERYBODY, Catalogue(few), ScoreConfig(k=9, keep_seen=True), kernels))[0]
    _, scores, _ = lists(
        recommend(model(), EVERYBODY, Catalogue(few, (cap,)), ScoreConfig(k=k, keep_seen=True), kernels)
    )
    within = [c for c in itertools.combinations(range(9), k) if max(np.bincount(cap.groups[list(c)] + 1)[1:]) <= 1]
    for user in range(30):
        score_of = dict(zip(order[user].tolist(), every[user].tolist(), strict=True))
        best = max(sum(score_of[item] for item in choice) for choice in within)
        assert scores[user].sum() == pytest.approx(best, rel=1e-6)


def test_a_list_that_caps_make_impossible_ends_early(kernels: Kernels) -> None:
    cap = Cap((np.arange(ITEMS) % 3).astype(np.int32), 1)
    for parts in (0, 256):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(caps, "PARTS", parts)
            found = recommend(model(), EVERYBODY, Catalogue(None, (cap,)), ScoreConfig(k=5, keep_seen=True), kernels)
            items, _, _ = lists(found)
            assert ((items >= 0).sum(axis=1) == 3).all()


def test_caps_take_memory_from_the_blocks() -> None:
    capped = Catalogue(None, (Cap(np.zeros(ITEMS, np.int32), 3),))
    sizes = [block_users(model(), EVERYBODY, catalogue, ScoreConfig(k=9), 500_000_000) for catalogue in (ALL, capped)]
    assert sizes[0] == sizes[1] == block_users(model(), EVERYBODY, ALL, ScoreConfig(k=9), None)
    with pytest.raises(BusyError, match=r"scoring needs at least 0.42G"):
        block_users(model(), EVERYBODY, capped, ScoreConfig(k=9), 400_000_000)
