"""Entries to CSR rows, whatever their order and repeats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recli.config import DUPLICATES
from recli.ids import Csr, Ids, to_csr, transpose

Entry = tuple[int, int, float]
MERGE = {
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "sum": sum,
    "mean": lambda values: sum(values) / len(values),
    "max": max,
}


def columns(entries: list[Entry]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    users, items, values = zip(*entries, strict=True) if entries else ((), (), ())
    return np.array(users, np.int32), np.array(items, np.int32), np.array(values, np.float32)


def dense(matrix: Csr, shape: tuple[int, int]) -> NDArray[np.float32]:
    out = np.full(shape, np.nan, np.float32)
    row = np.repeat(np.arange(shape[0]), np.diff(matrix.indptr))
    out[row, matrix.indices] = matrix.values
    return out


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Entry], int, int]:
    users, items = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    entry = st.tuples(st.integers(0, users - 1), st.integers(0, items - 1), st.sampled_from([0.5, -2.0, 3.0, 0.0]))
    return draw(st.lists(entry, max_size=30)), users, items


@pytest.mark.parametrize("duplicates", MERGE)
@given(case=tables())
def test_csr_is_what_a_dictionary_of_pairs_gives(duplicates: str, case: tuple[list[Entry], int, int]) -> None:
    entries, users, items = case
    pairs: dict[tuple[int, int], list[float]] = {}
    for user, item, value in entries:
        pairs.setdefault((user, item), []).append(value)
    matrix, repeated = to_csr(*columns(entries), users, items, duplicates)
    expected = np.full((users, items), np.nan, np.float32)
    for pair, values in pairs.items():
        expected[pair] = MERGE[duplicates](values)
    np.testing.assert_array_equal(dense(matrix, (users, items)), expected)
    assert repeated == len(entries) - len(pairs)
    assert len(matrix.indices) == matrix.indptr[-1] == len(pairs)
    rows = np.split(matrix.indices, matrix.indptr[1:-1])
    assert all((np.diff(row) > 0).all() for row in rows)
    assert [array.dtype for array in matrix] == [np.int64, np.int32, np.float32]
    assert all(array.flags.c_contiguous for array in matrix)


@given(case=tables())
def test_transposing_keeps_every_entry(case: tuple[list[Entry], int, int]) -> None:
    entries, users, items = case
    matrix, _ = to_csr(*columns(entries), users, items, "last")
    turned = transpose(matrix, items)
    np.testing.assert_array_equal(dense(turned, (items, users)), dense(matrix, (users, items)).T)
    assert [array.dtype for array in turned] == [np.int64, np.int32, np.float32]
    assert all((np.diff(row) > 0).all() for row in np.split(turned.indices, turned.indptr[1:-1]))
    for found, right in zip(transpose(turned, users), matrix, strict=True):
        np.testing.assert_array_equal(found, right)


def test_sums_are_taken_in_float64() -> None:
    entries = [(0, 0, 2.0**24), *[(0, 0, 1.0)] * 8, (1, 0, 3e38), (1, 0, 3e38), (1, 0, -3e38)]
    matrix, repeated = to_csr(*columns(entries), 2, 1, "sum")
    assert matrix.values.tolist() == [2.0**24 + 8, np.float32(3e38)]
    assert repeated == 10


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_that_overflow_become_infinite_without_a_warning(sign: int) -> None:
    """The reader refuses them with the file's name; a warning of NumPy's before that helps nobody."""
    matrix, _ = to_csr(*columns([(0, 0, sign * 3e38)] * 2), 1, 1, "sum")
    assert matrix.values.tolist() == [sign * np.inf]


def test_every_way_that_is_offered_is_tested() -> None:
    assert {*MERGE, "error"} == set(DUPLICATES)


def test_the_number_of_ids_is_known_for_integers_and_text() -> None:
    assert len(Ids(np.arange(3))) == 3
    assert len(Ids(np.zeros(0, np.uint8), np.array([0, 0, 0]))) == 2  # two empty texts
    assert len(Ids(np.frombuffer("aé".encode(), np.uint8), np.array([0, 1, 3]))) == 2
