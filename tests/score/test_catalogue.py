"""Lists of a part of the catalogue: what is left out for everybody and for one user, and where lists end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recli.artifacts import POPULAR
from recli.config import ScoreConfig
from recli.ids import slice_rows, union_rows
from recli.kernels.spec import Kernels
from recli.score import Audience, Catalogue, Recommender, block_users, recommend
from recli.score.catalogue import Ranking
from tests.score.models import ALL, EVERYBODY, EVERYONE, ITEMS, RANK, WITH_STRANGERS, csr, lists, model


@settings(max_examples=40, deadline=None)
@given(
    allowed=st.none() | st.sets(st.integers(0, ITEMS - 1)),
    denied=st.none() | st.lists(st.sets(st.integers(0, ITEMS - 1)), min_size=33, max_size=33),
    keep_seen=st.booleans(),
    block=st.sampled_from([1, 7, 100]),
)
def test_lists_are_those_of_the_whole_catalogue_without_what_may_not_be(
    kernels: Kernels,
    allowed: set[int] | None,
    denied: list[set[int]] | None,
    keep_seen: bool,
    block: int,
) -> None:
    """Known and unknown users alike."""
    of = model()
    catalogue = Catalogue(None if allowed is None else np.array(sorted(allowed), np.int32))
    audience = Audience(WITH_STRANGERS, denied=None if denied is None else csr([sorted(row) for row in denied]))
    items, scores, popular = lists(
        recommend(of, audience, catalogue, ScoreConfig(k=6, keep_seen=keep_seen), kernels, block)
    )
    whole = recommend(of, Audience(WITH_STRANGERS), ALL, ScoreConfig(k=ITEMS, keep_seen=keep_seen), kernels)
    for user, (every, every_score, is_popular) in enumerate(zip(*lists(whole), strict=True)):
        out = denied[user] if denied else set()
        left = [
            place
            for place, item in enumerate(every)
            if item >= 0 and item not in out and (allowed is None or item in allowed)
        ][:6]
        assert popular[user] == is_popular
        assert items[user].tolist() == [*every[left], *[-1] * (6 - len(left))]
        assert scores[user].tolist() == [*every_score[left], *[-np.inf] * (6 - len(left))]


def test_one_recommender_serves_several_audiences(kernels: Kernels) -> None:
    recommender = Recommender(model(), Catalogue(np.arange(3, 20, dtype=np.int32)), ScoreConfig(k=4), kernels)
    whole = lists(recommender.lists(EVERYBODY))
    for start in (0, 11, 22):
        part = lists(recommender.lists(EVERYBODY.part(start, start + 11), block=4))
        for one, every in zip(part, whole, strict=True):
            np.testing.assert_array_equal(one, every[start : start + 11])


@pytest.mark.parametrize("least", [-1.0, 0.0, 0.9])
def test_lists_end_below_the_least_score_but_for_popular_ones(kernels: Kernels, least: float) -> None:
    of, audience = model(), Audience(WITH_STRANGERS)
    items, scores, popular = lists(recommend(of, audience, ALL, ScoreConfig(k=9, min_score=least), kernels))
    every, every_score, _ = lists(recommend(of, audience, ALL, ScoreConfig(k=9), kernels))
    kept = (every_score >= np.float32(least)) | popular[:, None]
    np.testing.assert_array_equal(items, np.where(kept, every, -1))
    np.testing.assert_array_equal(scores, np.where(kept, every_score, -np.inf))
    assert popular.sum() == 2
    assert not kept.all()


def test_a_user_of_an_older_model_with_a_zero_row_gets_the_popular_items(kernels: Kernels) -> None:
    """User 0 has nothing in the model; where items have biases, those still rank for such a user."""
    P = np.ones((30, RANK), np.float32)
    P[[0, 8]] = 0
    for biases, first in (({}, True), ({"b_v": np.ones(ITEMS, np.float32)}, False)):
        (block,) = recommend(model(P=P, **biases), Audience(np.array([0, 7, 8])), ALL, ScoreConfig(k=3), kernels)
        assert (block.reasons == POPULAR).tolist() == [first, False, False]  # 7 has a row, 8 has items
        assert (block.items[0].tolist() == [4, 9, 14]) == first


def test_blocks_shrink_with_what_users_do_not_get() -> None:
    audiences = EVERYBODY, Audience(EVERYONE, denied=csr([list(range(ITEMS))] * len(EVERYONE)))
    sizes = [block_users(model(), audience, ALL, ScoreConfig(k=10), 350_300_000) for audience in audiences]
    assert sizes[0] > sizes[1] > 0


@given(
    rows=st.lists(st.tuples(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9))), max_size=5),
    cut=st.tuples(st.integers(0, 6), st.integers(0, 6)),
)
def test_rows_are_united_and_cut_as_sets_and_lists_are(
    rows: list[tuple[set[int], set[int]]], cut: tuple[int, int]
) -> None:
    united = union_rows([csr([sorted(row[side]) for row in rows]) for side in (0, 1)], 10)
    start, end = sorted(min(at, len(rows)) for at in cut)
    part = slice_rows(united, start, end)
    found = [part.indices[a:b].tolist() for a, b in zip(part.indptr[:-1], part.indptr[1:], strict=True)]
    assert found == [sorted(a | b) for a, b in rows[start:end]]


def test_items_outside_the_catalogue_may_be_left_out_of_its_parts(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their places are never written: memory that held something else must not be read as one."""
    monkeypatch.setattr("recli.score.catalogue.np.empty_like", lambda like, **more: np.full_like(like, -99, **more))
    rng = np.random.default_rng(0)
    rows, numbers = rng.standard_normal((6, 3)).astype(np.float32), np.array([1, 4, 6, 7, 9, 11], np.int32)
    groups = np.arange(12, dtype=np.int32) % 2
    users = rng.standard_normal((5, 3)).astype(np.float32)
    left_out = [[0, 4, 8], [1], [2, 3], [], list(range(12))]
    out = csr(left_out)
    for group, part in Ranking(kernels, rows, numbers, 12).split(groups).items():
        items, _ = part.top(users, 6, out)
        allowed = [{int(n) for n in numbers if groups[n] == group} - set(left) for left in left_out]
        assert [set(row[row >= 0].tolist()) for row in items] == allowed
