"""Predictions of pairs: the model's number, and what is left of it for users and items that it does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recli.artifacts import PAIR_REASONS, Factors
from recli.errors import BusyError, DataError
from recli.ids import Ids
from recli.kernels import load
from recli.kernels.spec import Kernels
from recli.score import block_pairs, predict

USERS, ITEMS, RANK = 7, 9, 5


@pytest.fixture(scope="module", params=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 2) as backend:
        yield backend


def model(**changes: Any) -> Factors:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "P": rng.standard_normal((USERS, RANK)).astype(np.float32),
        "Q": rng.standard_normal((ITEMS, RANK)).astype(np.float32),
        "b_u": rng.standard_normal(USERS).astype(np.float32),
        "b_v": rng.standard_normal(ITEMS).astype(np.float32),
        "b": np.array(3.5, np.float32),
        **changes,
    }
    for array in arrays.values():
        array.flags.writeable = False
    counts = np.zeros(ITEMS, np.int64)
    return Factors(**arrays, user_ids=Ids(np.arange(USERS)), item_ids=Ids(np.arange(ITEMS)), item_counts=counts)


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(-1, USERS - 1), st.integers(-1, ITEMS - 1)), max_size=30),
    zero=st.sets(st.sampled_from(["b_u", "b_v", "b"])),
)
def test_every_pair_gets_what_the_model_knows_of_it(
    kernels: Kernels, pairs: list[tuple[int, int]], zero: set[str]
) -> None:
    of = model(**{name: np.zeros_like(getattr(model(), name)) for name in zero})
    nums = np.array(pairs, np.int64).reshape(-1, 2).T
    scores, reasons = predict(of, *nums, kernels)
    assert (scores.dtype, reasons.dtype) == (np.float32, np.uint8)
    for (u, v), score, reason in zip(pairs, scores, reasons, strict=True):
        expected = float(of.b)
        expected += float(of.b_u[u]) if u >= 0 else 0
        expected += float(of.b_v[v]) if v >= 0 else 0
        expected += float(of.P[u].astype(float) @ of.Q[v]) if u >= 0 and v >= 0 else 0
        assert score == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert (
            PAIR_REASONS[reason]
            == {
                (True, True): "model",
                (False, True): "unknown user",
                (True, False): "unknown item",
                (False, False): "unknown user and item",
            }[u >= 0, v >= 0]
        )


def test_a_pair_has_the_score_that_lists_give_it(kernels: Kernels) -> None:
    of = model()
    nums, listed = kernels.topk(kernels.index_items(of.item_rows()), of.user_rows(slice(None)), ITEMS, None)
    users = np.repeat(np.arange(USERS), ITEMS)
    scores, _ = predict(of, users, nums.ravel().astype(np.int64), kernels)
    np.testing.assert_array_equal(scores.view(np.uint32), listed.ravel().view(np.uint32))


def test_a_model_without_factors_predicts_from_biases(kernels: Kernels) -> None:
    of = model(P=np.zeros((USERS, 0), np.float32), Q=np.zeros((ITEMS, 0), np.float32))
    scores, reasons = predict(of, np.array([1, 2]), np.array([3, -1]), kernels)
    np.testing.assert_allclose(scores, [of.b + of.b_u[1] + of.b_v[3], of.b + of.b_u[2]], rtol=1e-6)
    assert reasons.tolist() == [0, 2]


@pytest.mark.parametrize(("users", "items"), [([0], [0]), ([1, -1], [0, 0])], ids=["factors", "biases"])
def test_scores_that_overflow_are_refused(kernels: Kernels, users: list[int], items: list[int]) -> None:
    of = model(
        P=np.full((USERS, RANK), 3e38, np.float32) * np.eye(USERS, 1, dtype=np.float32),  # user 0 only
        b=np.array(3e38, np.float32),
        b_v=np.full(ITEMS, 3e38, np.float32),
    )
    with pytest.raises(DataError, match="overflow float32: factorize with a larger --reg"):
        predict(of, np.array(users), np.array(items), kernels)


def test_blocks_shrink_with_the_memory_down_to_what_is_said_to_be_enough() -> None:
    of, most = model(), block_pairs(model(), None, beside=0)
    sizes = [block_pairs(of, limit, beside=1_000_000) for limit in range(352_000_000, 440_000_000, 5_000_000)]
    assert sizes == sorted(sizes)
    assert 1 <= sizes[0] < sizes[-1] == most
    with pytest.raises(BusyError, match=r"predicting pairs needs at least [0-9.]+G") as caught:
        block_pairs(of, 1_000_000, beside=10**9)
    said = re.search(r"least ([0-9.]+)G", str(caught.value))
    assert said
    assert block_pairs(of, int(float(said[1]) * 2**30), beside=10**9) >= 1
