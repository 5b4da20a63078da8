"""Artifacts as NPZ: round trips to the byte, and no damaged or hostile file gets past the reader."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recli.artifacts import Factors, Interactions, Provenance
from recli.errors import DataError
from recli.ids import Csr, Ids
from recli.io.npz import fingerprint, read_artifact, read_npz, write_npz
from recli.io.sources import source

Members = list[tuple[str, bytes]]


def text_ids(*texts: str) -> Ids:
    data = [text.encode() for text in texts]
    return Ids(np.frombuffer(b"".join(data), np.uint8), np.cumsum([0, *map(len, data)], dtype=np.int64))


def factors(users: Ids | None = None, items: Ids | None = None, rank: int = 3, seen: bool = True) -> Factors:
    users = users or text_ids("", "ann", "Zoë", "日本")
    items = items or Ids(np.array([-5, 7, 100], np.int8))
    rng = np.random.default_rng(7)
    return Factors(
        P=rng.standard_normal((len(users), rank), np.float32),
        Q=rng.standard_normal((len(items), rank), np.float32),
        b_u=rng.standard_normal(len(users), np.float32),
        b_v=rng.standard_normal(len(items), np.float32),
        b=np.array(1.5, np.float32),
        user_ids=users,
        item_ids=items,
        item_counts=np.arange(len(items), dtype=np.int64),
        seen_indptr=np.minimum(np.arange(len(users) + 1), 2).astype(np.int64) if seen else None,
        seen_indices=np.array([1, 0], np.int32) if seen else None,
        provenance=Provenance(command="factorize", config={"rank": rank}, columns={"user": "Käufer", "item": "sku"}),
    )


def interactions(users: Ids, items: Ids) -> Interactions:
    matrix = Csr(np.array([0, 2, 2], np.int64), np.array([0, 2], np.int32), np.array([0.5, -1], np.float32))
    return Interactions(matrix=matrix, user_ids=users, item_ids=items, weighted=True)


def packed(artifact: Any) -> bytes:
    file = io.BytesIO()
    write_npz(artifact, file)
    return file.getvalue()


def read(data: bytes, kind: type[Any] = Factors, path: Path = Path("a.npz")) -> Any:
    path.write_bytes(data)
    with open(path, "rb") as file:
        return read_npz(file, kind, "a.npz")


def assert_same(found: Any, expected: Any) -> None:
    assert found.provenance == expected.provenance
    arrays, wanted = found.arrays(), expected.arrays()
    assert list(arrays) == list(wanted)
    for name, array in wanted.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(arrays[name], array)


INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_ids_come_back_in_their_type_extremes_included(dtype: Any) -> None:
    ids = Ids(np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype))
    three = Ids(np.array([np.iinfo(dtype).max, 1, 2], dtype))
    assert_same(read(packed(interactions(ids, three)), Interactions), interactions(ids, three))
    assert_same(read(packed(factors(ids))), factors(ids))


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("rank", [0, 1, 16])
def test_factors_round_trip(rank: int, seen: bool) -> None:
    model = factors(rank=rank, seen=seen)
    assert_same(read(packed(model)), model)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2, unique=True))
def test_any_text_ids_round_trip(texts: list[str]) -> None:
    artifact = interactions(text_ids(*texts), Ids(np.arange(3)))
    assert_same(read(packed(artifact), Interactions), artifact)


def test_the_same_artifact_is_the_same_bytes_and_numpy_reads_it_without_pickle() -> None:
    data = packed(factors())
    assert data == packed(factors())
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        assert json.loads(loaded["header"].tobytes())["kind"] == "factors"
        assert set(loaded.files) == {"header", *factors().arrays()}
        np.testing.assert_array_equal(loaded["P"], factors().P)


def test_arrays_begin_at_multiples_of_64_bytes_in_the_file() -> None:
    data = packed(factors())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            name_length, extra_length = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
            member = info.header_offset + 30 + name_length + extra_length
            assert data[member : member + 6] == b"\x93NUMPY"
            header_length = struct.unpack("<H", data[member + 8 : member + 10])[0]
            assert (member + 10 + header_length) % 64 == 0, info.filename


def test_arrays_are_read_only_maps_that_outlive_the_file() -> None:
    model = read(packed(factors()))
    for array in model.arrays().values():
        assert not array.flags.writeable
        assert array.flags.aligned
    Path("other").write_bytes(packed(factors(rank=9)))
    os.replace("other", "a.npz")
    assert_same(model, factors())
    os.unlink("a.npz")
    assert_same(model, factors())


def test_a_truncated_file_is_never_accepted() -> None:
    data = packed(factors(rank=1))
    for length in range(len(data)):
        with pytest.raises(DataError, match=r"^a\.npz: "):
            read(data[:length])


def test_a_damaged_byte_is_noticed_or_harmless() -> None:
    model = factors(rank=1)
    data, noticed = bytearray(packed(model)), 0
    for place in range(len(data)):
        mask = (0x01, 0xFF, 0x20)[place % 3]
        data[place] ^= mask
        try:
            assert_same(read(bytes(data)), model)
        except DataError:
            noticed += 1
        data[place] ^= mask
    assert noticed > 1000  # paddings, dates and attributes may be anything


@settings(max_examples=300)
@given(st.data())
def test_several_damaged_bytes_never_raise_anything_but_a_data_error(data: st.DataObject) -> None:
    damaged = bytearray(packed(factors(rank=1)))
    for _ in range(data.draw(st.integers(1, 4))):  # most in the directory, which no checksum covers
        place = data.draw(
            st.one_of(st.integers(0, len(damaged) - 1), st.integers(len(damaged) - 1200, len(damaged) - 1))
        )
        damaged[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DataError):
        assert_same(read(bytes(damaged)), factors(rank=1))


def test_a_fingerprint_is_that_of_all_arrays_and_of_nothing_else() -> None:
    prints = []
    for name, model in {"a.npz": factors(), "b.npz": factors(), "c.npz": factors(rank=2)}.items():
        Path(name).write_bytes(packed(model))
        with source([name]) as found:
            prints.append(fingerprint(found))
    assert prints[0] == prints[1] != prints[2]
    one_bit = factors()
    one_bit.P.view(np.uint8)[2, 5] ^= 1
    Path("a.npz").write_bytes(packed(one_bit))
    with source(["a.npz"]) as found:
        assert fingerprint(found) != prints[0]
    Path("a.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"^a.npz: expected an NPZ file"), source(["a.npz"]) as found:
        fingerprint(found)


def test_what_is_not_checked_is_not_read() -> None:
    """But shapes are, and that the arrays are there."""
    data = bytearray(packed(factors()))
    at = data.index(factors().P.tobytes())
    data[at : at + 4] = np.float32(np.nan).tobytes()
    Path("a.npz").write_bytes(data)
    with source(["a.npz"]) as found:
        model = read_artifact(found, Factors, checked=False)
        assert np.isnan(model.P[0, 0])
        assert model.P[1].tolist() == factors().P[1].tolist()
        with pytest.raises(DataError, match=r"^a.npz: array P: its checksum does not match"):
            read_artifact(found, Factors)
    Path("a.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"^a.npz: "), source(["a.npz"]) as found:
        read_artifact(found, Factors, checked=False)
