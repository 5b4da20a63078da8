"""Deltas go to files and come back bit for bit; whatever is damaged is a DataError."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recli.artifacts import Provenance, text_ids
from recli.checks import Arrays
from recli.errors import DataError
from recli.finetune import Adapter
from recli.finetune.artifact import NAMES, Parts
from recli.ids import Csr, Ids
from recli.io.npz import read_artifact, read_npz, write_npz
from recli.io.sources import source

F = np.float32
USERS, NEW_USERS, NEW_ITEMS, RANK = 5, 2, 3, 4


def delta(**changes: Any) -> Adapter:
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {
        "adapter": "rows",
        "chain": ("abc", "déf"),
        "parts": {"P": rng.standard_normal((2, RANK)).astype(F), "users": np.array([1, 3])},
        "new_user_ids": text_ids(["é", ""]),
        "new_item_ids": Ids(np.array([7, 2**40, -1])),
        "P": rng.standard_normal((NEW_USERS, RANK)).astype(F),
        "Q": rng.standard_normal((NEW_ITEMS, RANK)).astype(F),
        "b_u": rng.standard_normal(NEW_USERS).astype(F),
        "b_v": rng.standard_normal(NEW_ITEMS).astype(F),
        "seen": Csr(np.array([0, 2, 2, 2, 2, 3]), np.array([0, 9, 4], np.int32), np.array([1, 2, 3], F)),
        "names": {"user": ("age", "città"), "item": ()},
        "provenance": Provenance(command="finetune", config={"adapter": "rows"}, inputs=["0f"]),
    }
    return Adapter(**{**fields, **changes})


def same(found: Adapter, wanted: Adapter) -> None:
    assert (found.adapter, found.chain, found.names) == (wanted.adapter, wanted.chain, wanted.names)
    assert found.provenance == wanted.provenance
    again = found.arrays()
    assert list(again) == list(wanted.arrays())
    for name, array in wanted.arrays().items():
        assert again[name].dtype == array.dtype, name
        assert again[name].shape == array.shape, name
        assert again[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("adapter", NAMES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"new_user_ids": Ids(np.array([3, 1], np.uint8)), "new_item_ids": text_ids(["x", "yy", "z"])},
        {"names": {}, "parts": {}},
        {"names": {"item": ("a",)}},
        {"chain": ("one",), "P": np.zeros((0, 0), F), "b_u": np.zeros(0, F), "Q": np.zeros((3, 0), F)}
        | {"new_user_ids": Ids(np.zeros(0, np.int64))},
        {"seen": Csr(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, F))},
    ],
)
def test_a_delta_comes_back_from_a_file_as_it_went(adapter: str, changes: dict[str, Any], tmp_path: Path) -> None:
    wanted = delta(adapter=adapter, **changes)
    path = tmp_path / "delta.npz"
    with open(path, "wb") as file:
        write_npz(wanted, file)
    with source([str(path)]) as found:
        same(read_artifact(found, Adapter), wanted)
    again = io.BytesIO()
    write_npz(wanted, again)
    assert again.getvalue() == path.read_bytes()


def test_its_size_is_that_of_what_was_learned_and_of_new_rows() -> None:
    assert delta().nbytes == 4 * (2 * RANK + (NEW_USERS + NEW_ITEMS) * (RANK + 1)) + 2 * 8


def changed(changes: dict[str, Any]) -> Arrays:
    arrays = {**delta().arrays(), **changes}
    return {name: array for name, array in arrays.items() if array is not None}


def bytes_of(text: str | bytes) -> dict[str, NDArray[Any]]:
    data = text if isinstance(text, bytes) else text.encode()
    return {"utf8": np.frombuffer(data, np.uint8), "offsets": np.array([0, len(data)])}


def texts_of(name: str, text: str | bytes) -> dict[str, Any]:
    return {f"{name}_{part}": array for part, array in bytes_of(text).items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"P": np.zeros((2, RANK))}, "array P: expected float32[2, 4], found float64[2, 4]"),
        ({"P": np.zeros((3, RANK), F)}, "array P: expected float32[2, 4], found float32[3, 4]"),
        ({"P": np.zeros(2, F)}, "array P: expected float32[2, -1], found float32[2]"),
        ({"P": np.full((2, RANK), np.nan, F)}, "array P: expected finite numbers"),
        ({"P": None}, "array P is missing"),
        ({"Q": np.zeros((3, RANK + 1), F)}, "array Q: expected float32[3, 4], found float32[3, 5]"),
        ({"Q": np.full((3, RANK), np.inf, F)}, "array Q: expected finite numbers"),
        ({"Q": None}, "array Q is missing"),
        ({"b_u": np.zeros(3, F)}, "array b_u: expected float32[2], found float32[3]"),
        ({"b_u": np.full(2, np.nan, F)}, "array b_u: expected finite numbers"),
        ({"b_u": None}, "array b_u is missing"),
        ({"b_v": np.zeros((3, 1), F)}, "array b_v: expected float32[3], found float32[3, 1]"),
        ({"b_v": np.full(3, -np.inf, F)}, "array b_v: expected finite numbers"),
        ({"b_v": None}, "array b_v is missing"),
        ({"seen_indptr": np.zeros(0, np.int64)}, "array seen_indptr: expected to rise from 0 to 3"),
        ({"seen_indptr": np.array([0, 2, 1, 2, 2, 3])}, "array seen_indptr: expected to rise from 0 to 3"),
        ({"seen_indptr": np.array([0, 2, 2, 2, 2, 2])}, "array seen_indptr: expected to rise from 0 to 3"),
        ({"seen_indptr": np.zeros((2, 2), np.int64)}, "array seen_indptr: expected int64[users + 1]"),
        ({"seen_indptr": np.array(0)}, "array seen_indptr: expected int64[users + 1]"),
        ({"seen_indptr": np.zeros(6, np.int32)}, "array seen_indptr: expected int64[users + 1], found int32"),
        ({"seen_indptr": None}, "array seen_indptr is missing"),
        ({"seen_indices": np.array([9, 0, 4], np.int32)}, "array seen_indices: expected to rise within each row"),
        ({"seen_indices": np.array([-1, 0, 4], np.int32)}, "array seen_indices: expected numbers below 2147483647"),
        ({"seen_indices": np.array([0, 9, 4])}, "array seen_indices: expected int32[3], found int64[3]"),
        ({"seen_indices": None}, "array seen_indices is missing"),
        ({"seen_values": np.zeros(2, F)}, "array seen_values: expected float32[3], found float32[2]"),
        ({"seen_values": np.full(3, np.nan, F)}, "array seen_values: expected finite numbers"),
        ({"seen_values": None}, "array seen_values is missing"),
        ({"new_user_ids_offsets": np.array([0, 3, 2])}, "array new_user_ids_offsets: expected to rise from 0 to 2"),
        ({"new_user_ids_offsets": None}, "array new_user_ids_offsets is missing"),
        ({"new_user_ids_utf8": None}, "array new_user_ids is missing"),
        ({"new_item_ids": np.zeros(3)}, "array new_item_ids: expected integers, found float64[3]"),
        ({"new_item_ids": np.zeros((3, 1), np.int64)}, "array new_item_ids: expected integers, found int64[3, 1]"),
        ({"new_item_ids": None}, "array new_item_ids is missing"),
        (texts_of("adapter", "rank"), "header: adapter: expected one of bias, rows, scale"),
        (texts_of("adapter", b"\xff"), "array adapter: expected UTF-8 text"),
        ({"adapter_offsets": np.array([0, 2, 4])}, "header: adapter: expected one of"),
        ({"adapter_utf8": None}, "array adapter is missing"),
        ({"adapter_utf8": None, "adapter": np.array([1])}, "array adapter: expected text, found numbers"),
        ({"chain_offsets": np.array([1, 2])}, "array chain_offsets: expected to rise from 0 to 7"),
        (texts_of("chain", b"\xff"), "array chain: expected UTF-8 text"),
        ({"chain_utf8": np.zeros(0, np.uint8), "chain_offsets": np.array([0])}, "expected 1 to 1000 fingerprints"),
        (
            {"chain_utf8": np.zeros(0, np.uint8), "chain_offsets": np.zeros(1002, np.int64)},
            "chain: expected 1 to 1000 fingerprints, found 1001",
        ),
        (texts_of("user_names", b"\xc3"), "array user_names: expected UTF-8 text"),
        ({"item_names_offsets": None}, "array item_names_offsets is missing"),
        ({"user_names_offsets": np.array([0, 99])}, "array user_names_offsets: expected to rise from 0 to"),
    ],
)
def test_damage_is_told_by_the_array(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        Adapter.from_arrays(changed(changes), Provenance())


HOSTILE: list[NDArray[Any]] = [
    np.array(0),
    np.zeros(0),
    np.zeros((2, 3, 1), F),
    np.array([2**62, -(2**62)]),
    np.array([True, False]),
    np.full((2, RANK), np.nan, F),
    np.array([1 + 2j]),
    np.zeros(5, ">f4"),
    np.zeros((0, 2**20), F),
]


@given(name=st.sampled_from(sorted(delta().arrays())), array=st.sampled_from(HOSTILE))
def test_whatever_an_array_holds_it_is_read_or_refused(name: str, array: NDArray[Any]) -> None:
    """Of parts, what they hold is looked at where they are applied."""
    arrays = {**delta().arrays(), name: array}
    try:
        found = Adapter.from_arrays(arrays, Provenance())
    except DataError:
        return
    assert name.startswith("part_") or array.size == 0
    assert found.nbytes >= 0


@given(at=st.integers(0, 10**9), bit=st.integers(0, 7))
@example(at=7266, bit=0)  # a comment's length, in the directory
def test_a_file_with_any_bit_flipped_is_refused_or_the_same(at: int, bit: int) -> None:
    whole = io.BytesIO()
    wanted = delta()
    write_npz(wanted, whole)
    data = bytearray(whole.getvalue())
    data[at % len(data)] ^= 1 << bit
    with open("flipped.npz", "wb") as file:
        file.write(data)
    try:
        with open("flipped.npz", "rb") as file:
            found = read_npz(file, Adapter, "flipped.npz")
    except DataError:
        return
    same(found, wanted)  # padding, dates


def test_a_missing_parameter_has_its_name() -> None:
    with pytest.raises(DataError, match="array part_w is missing"):
        Parts(delta().parts)["w"]
