"""Counting sorts give the same rows on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from recli import sorting
from recli.ids import SortedPairs, to_csr, transpose


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of all lengths, empty ones among them, and one with most of the entries."""
    rng = np.random.default_rng(0)
    users = np.where(rng.random(3000) < 0.6, 3, rng.integers(0, 400, 3000)).astype(np.int32)
    items = rng.integers(0, 90, 3000).astype(np.int32)
    values = rng.standard_normal(3000).astype(np.float32)
    expected = sorted(range(3000), key=lambda at: (users[at], items[at]))
    monkeypatch.setattr(sorting.nb, "get_num_threads", lambda: threads)
    monkeypatch.setattr(sorting, "FEW", 1)
    pairs = SortedPairs.of([users[:700], users[700:]], [items[:700], items[700:]], 400)
    assert pairs.positions.tolist() == expected
    assert pairs.items.tolist() == items[expected].tolist()
    assert pairs.indptr.tolist() == np.searchsorted(np.sort(users), np.arange(401)).tolist()
    assert pairs.repeated == 3000 - len(set(zip(users, items, strict=True)))
    places, groups = pairs.repeats()
    keys = users[expected] * 90 + items[expected]
    again = np.isin(keys, [key for key, count in zip(*np.unique(keys, return_counts=True), strict=True) if count > 1])
    assert places.tolist() == np.flatnonzero(again).tolist()
    np.testing.assert_array_equal(np.unique(keys[again], return_inverse=True)[1] + 1, groups)
    matrix, _ = to_csr(users, items, values, 400, 90, "last")
    dense, turned = np.zeros((400, 90), np.float32), np.zeros((90, 400), np.float32)
    dense[users, items] = values  # the last one of a place stays
    by_item = transpose(matrix, 90)
    turned[np.repeat(np.arange(90), np.diff(by_item.indptr)), by_item.indices] = by_item.values
    np.testing.assert_array_equal(turned, dense.T)
