"""Encoded tables decode any rows alike, come back from their arrays, and refuse arrays that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recli.encoded import Encoded, Hashed, from_named, hashed_places, named
from recli.errors import DataError
from recli.factorize.compress import half, int8, product_quantised

RNG = np.random.default_rng(0)
ROWS = (RNG.standard_normal((3000, 24)) * np.linspace(2, 0.1, 24)).astype(np.float32)
POPULARITY = RNG.permutation(3000)
TABLES: dict[str, Encoded] = {
    "f16": half(ROWS),
    "int8": int8(ROWS),
    "pq": product_quantised(ROWS, 0),
    "pq with a head": product_quantised(ROWS, 0, POPULARITY),
    "hashed": Hashed(ROWS[:500], 3000, 2),
    "hashed codes": Hashed(int8(ROWS[:500]), 3000, 3),
}


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> Encoded:
    return TABLES[request.param]


def test_rows_are_the_same_however_they_are_asked_for(table: Encoded) -> None:
    every = table[:]
    assert (every.dtype, every.shape) == (np.float32, table.shape)
    assert len(table) == 3000
    nums = np.array([2999, 0, 7, 7, 1500])
    np.testing.assert_array_equal(table[nums], every[nums])
    np.testing.assert_array_equal(table[10:20], every[10:20])
    assert table[nums[:0]].shape == (0, 24)
    assert table[5000:].shape == (0, 24)


def test_a_table_comes_back_from_its_arrays(table: Encoded) -> None:
    arrays = named(table, "Q")
    assert all(name.startswith("Q_") for name in arrays)
    back = from_named(arrays, "Q", 3000)
    assert back is not None
    np.testing.assert_array_equal(back[:], table[:])
    assert back.nbytes == table.nbytes


@pytest.mark.parametrize(("name", "most"), [("f16", 3e-4), ("int8", 0.01), ("pq", 0.45), ("pq with a head", 0.45)])
def test_what_is_decoded_is_near(name: str, most: float) -> None:
    assert np.linalg.norm(TABLES[name][:] - ROWS) < most * np.linalg.norm(ROWS)


def test_bytes_are_those_of_the_arrays() -> None:
    assert TABLES["f16"].nbytes == ROWS.nbytes / 2
    assert TABLES["int8"].nbytes == ROWS.nbytes / 4 + 4 * 3000
    assert TABLES["hashed"].nbytes == ROWS[:500].nbytes


def test_int8_errs_by_half_a_step_at_most_and_keeps_the_largest_entry() -> None:
    step = np.abs(ROWS).max(axis=1, keepdims=True) / 127
    decoded = TABLES["int8"][:]
    assert (np.abs(decoded - ROWS) <= step * 0.5001).all()
    np.testing.assert_allclose(np.abs(decoded).max(axis=1), np.abs(ROWS).max(axis=1), rtol=1e-6)


@given(st.integers(1, 10**9), st.integers(1, 8), st.integers(0, 2**40))
def test_places_lie_in_the_table_and_do_not_depend_on_their_neighbours(size: int, hashes: int, start: int) -> None:
    nums = np.arange(start, start + 20)
    places, signs = hashed_places(nums, size, hashes)
    assert places.shape == signs.shape == (20, hashes)
    assert (places >= 0).all()
    assert (places < size).all()
    assert set(signs.ravel()) <= {-1.0, 1.0}
    np.testing.assert_array_equal(hashed_places(nums[7:9], size, hashes)[0], places[7:9])


def test_places_are_the_same_for_ever() -> None:
    """Files hold none: another mix would make every hashed model another."""
    places, signs = hashed_places(np.array([0, 1, 1_000_000]), 1000, 2)
    assert places.tolist() == [[823, 796], [679, 732], [442, 303]]
    assert signs.tolist() == [[-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]


def test_places_are_spread_evenly() -> None:
    places, signs = hashed_places(np.arange(100_000), 100, 2)
    assert np.bincount(places.ravel(), minlength=100) == pytest.approx(2000, rel=0.15)
    assert abs(float(signs.mean())) < 0.01
    assert np.mean(places[:, 0] == places[:, 1]) == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("f16", {"codes": np.zeros((3000, 24), np.float32)}, r"array Q_f16_codes: expected float16\[3000, 24\], found"),
        ("f16", {"codes": np.full((3000, 24), np.inf, np.float16)}, "array Q_f16_codes: expected finite numbers"),
        ("f16", {"codes": np.zeros((2999, 24), np.float16)}, "array Q_f16_codes: expected 3000 rows, found 2999"),
        ("f16", {"codes": np.zeros(3, np.float16)}, "array Q_f16_codes: expected"),
        ("int8", {"scales": np.ones(7, np.float32)}, r"array Q_int8_scales: expected float32\[3000\], found"),
        ("int8", {"scales": np.full(3000, np.nan, np.float32)}, "array Q_int8_scales: expected finite numbers"),
        ("int8", {"scales": None}, r"arrays Q_int8_\*: expected codes, scales, found codes"),
        ("int8", {"more": np.ones(1)}, r"arrays Q_int8_\*: expected codes, scales, found codes, more, scales"),
        ("pq", {"groups": np.full(24, 99, np.uint16)}, "array Q_pq_groups: expected numbers below"),
        ("pq", {"books": np.zeros((255, 24), np.int8)}, r"array Q_pq_books: expected int8\[256, 24\]"),
        ("pq", {"top": np.array([np.inf], np.float32)}, "array Q_pq_top: expected finite numbers"),
        ("pq", {"gains": np.zeros(2, np.uint8)}, "array Q_pq_gains: expected uint8"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    arrays = named(TABLES[kind], "Q")
    for part, array in changes.items():
        arrays[f"Q_{kind}_{part}"] = array
        if array is None:
            del arrays[f"Q_{kind}_{part}"]
    with pytest.raises(DataError, match=message):
        from_named(arrays, "Q", 3000)


@pytest.mark.parametrize("head", [[5, 5], [-1, 3], [3, 2], [0, 10**6]])
def test_a_head_of_other_numbers_is_refused(head: list[int]) -> None:
    arrays = named(TABLES["pq"], "Q")
    arrays["Q_pq_head"] = np.array(head, np.int32)
    arrays["Q_pq_head_codes"], arrays["Q_pq_head_scales"] = np.zeros((2, 24), np.int8), np.ones(2, np.float32)
    with pytest.raises(DataError, match="array Q_pq_head: expected rising numbers below 3002"):
        from_named(arrays, "Q", 3002)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (np.zeros((), np.float32), r"found float32\[\]"),
        (np.zeros(5, np.float32), r"found float32\[5\]"),
        (np.zeros((5, 2)), r"found float64\[5, 2\]"),
        (np.full((5, 2), np.nan, np.float32), "found NaN or infinity"),
    ],
)
def test_a_hashed_table_that_holds_no_rows_is_refused(table: np.ndarray, found: str) -> None:
    with pytest.raises(DataError, match=f"array Q_table: expected .*{found}"):
        from_named({"Q_table": table, "Q_hashes": np.array(2, np.uint8)}, "Q", 3000)


@pytest.mark.parametrize("hashes", [0, 9, 255])
def test_a_number_of_hashes_out_of_bounds_is_refused(hashes: int) -> None:
    arrays = named(TABLES["hashed"], "Q") | {"Q_hashes": np.array(hashes, np.uint8)}
    with pytest.raises(DataError, match=f"array Q_hashes: expected 1 to 8 and a table Q_table, found {hashes}"):
        from_named(arrays, "Q", 3000)
    with pytest.raises(DataError, match="array Q_hashes"):
        from_named({"Q_hashes": np.array(2, np.uint8)}, "Q", 3000)
