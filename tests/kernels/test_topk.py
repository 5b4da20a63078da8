"""Every backend's top-K lists are those of a sort over all scores, bit for bit, ties and near-ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recli.ids import Csr
from recli.kernels import load
from recli.kernels.cpu import topk
from recli.kernels.cpu.byte_tile import ITEMS, USERS
from recli.kernels.spec import Floats, Kernels, Nums

SMALL = {"BLOCK_USERS": USERS, "SPAN_TILES": 1, "PER_K": 0, "SPARE": ITEMS + 1}


def score(user: Floats, item: Floats) -> np.float32:
    """kernels/spec.py word for word: 8 lanes in float64, then halved."""
    lanes = [0.0] * 8
    for column, (x, y) in enumerate(zip(user.tolist(), item.tolist(), strict=True)):
        lanes[column % 8] += x * y
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
    return np.float32(lanes[0]) + np.float32(0)


def brute_force(users: Floats, items: Floats, k: int, left_out: list[list[int]] | None = None) -> tuple[Nums, Floats]:
    nums, scores = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
    for u, user in enumerate(users):
        rated = [(score(user, item), i) for i, item in enumerate(items) if not left_out or i not in left_out[u]]
        for place, (value, i) in enumerate(sorted(rated, key=lambda pair: (-pair[0], pair[1]))[:k]):
            nums[u, place], scores[u, place] = i, value
    return nums, scores


def lists(rows: list[list[int]]) -> Csr:
    indptr = np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64)
    return Csr(indptr, np.array([i for row in rows for i in row], np.int32), np.zeros(0, np.float32))


def assert_exact(
    kernels: Kernels, users: Floats, items: Floats, k: int, left_out: list[list[int]] | None = None
) -> None:
    nums, scores = kernels.topk(kernels.index_items(items), users, k, lists(left_out) if left_out else None)
    expected_nums, expected_scores = brute_force(users, items, k, left_out)
    assert (nums.dtype, scores.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(nums, expected_nums)
    np.testing.assert_array_equal(scores.view(np.uint32), expected_scores.view(np.uint32))  # -0 is not +0 here


def whole_numbers(rng: np.random.Generator, n: int, rank: int) -> Floats:
    """Rows with many equal scores: every tie is decided by the item number alone."""
    return rng.integers(-2, 3, (n, rank)).astype(np.float32)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of users and of items, and room for few candidates, so that they are dropped and rescored on the way."""
    for name, value in SMALL.items():
        monkeypatch.setattr(topk, name, value)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("items", [1, ITEMS - 1, ITEMS, ITEMS + 1, 3 * ITEMS])
@pytest.mark.parametrize("users", [0, 1, USERS - 1, USERS, USERS + 1, 3 * USERS])
def test_counts_around_the_tiles(kernels: Kernels, users: int, items: int) -> None:
    rng = np.random.default_rng(users * 100 + items)
    assert_exact(kernels, whole_numbers(rng, users, 5), whole_numbers(rng, items, 5), min(4, items))


@pytest.mark.parametrize("rank", [0, 1, 8, 15, 16, 17, 64, 130])
def test_any_rank(kernels: Kernels, rank: int) -> None:
    rng = np.random.default_rng(rank)
    users, items = (rng.standard_normal((n, rank)).astype(np.float32) for n in (9, 70))
    assert_exact(kernels, users, items, 12)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("k", [1, 2, 70, 71, 200])
def test_any_k_up_to_more_than_the_catalogue(kernels: Kernels, k: int) -> None:
    rng = np.random.default_rng(k)
    left_out = [sorted(rng.choice(70, n, replace=False).tolist()) for n in (0, 1, 35, 69, 70)]
    assert_exact(kernels, whole_numbers(rng, 5, 3), whole_numbers(rng, 70, 3), k, left_out)


def test_an_empty_catalogue_gives_empty_lists(kernels: Kernels) -> None:
    assert_exact(kernels, np.ones((2, 3), np.float32), np.zeros((0, 3), np.float32), 2)


@pytest.mark.usefixtures("small_tiles")
def test_ties_go_to_the_lower_item_number(kernels: Kernels) -> None:
    """All-zero users, duplicated items, items that differ in norm but not in score, and negative zeros."""
    rng = np.random.default_rng(0)
    half = whole_numbers(rng, 40, 4)
    items = np.vstack([half, half[::-1], -half])
    items[:, 3] = rng.integers(0, 9, len(items))  # norms that no score shows
    users = np.vstack([np.zeros((3, 4)), whole_numbers(rng, 9, 4)]).astype(np.float32)
    users[:, 3] = 0
    users[1] = -users[1]  # -0
    assert np.signbit(users[1]).all()
    assert_exact(kernels, users, items, 20)


def test_best_scores_that_are_negative(kernels: Kernels) -> None:
    """The small items, which a search comes to last, are the best; pruning by norms must not drop them."""
    rng = np.random.default_rng(0)
    items = np.abs(rng.standard_normal((3000, 6)) * np.logspace(3, -3, 3000)[:, None]).astype(np.float32)
    users = -np.abs(rng.standard_normal((4, 6))).astype(np.float32)
    assert_exact(kernels, users, items, 5)
    assert brute_force(users, items, 1)[0].min() > 2500


@pytest.mark.parametrize(("user_norm", "item_norm"), [(1e18, 1e18), (1e-30, 1e-30), (4e-22, 4e-22), (1e18, 1e-30)])
def test_huge_and_tiny_norms(kernels: Kernels, user_norm: float, item_norm: float) -> None:
    """Scores up to 1e36, at the edge of float32's smallest numbers, and below it, where all become ties at zero."""
    rng = np.random.default_rng(0)
    users = (rng.standard_normal((6, 60)) * user_norm / 9).astype(np.float32)
    items = (rng.standard_normal((200, 60)) * item_norm / 9).astype(np.float32)
    items[::5] = -items[::5]
    assert_exact(kernels, users, items, 11)


@pytest.mark.parametrize("scale", [1.0, 2.0**40, 2.0**-50])
def test_near_ties_that_a_float32_product_puts_in_the_wrong_order(kernels: Kernels, scale: float) -> None:
    """Columns come in pairs that cancel, so that float32 loses what decides: a margin must keep the true best in.

    One tile has norms from 1 to 1000 times the smallest, and the margin must be that of the largest.
    """
    rng = np.random.default_rng(0)
    big = (rng.uniform(1, 2, (400, 15)) * np.logspace(0, 3, 400)[:, None]).astype(np.float32)
    decides = rng.uniform(-1e-3, 1e-3, (400, 2)).astype(np.float32)
    items = np.hstack([big, -big, decides]) * np.float32(scale)
    users = np.hstack([np.ones((20, 30)), rng.uniform(0.5, 1, (20, 2))]).astype(np.float32)
    by_float32 = np.argsort(-(users @ items.T), axis=1, kind="stable")[:, :10]
    expected = brute_force(users, items, 10)[0]
    assert (by_float32 != expected).mean() > 0.5  # the trap is one
    assert not np.isin(expected, by_float32).all()
    assert_exact(kernels, users, items, 10)


def test_rounding_errors_that_add_up_stay_within_the_margin(kernels: Kernels) -> None:
    """The best item's float32 sum loses the last bits of each product alike: with OpenBLAS an eighth of what theory
    allows, and more. The others' is exact, and they come first.
    """
    items = np.ones((40, 257), np.float32)
    items[:, 0] = 1 + 0.9 * 2.0**-10
    items[7] = 1 + 2.0**-18
    items[:, 256], items[7, 256] = 1, 0  # norms that no score shows
    users = np.ones((16, 257), np.float32)
    users[:, 256] = 0
    assert brute_force(users[:1], items, 1)[0] == 7
    assert_exact(kernels, users, items, 1)


@pytest.mark.usefixtures("small_tiles")
def test_a_tie_that_lies_just_beyond_the_cauchy_schwarz_bound_is_found(kernels: Kernels) -> None:
    """Items parallel to the user but for a hair: all scores round to one number, here and there to one above |x| |y|.

    Lower item numbers, which win, have the lower norms, which a search comes to last.
    """
    for user in np.random.default_rng(0).standard_normal((10, 24)).astype(np.float32):
        user[0] = 1e-3
        items = np.repeat(user[None], 200, axis=0)
        items[:, 0] *= 1 + np.arange(200, dtype=np.float32) * np.float32(2.0**-22)
        assert_exact(kernels, user[None], items, 9)


@pytest.mark.parametrize("rank", [0, 5, 16, 17])
def test_an_index_is_its_arrays_whoever_made_them_and_wherever_they_are(kernels: Kernels, rank: int) -> None:
    rng = np.random.default_rng(rank)
    users, items = whole_numbers(rng, 9, rank), whole_numbers(rng, 70, rank)
    expected = brute_force(users, items, 12)
    for name in ("reference", "cpu"):
        with load(name, 1) as maker:
            arrays = maker.index_arrays(maker.index_items(items))
        assert {key: array.dtype for key, array in arrays.items()} == {
            "rows": np.float32,
            "norms": np.float64,
            "order": np.int32,
        }
        assert not arrays["rows"][:, rank:].any()
        assert (np.diff(arrays["norms"]) <= 0).all()
        for array in arrays.values():
            array.flags.writeable = False  # as from a file
        found = kernels.topk(kernels.index_from(arrays), users, 12, None)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_threads_change_no_bit(fast: Kernels) -> None:
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 20)).astype(np.float32) for n in (150, 2100))
    results = []
    for threads in (1, 3):
        with load(fast.name, threads) as kernels:
            nums, scores = kernels.topk(kernels.index_items(items), users, 7, None)
            results.append((nums.tobytes(), scores.tobytes()))
    assert results[0] == results[1]


def small_floats(*shape: int) -> st.SearchStrategy[NDArray[np.float32]]:
    values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1 + 2.0**-23, 3e-20, -1e-38, 7e8])
    size = int(np.prod(shape))
    return st.lists(values, min_size=size, max_size=size).map(lambda v: np.array(v, np.float32).reshape(shape))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_list_equals_brute_force(kernels: Kernels, data: st.DataObject) -> None:
    users, items, rank = (data.draw(st.integers(1, most)) for most in (4, 40, 4))
    k = data.draw(st.integers(1, items + 2))
    subset = st.sets(st.integers(0, items - 1)).map(sorted)
    left_out = data.draw(st.none() | st.lists(subset, min_size=users, max_size=users))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(topk, name, value)
        assert_exact(kernels, data.draw(small_floats(users, rank)), data.draw(small_floats(items, rank)), k, left_out)
