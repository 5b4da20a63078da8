"""Artifacts check themselves: each fault is a DataError that names the array, what was expected and what was found."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recli.artifacts import Arrays, Factors, Interactions, Provenance
from recli.errors import DataError

F, I32, I64 = np.float32, np.int32, np.int64
TEXT = {"item_ids_utf8": np.frombuffer("aéb".encode(), np.uint8), "item_ids_offsets": np.array([0, 1, 3, 4])}


def interactions(**changes: Any) -> Arrays:
    """Three users, the second without entries, and four items; a change to None leaves an array out."""
    arrays: Arrays = {
        "indptr": np.array([0, 2, 2, 3]),
        "indices": np.array([0, 3, 1], I32),
        "data": np.array([1, 2, 3], F),
        "weighted": np.array(True),
        "user_ids": np.array([7, 8, 9]),
        "item_ids": np.array([1, 2, 3, 4], np.uint8),
    }
    return changed(arrays, changes)


def factors(**changes: Any) -> Arrays:
    arrays: Arrays = {
        "P": np.ones((2, 5), F),
        "Q": np.ones((3, 5), F),
        "b_u": np.zeros(2, F),
        "b_v": np.zeros(3, F),
        "b": np.array(0, F),
        "item_counts": np.array([1, 0, 2]),
        "seen_indptr": np.array([0, 1, 3]),
        "seen_indices": np.array([2, 0, 1], I32),
        "user_ids": np.array([7, 8], np.int16),
        **TEXT,
    }
    return changed(arrays, changes)


def changed(arrays: Arrays, changes: dict[str, Any]) -> Arrays:
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


@pytest.mark.parametrize(
    ("kind", "arrays"),
    [
        (Interactions, interactions()),
        (Interactions, interactions(weighted=np.array(False))),
        (Interactions, interactions(item_ids=None, **{**TEXT, "item_ids_offsets": np.array([0, 1, 3, 4, 4])})),
        (Factors, factors()),
        (Factors, factors(seen_indptr=None, seen_indices=None)),
        (Factors, factors(P=np.ones((2, 0), F), Q=np.ones((3, 0), F))),
        (Factors, factors(seen_indptr=np.zeros(3, I64), seen_indices=np.zeros(0, I32))),
    ],
)
def test_arrays_come_back_as_they_went(kind: type[Interactions] | type[Factors], arrays: Arrays) -> None:
    provenance = Provenance(command="test")
    artifact = kind.from_arrays(arrays, provenance)
    again = artifact.arrays()
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)
    assert artifact.provenance is provenance


NAN, INF = np.nan, np.inf
LENGTHS = "expected to rise from 0 to"
ROWS = "expected to rise within each row"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # missing
        ({"indptr": None}, "array indptr is missing; found data, indices, item_ids, user_ids, weighted"),
        ({"data": None}, "array data is missing"),
        ({"weighted": None}, "array weighted is missing"),
        ({"item_ids": None}, "array item_ids is missing"),
        # types and shapes
        ({"indptr": np.array([0, 2, 2, 3], I32)}, "array indptr: expected int64[4], found int32[4]"),
        ({"indptr": np.array([0, 2, 3])}, "array indptr: expected int64[4], found int64[3]"),
        ({"indptr": np.array(0)}, "array indptr: expected int64[4], found int64[]"),
        ({"indices": np.array([0, 3, 1])}, "array indices: expected int32[3], found int64[3]"),
        ({"indices": np.array([[0, 3, 1]], I32)}, "array indices: expected int32[3], found int32[1, 3]"),
        ({"indices": np.array(0, I32)}, "array indices: expected int32[1], found int32[]"),
        ({"data": np.array([1, 2, 3])}, "array data: expected float32[3], found int64[3]"),
        ({"data": np.ones(3, ">f4")}, "array data: expected float32[3], found >f4[3]"),
        ({"data": np.ones(2, F)}, "array data: expected float32[3], found float32[2]"),
        ({"weighted": np.array(0.5)}, "array weighted: expected bool[], found float64[]"),
        ({"weighted": np.array([True, False])}, "array weighted: expected bool[], found bool[2]"),
        # values
        ({"data": np.array([1, NAN, 3], F)}, "array data: expected finite numbers, found NaN or infinity"),
        ({"data": np.array([1, INF, 3], F)}, "array data: expected finite numbers, found NaN or infinity"),
        ({"indptr": np.array([1, 2, 2, 3])}, f"array indptr: {LENGTHS} 3, found otherwise"),
        ({"indptr": np.array([0, 2, 2, 4])}, f"array indptr: {LENGTHS} 3, found otherwise"),
        ({"indptr": np.array([0, 2, 1, 3])}, f"array indptr: {LENGTHS} 3, found otherwise"),
        ({"indptr": np.array([0, 99, 2, 3])}, f"array indptr: {LENGTHS} 3, found otherwise"),
        # its differences overflow to 2^63 - 1, 2^63 - 1 and 5
        ({"indptr": np.array([0, 2**63 - 1, -2, 3])}, f"array indptr: {LENGTHS} 3, found otherwise"),
        ({"indices": np.array([0, 4, 1], I32)}, "array indices: expected numbers below 4, found 0 to 4"),
        ({"indices": np.array([-1, 3, 1], I32)}, "array indices: expected numbers below 4, found -1 to 3"),
        ({"indices": np.array([3, 0, 1], I32)}, f"array indices: {ROWS}, found otherwise"),
        ({"indices": np.array([3, 3, 1], I32)}, f"array indices: {ROWS}, found otherwise"),
        # ids
        ({"user_ids": np.array([7.0, 8, 9])}, "array user_ids: expected integers, found float64[3]"),
        ({"user_ids": np.array(["a", "b", "c"])}, "array user_ids: expected integers, found <U1[3]"),
        ({"user_ids": np.array([True, False, True])}, "array user_ids: expected integers, found bool[3]"),
        ({"user_ids": np.array([[7], [8], [9]])}, "array user_ids: expected integers, found int64[3, 1]"),
        ({"user_ids": np.array(7)}, "array user_ids: expected integers, found int64[]"),
        ({"user_ids": np.array([7, 8, 9], ">i8")}, "array user_ids: expected integers, found >i8[3]"),
    ],
    ids=str,
)
def test_faults_of_interactions_are_named(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=re.escape(expected)):
        Interactions.from_arrays(interactions(**changes), Provenance())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *[({name: None}, f"array {name} is missing") for name in ("P", "Q", "b_u", "b_v", "b", "item_counts")],
        ({"user_ids": None}, "array user_ids is missing"),
        ({"item_ids_offsets": None}, "array item_ids_offsets is missing"),
        ({"P": np.ones(5, F)}, "array P: expected float32[2, -1], found float32[5]"),
        ({"P": np.ones((3, 5), F)}, "array P: expected float32[2, 5], found float32[3, 5]"),
        ({"P": np.ones((2, 5))}, "array P: expected float32[2, 5], found float64[2, 5]"),
        ({"Q": np.ones((3, 4), F)}, "array Q: expected float32[3, 5], found float32[3, 4]"),
        ({"b_u": np.ones(3, F)}, "array b_u: expected float32[2], found float32[3]"),
        ({"b_v": np.ones((3, 1), F)}, "array b_v: expected float32[3], found float32[3, 1]"),
        ({"b": np.ones(1, F)}, "array b: expected float32[], found float32[1]"),
        *[
            ({name: np.full(factors()[name].shape, bad, F)}, f"array {name}: expected finite numbers")
            for name in ("P", "Q", "b_u", "b_v", "b")
            for bad in (NAN, -INF)
        ],
        ({"item_counts": np.ones(3, I32)}, "array item_counts: expected int64[3], found int32[3]"),
        ({"item_counts": np.ones(2, I64)}, "array item_counts: expected int64[3], found int64[2]"),
        ({"item_counts": np.array([1, -1, 2])}, "array item_counts: expected counts, found a negative number"),
        ({"seen_indptr": None}, "arrays seen_indptr and seen_indices: expected both or neither"),
        ({"seen_indices": None}, "arrays seen_indptr and seen_indices: expected both or neither"),
        ({"seen_indptr": np.array([0, 1])}, "array seen_indptr: expected int64[3], found int64[2]"),
        ({"seen_indptr": np.array([0, 1, 2])}, f"array seen_indptr: {LENGTHS} 3, found otherwise"),
        ({"seen_indices": np.array([2, 0, 3], I32)}, "array seen_indices: expected numbers below 3, found 0 to 3"),
        ({"seen_indices": np.array([2, 1, 0], I32)}, f"array seen_indices: {ROWS}, found otherwise"),
        ({"item_ids_utf8": np.zeros(4, I32)}, "array item_ids_utf8: expected uint8[4], found int32[4]"),
        ({"item_ids_utf8": np.array(1, np.uint8)}, "array item_ids_utf8: expected uint8[1], found uint8[]"),
        ({"item_ids_offsets": np.zeros(4, I32)}, "array item_ids_offsets: expected int64[4], found int32[4]"),
        ({"item_ids_offsets": np.array(0)}, "array item_ids_offsets: expected int64[1], found int64[]"),
        ({"item_ids_offsets": np.zeros(0, I64)}, f"array item_ids_offsets: {LENGTHS} 4, found otherwise"),
        ({"item_ids_offsets": np.array([1, 1, 3, 4])}, f"array item_ids_offsets: {LENGTHS} 4, found otherwise"),
        ({"item_ids_offsets": np.array([0, 3, 1, 4])}, f"array item_ids_offsets: {LENGTHS} 4, found otherwise"),
        ({"item_ids_offsets": np.array([0, 1, 3, 5])}, f"array item_ids_offsets: {LENGTHS} 4, found otherwise"),
    ],
    ids=str,
)
def test_faults_of_factors_are_named(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=re.escape(expected)):
        Factors.from_arrays(factors(**changes), Provenance())


@given(st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=5))
def test_exactly_the_rows_that_rise_are_accepted(rows: list[list[int]]) -> None:
    """Empty rows at any place, a fall from one row to the next, and repeats within one."""
    indices = np.array([item for row in rows for item in row], I32)
    arrays = interactions(
        indptr=np.append(0, np.cumsum([len(row) for row in rows])).astype(I64),
        indices=indices,
        data=np.ones(len(indices), F),
        user_ids=np.arange(len(rows)),
    )
    if all(row == sorted(set(row)) for row in rows):
        Interactions.from_arrays(arrays, Provenance())
    else:
        with pytest.raises(DataError, match=ROWS):
            Interactions.from_arrays(arrays, Provenance())


@pytest.mark.parametrize("b_u", [0, 2])
@pytest.mark.parametrize("b_v", [0, 3])
@pytest.mark.parametrize("b", [0, 5])
def test_rows_multiply_to_the_predictions(b_u: int, b_v: int, b: int) -> None:
    rng = np.random.default_rng(0)
    P, Q = (rng.integers(-3, 4, (n, 5)).astype(F) for n in (2, 3))
    model = Factors.from_arrays(
        factors(P=P, Q=Q, b_u=np.array([b_u, 0], F), b_v=np.array([0, 0, b_v], F), b=np.array(b, F)), Provenance()
    )
    users, items = model.user_rows(np.array([1, 0])), model.item_rows()
    expected = P @ Q.T + np.array([[b_u], [0]]) + np.array([0, 0, b_v]) + b
    np.testing.assert_array_equal(users @ items.T, expected[::-1])
    assert users.dtype == items.dtype == F
    assert users.flags.c_contiguous
    assert items.flags.c_contiguous
