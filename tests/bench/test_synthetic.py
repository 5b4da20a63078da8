"""Made-up interactions: as many as asked for, from a seed, with what was planted in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from recli.bench import synthetic as made
from recli.bench.synthetic import Size, count_text, parse_count, parse_size, synthetic
from recli.checks import check_csr
from recli.config import FactorizeConfig
from recli.errors import UsageError
from recli.factorize import Data, Watch
from recli.factorize.ials import fit_ials
from recli.ids import Csr
from recli.kernels import load
from recli.splits import split

Array = NDArray[Any]


@pytest.mark.parametrize("size", [Size(300, 80, 2000), Size(50, 400, 1), Size(1000, 8, 1000), Size(40, 64, 320)])
def test_there_are_exactly_as_many_distinct_pairs_as_asked_for(size: Size) -> None:
    matrix = synthetic(size, 0)
    check_csr("", matrix.indptr, matrix.indices, size.users, size.items)  # rising in each row: distinct
    assert len(matrix.indices) == len(matrix.values) == size.pairs
    assert matrix.values.dtype == np.float32
    assert set(matrix.values) <= {1, 2, 3, 4, 5}
    assert np.diff(matrix.indptr).max() <= size.items / 4 + 1


def test_the_same_seed_gives_the_same_pairs_and_another_gives_others() -> None:
    first, again, other = (synthetic(Size(300, 80, 2000), seed) for seed in (0, 0, 1))
    assert all((x == y).all() for x, y in zip(first, again, strict=True))
    assert not np.array_equal(first.indices, other.indices)


def test_few_users_and_items_have_most_of_the_pairs() -> None:
    matrix = synthetic(Size(2000, 1000, 40_000), 0)
    for counts in (np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=1000)):
        largest = np.sort(counts)[::-1]
        assert largest[: len(largest) // 5].sum() > 0.45 * largest.sum()
        assert largest[len(largest) // 2] > 0


def test_what_is_planted_is_found() -> None:
    """A model of the planted rank ranks held-out pairs far above popularity, and the ratings follow the tastes."""
    matrix = synthetic(Size(1500, 300, 50_000), 0)
    parts = split(matrix, "random", 0.2, 0)
    with load("cpu", 1) as kernels:
        fit = fit_ials(Data(matrix=parts.train, items=300), FactorizeConfig(rank=8), kernels, Watch())
    popularity = np.tile(np.bincount(parts.train.indices, minlength=300), (1500, 1))
    assert hits(fit.P @ fit.Q.T, parts.train, parts.test) > 1.3 * hits(popularity, parts.train, parts.test)
    values = dense(matrix, (1500, 300), matrix.values)
    predicted = (fit.P @ fit.Q.T)[values > 0]
    assert np.corrcoef(predicted, values[values > 0])[0, 1] > 0.15


def dense(matrix: Csr, shape: tuple[int, ...], values: Array) -> Array:
    return sp.csr_array((values, matrix.indices, matrix.indptr), shape).toarray()


def hits(scores: Array, train: Csr, test: Csr) -> int:
    """Held-out pairs among each user's best 20."""
    seen, wanted = (dense(matrix, scores.shape, np.ones(len(matrix.indices))) for matrix in (train, test))
    best = np.argsort(-np.where(seen > 0, -np.inf, scores), axis=1)[:, :20]
    return int(np.take_along_axis(wanted, best, axis=1).sum())


def test_neither_threads_nor_batches_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    size = Size(400, 200, 8000)
    whole = synthetic(size, 7)
    monkeypatch.setattr(made, "BATCH", 100)
    for threads in (1, 3):
        assert all((x == y).all() for x, y in zip(whole, synthetic(size, 7, threads), strict=True))


def test_users_who_want_too_much_still_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tastes that no item meets, the most popular ones."""
    monkeypatch.setattr(made, "BAR", 1e6)
    matrix = synthetic(Size(20, 80, 200), 0)
    assert len(matrix.indices) == 200
    counts = np.bincount(matrix.indices, minlength=80)
    assert np.count_nonzero(counts) == np.diff(matrix.indptr).max()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100kx10kx7M", (100_000, 10_000, 7_000_000)),
        ("1200x600x25000", (1200, 600, 25_000)),
        ("1.5kX1K x 2k", (1500, 1000, 2000)),
    ],
)
def test_sizes_are_users_items_and_pairs(text: str, size: tuple[int, int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "100k", "100kx10k", "axbxc", "10x10x", "-1x10x10", "0x10x5", "10x10x10x10", "1e3x9x9"]
)
def test_other_sizes_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match=r"--synthetic .*: expected USERSxITEMSxPAIRS, as 100kx10kx7M"):
        parse_size(text)


def test_what_would_be_too_full_is_a_usage_error() -> None:
    with pytest.raises(
        UsageError, match=r"--synthetic 100x80x2k: expected at most an eighth of all pairs, 1k.*found 100x80x2k"
    ):
        parse_size("100x80x2k")


@pytest.mark.parametrize(
    ("count", "text"), [(7_000_000, "7M"), (1_500_000, "1.5M"), (10_000, "10k"), (999, "999"), (1234, "1234"), (0, "0")]
)
def test_counts_are_short_where_they_can_be(count: int, text: str) -> None:
    assert count_text(count) == text
    assert parse_count(text) == count
