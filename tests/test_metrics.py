"""Every metric equals its definition, written out user by user."""

from __future__ import annotations

import json
import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recli.ids import Csr
from recli.metrics import RankingQuality, RatingErrors, Truth

MODEL_USERS = 50


class User(NamedTuple):
    """A list, best first; truth items that the model knows; how many it does not know."""

    listed: list[int]
    known: set[int]
    unknown: int = 0


def by_definition(users: list[User], k: int, counts: list[int]) -> dict[str, float]:
    judged = [user for user in users if len(user.known) + user.unknown]
    rows = []
    for listed, known, unknown in judged:
        n = len(known) + unknown
        ranks = [rank for rank, item in enumerate(listed, 1) if item in known]
        rows.append(
            {
                "recall": len(ranks) / n,
                "recall_capped": len(ranks) / min(k, n),
                "ndcg": sum(1 / math.log2(rank + 1) for rank in ranks)
                / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, n) + 1)),
                "map": sum(sum(r <= rank for r in ranks) / rank for rank in ranks) / min(k, n),
                "hit_rate": float(bool(ranks)),
                "mrr": 1 / ranks[0] if ranks else 0.0,
            }
        )
    names = ("recall", "recall_capped", "ndcg", "map", "hit_rate", "mrr")
    means = {f"{name}@{k}": sum(row[name] for row in rows) / max(1, len(rows)) for name in names}
    shown = [item for user in users for item in user.listed]
    means[f"coverage@{k}"] = len(set(shown)) / len(counts)
    surprise = sum(-math.log2(max(1, counts[item]) / MODEL_USERS) for item in shown)
    means[f"novelty@{k}"] = surprise / max(1, len(shown))
    return means


def lists(users: list[User], k: int) -> NDArray[np.int32]:
    rows = [user.listed + [-1] * (k - len(user.listed)) for user in users]
    return np.array(rows, np.int32).reshape(len(users), k)


def truth(users: list[User]) -> Truth:
    indptr = np.append(0, np.cumsum([len(user.known) for user in users])).astype(np.int64)
    indices = np.array([item for user in users for item in sorted(user.known)], np.int32)
    sizes = np.array([len(user.known) + user.unknown for user in users], np.int64)
    return Truth(Csr(indptr, indices, np.ones(len(indices), np.float32)), sizes)


def measured(users: list[User], k: int, counts: list[int], block: int = 1000) -> dict[str, float]:
    quality = RankingQuality(k, np.array(counts, np.int64), MODEL_USERS)
    for start in range(0, len(users), block):
        quality.add(lists(users[start : start + block], k), truth(users[start : start + block]))
    assert quality.users == sum(bool(user.known or user.unknown) for user in users)
    return quality.result()


HALF_LOG = 1 / math.log2(3)


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        # a hit at rank 2 of 3, one of two truth items
        (
            [User([5, 1, 7], {1, 2})],
            {"recall": 1 / 2, "recall_capped": 1 / 2, "map": 1 / 4, "hit_rate": 1, "mrr": 1 / 2},
        ),
        ([User([5, 1, 7], {1, 2})], {"ndcg": HALF_LOG / (1 + HALF_LOG)}),
        # five truth items, K = 3: the cap and the ideal list end at 3
        ([User([1, 9, 2], {1, 2, 3, 4, 5})], {"recall": 2 / 5, "recall_capped": 2 / 3, "map": (1 + 2 / 3) / 3}),
        ([User([1, 9, 2], {1, 2, 3, 4, 5})], {"ndcg": 1.5 / (1 + HALF_LOG + 0.5)}),
        # a truth item that the model does not know cannot be hit, and counts
        ([User([1, 2, 3], {1}, unknown=1)], {"recall": 1 / 2, "recall_capped": 1 / 2, "ndcg": 1 / (1 + HALF_LOG)}),
        ([User([1, 2, 3], set(), unknown=4)], {"recall": 0, "ndcg": 0, "map": 0, "hit_rate": 0, "mrr": 0}),
        # a list that ends early, and one that is empty
        ([User([4], {4, 5})], {"recall": 1 / 2, "ndcg": 1 / (1 + HALF_LOG), "coverage": 1 / 10}),
        ([User([], {0})], {"recall": 0, "coverage": 0, "novelty": 0}),
        # users without truth are in no mean over users, but were shown items
        ([User([0, 1, 2], set()), User([0, 3, 4], {0})], {"recall": 1, "mrr": 1, "coverage": 5 / 10}),
        ([User([0, 1, 2], set())], {"recall": 0, "ndcg": 0, "coverage": 3 / 10}),
        # counts are 1, 2, 4, 8, ...: popular items surprise less
        ([User([0, 2, 4], set())], {"novelty": math.log2(MODEL_USERS) - (0 + 2 + 4) / 3}),
    ],
)
def test_examples_by_hand(users: list[User], expected: dict[str, float]) -> None:
    found = measured(users, 3, [2**item for item in range(10)])
    for name, value in expected.items():
        assert found[f"{name}@3"] == pytest.approx(value), name


@st.composite
def many_users(draw: st.DrawFn) -> tuple[list[User], int, list[int]]:
    items, k = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    item = st.integers(0, items - 1)
    user = st.builds(User, st.lists(item, unique=True, max_size=k), st.sets(item), st.integers(0, 3))
    counts = st.lists(st.integers(0, MODEL_USERS), min_size=items, max_size=items)
    return draw(st.lists(user, max_size=6)), k, draw(counts)


@settings(max_examples=300, deadline=None)
@given(many_users(), st.integers(1, 7))
def test_any_users_are_measured_by_the_definitions_whatever_the_blocks(
    case: tuple[list[User], int, list[int]], block: int
) -> None:
    users, k, counts = case
    found = measured(users, k, counts, block)
    assert found == pytest.approx(by_definition(users, k, counts), rel=1e-12, abs=1e-12)
    bounded = [value for name, value in found.items() if not name.startswith("novelty")]
    assert all(0 <= value <= 1 + 1e-12 for value in bounded)


def test_results_are_json_whatever_the_counts() -> None:
    """An item that nobody has (in data indexed elsewhere) counts as one user's; infinity is no JSON."""
    found = measured([User([0, 1], {0})], 2, [0, 1])
    assert found["novelty@2"] == pytest.approx(math.log2(MODEL_USERS))
    json.dumps(found, allow_nan=False)
    nothing = RankingQuality(2, np.zeros(0, np.int64), 0)
    json.dumps(nothing.result(), allow_nan=False)


@given(many_users(), st.lists(st.integers(-1, 5), max_size=8))
def test_rows_picks_users_and_gives_strangers_nothing(
    case: tuple[list[User], int, list[int]], wanted: list[int]
) -> None:
    users = case[0]
    positions = [at for at in wanted if at < len(users)]
    picked = truth(users).rows(np.array(positions, np.int64))
    expected = truth([users[at] if at >= 0 else User([], set()) for at in positions])
    for found, right in zip((*picked.items, picked.sizes), (*expected.items, expected.sizes), strict=True):
        np.testing.assert_array_equal(found, right)
        assert found.dtype == right.dtype


@given(st.lists(st.tuples(st.floats(-9, 9, width=32), st.floats(-9, 9, width=32)), min_size=1), st.integers(0, 99))
def test_rating_errors_are_those_of_all_blocks_together(pairs: list[tuple[float, float]], cut: int) -> None:
    predicted, ratings = np.array(pairs, np.float32).T
    errors = RatingErrors()
    for part in (slice(cut), slice(cut, None)):
        errors.add(predicted[part], ratings[part])
    exact = predicted.astype(float) - ratings
    assert errors.pairs == len(pairs)
    assert errors.result() == pytest.approx({"rmse": np.sqrt((exact**2).mean()), "mae": np.abs(exact).mean()})
