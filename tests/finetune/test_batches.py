"""Batches: every pair once an epoch, in orders that depend on the seed and the epoch alone, and what negatives are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from recli.finetune.batches import Batches, Distinct, PairBatch, mark_others
from recli.ids import Csr
from tests.finetune.models import csr

ITEMS = 30


def random_matrix(users: int = 40, items: int = ITEMS, share: float = 0.3, seed: int = 0) -> Csr:
    """Each value tells its pair; some users have nothing."""
    rng = np.random.default_rng(seed)
    there = rng.random((users, items)) < share
    there[::7] = False
    return csr({u: {int(i): u * items + float(i) for i in np.flatnonzero(there[u])} for u in range(users)}, users)


def batches_of(matrix: Csr, had: Csr | None = None, items: int = ITEMS, **settings: Any) -> Batches:
    chosen = {"size": 16, "negatives": 3, "popular": False, "seed": 0, **settings}
    return Batches(matrix, matrix if had is None else had, items, **chosen)


def triples(batch: PairBatch) -> list[tuple[int, int, float]]:
    return [*zip(batch.users.tolist(), batch.items[:, 0].tolist(), batch.targets.tolist(), strict=True)]


def stored(matrix: Csr) -> list[tuple[int, int, float]]:
    users = np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))
    return [*zip(users.tolist(), matrix.indices.tolist(), matrix.values.tolist(), strict=True)]


def content(batches: Batches, number: int) -> list[bytes]:
    return [array.tobytes() for batch in batches.epoch(number) for array in batch]


def parts(batches: Batches, number: int) -> list[list[tuple[int, int, float]]]:
    return [triples(batch) for batch in batches.epoch(number)]


@given(
    pairs=st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 7)), st.integers(-5, 5), min_size=1),
    size=st.integers(1, 60),
    negatives=st.integers(0, 4),
    popular=st.booleans(),
    number=st.integers(0, 3),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_pair_is_there_once_an_epoch(
    pairs: dict[tuple[int, int], int], size: int, negatives: int, popular: bool, number: int, seed: int
) -> None:
    rows: dict[int, dict[int, float]] = {}
    for (user, item), value in pairs.items():
        rows.setdefault(user, {})[item] = value
    matrix = csr(rows, 6)
    batches = batches_of(matrix, items=8, size=size, negatives=negatives, popular=popular, seed=seed)
    epoch = [*batches.epoch(number)]
    assert sorted(triple for batch in epoch for triple in triples(batch)) == stored(matrix)
    assert 0 < len(epoch) <= len(batches) == -(-len(pairs) // size)
    for batch in epoch:
        shape = len(batch.users), 1 + negatives
        assert batch.items.shape == batch.kept.shape == shape
        assert shape[0] == len(batch.targets) > 0
        dtypes = [array.dtype for array in batch]
        assert dtypes == [np.int32, np.int32, np.float32, np.bool_]
        assert batch.items.min() >= 0
        assert batch.items.max() < 8
        assert (np.diff(batch.users) >= 0).all()
        assert batch.kept[:, 0].all()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    matrix = random_matrix()
    batches = batches_of(matrix)
    first = parts(batches, 0)
    assert [part for part in parts(batches, 1) if part in first] == []
    assert [part for part in parts(batches_of(matrix, seed=1), 0) if part in first] == []
    drawn = [np.concatenate([batch.items[:, 1:].ravel() for batch in batches.epoch(number)]) for number in range(2)]
    assert (drawn[0] == drawn[1]).mean() < 0.1


@pytest.mark.parametrize("popular", [True, False])
def test_an_epoch_depends_on_the_seed_and_its_number_alone(popular: bool) -> None:
    """Not on the epochs before it: a run goes on as it would have."""
    one, other = (batches_of(random_matrix(), popular=popular, seed=2**63 - 1) for _ in range(2))
    whole = [content(one, number) for number in range(4)]
    assert [content(other, number) for number in (3, 1, 1)] == [whole[3], whole[1], whole[1]]
    partly = one.epoch(0)
    next(partly)
    assert content(one, 0) == whole[0]


def test_batches_have_about_the_size_that_was_asked_for() -> None:
    matrix = random_matrix(300, 100, 0.4)
    pairs = len(matrix.indices)
    batches = batches_of(matrix, items=100, size=128, negatives=0)
    sizes = np.array([len(batch.users) for batch in batches.epoch(0)])
    assert len(sizes) == len(batches) == -(-pairs // 128)
    assert sizes.sum() == pairs
    assert chisquare(sizes).pvalue > 1e-3  # as if each pair drew its batch
    assert len(set(sizes.tolist())) > 5
    assert len([*batches_of(matrix, items=100, size=10**6).epoch(0)]) == 1


def test_pairs_meet_others_in_their_batch_each_epoch() -> None:
    """Of two batches: two pairs are in the same one half of the time."""
    matrix = csr({0: {0: 1.0, 1: 2.0}, 1: {2: 3.0}}, 2)
    batches = batches_of(matrix, size=2, negatives=0)
    together = sum(any({1.0, 2.0} <= set(b.targets.tolist()) for b in batches.epoch(n)) for n in range(400))
    assert 150 < together < 250


@pytest.mark.parametrize("popular", [True, False])
def test_a_negative_that_the_user_has_is_never_kept(popular: bool) -> None:
    """Of what they have, the pairs to learn from are a part; the pair's own item is none either."""
    had = random_matrix(share=0.5)
    users = np.repeat(np.arange(40), np.diff(had.indptr))
    table = np.zeros((40, ITEMS), bool)
    table[users, had.indices] = True
    matrix = csr({u: {int(had.indices[had.indptr[u]]): 1.0} for u in np.flatnonzero(np.diff(had.indptr))}, 40)
    dropped = 0
    for number in range(3):
        for batch in batches_of(matrix, had, negatives=20, popular=popular).epoch(number):
            has = table[batch.users[:, None], batch.items]
            np.testing.assert_array_equal(batch.kept[:, 1:], ~has[:, 1:])
            assert batch.kept[:, 0].all()
            dropped += int((~batch.kept).sum())
    assert dropped > 100


def test_a_user_who_has_everything_has_no_negatives() -> None:
    matrix = csr({0: dict.fromkeys(range(ITEMS), 1.0), 1: {3: 1.0}}, 2)
    for batch in batches_of(matrix, negatives=50, size=100).epoch(0):
        assert not batch.kept[batch.users == 0, 1:].any()
        assert batch.kept[batch.users == 1, 1:].sum() > 40
        assert not batch.kept[:, 1:][batch.items[:, 1:] == batch.items[:, :1]].any()


def drawn(popular: bool) -> tuple[NDArray[np.int64], NDArray[np.int64], Batches]:
    """How often each item is a negative, and a pair's own, of items with very different numbers of pairs."""
    rng = np.random.default_rng(3)
    there = rng.random((400, 12)) < np.geomspace(0.01, 0.9, 12)
    matrix = csr({u: {int(i): 1.0 for i in np.flatnonzero(there[u])} for u in range(400)}, 400)
    batches = batches_of(matrix, items=12, negatives=20, popular=popular, size=64)
    epoch = [*batches.epoch(0)]
    negatives = np.bincount(np.concatenate([batch.items[:, 1:].ravel() for batch in epoch]), minlength=12)
    return negatives, there.sum(axis=0), batches


def test_negatives_are_drawn_as_often_as_pairs_have_their_item() -> None:
    counts, pairs, batches = drawn(True)
    share = pairs / pairs.sum()
    assert pairs.min() > 0
    assert chisquare(counts, share * counts.sum()).pvalue > 1e-3
    np.testing.assert_allclose(np.exp(batches.log_odds), share, rtol=1e-12)


def test_negatives_are_drawn_from_all_items_alike() -> None:
    counts, _, batches = drawn(False)
    assert chisquare(counts).pvalue > 1e-3
    np.testing.assert_allclose(batches.log_odds, np.log(np.full(12, 1 / 12)), rtol=1e-12)


def test_items_without_pairs_are_never_drawn_by_popularity_and_their_odds_are_finite() -> None:
    matrix = csr({0: {1: 1.0}, 1: {1: 1.0, 4: 1.0}}, 2)
    batches = batches_of(matrix, items=6, negatives=100, popular=True)
    items = {int(item) for batch in batches.epoch(0) for item in batch.items.ravel()}
    assert items == {1, 4}
    np.testing.assert_allclose(batches.log_odds, np.log(np.array([1, 2, 1, 1, 1, 1]) / 3))


def test_without_pairs_there_are_no_batches() -> None:
    batches = batches_of(csr({}, 3))
    assert len(batches) == 0
    assert [*batches.epoch(0)] == []


@given(st.data())
def test_others_are_marked_as_numpy_finds_them(data: st.DataObject) -> None:
    """Some rows are empty, some full; users come in any order and again."""
    table = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=5)))
    had = csr({u: {int(i): 1.0 for i in np.flatnonzero(row)} for u, row in enumerate(table)}, len(table))
    users = np.array(data.draw(st.lists(st.integers(0, len(table) - 1), max_size=6)), np.int32)
    m = data.draw(st.integers(0, 5))
    each = st.lists(st.integers(0, 8), min_size=m + 1, max_size=m + 1)
    items = np.array(data.draw(st.lists(each, min_size=len(users), max_size=len(users))), np.int32).reshape(-1, m + 1)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=items.size, max_size=items.size)), bool)
    kept = kept.reshape(items.shape)
    first = kept[:, 0].copy()
    mark_others(had.indptr, had.indices, users, items, kept)
    wanted = ~table[users[:, None], items] & (items != items[:, :1])
    np.testing.assert_array_equal(kept[:, 1:], wanted[:, 1:])
    np.testing.assert_array_equal(kept[:, 0], first)  # which is the pair's own


@given(st.lists(st.lists(st.integers(0, 40)), min_size=1, max_size=4))
def test_distinct_numbers_are_those_of_numpy(rounds: list[list[int]]) -> None:
    """One after the other, as batches are: what an earlier one wrote is of no matter."""
    distinct = Distinct(41)
    for nums in rounds:
        given_ = np.array(nums, np.int32)
        found, at = distinct(given_)
        expected, inverse = np.unique(given_, return_inverse=True)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(at, inverse)
        assert (found.dtype, at.dtype) == (np.int64, np.int32)
        assert given_.tolist() == nums
