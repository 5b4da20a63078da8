"""NPZ files made to deceive, each from a good one: refused with a reason, at the cost of their size at most."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recli.artifacts import Factors, Interactions
from recli.errors import DataError
from recli.ids import Csr, Ids
from recli.io.npz import LONGEST_HEADER, read_npz, write_npz

Members = list[tuple[str, bytes]]


def factors() -> Factors:
    rng = np.random.default_rng(7)
    return Factors(
        P=rng.standard_normal((4, 3), np.float32),
        Q=rng.standard_normal((3, 3), np.float32),
        b_u=rng.standard_normal(4, np.float32),
        b_v=rng.standard_normal(3, np.float32),
        b=np.array(1.5, np.float32),
        user_ids=Ids(np.frombuffer("aéz".encode(), np.uint8), np.array([0, 0, 1, 3, 4])),
        item_ids=Ids(np.array([-5, 7, 100], np.int8)),
        item_counts=np.arange(3),
        seen_indptr=np.array([0, 1, 2, 2, 2]),
        seen_indices=np.array([1, 0], np.int32),
    )


def interactions() -> Interactions:
    matrix = Csr(np.array([0, 2]), np.array([0, 2], np.int32), np.array([0.5, -1], np.float32))
    return Interactions(matrix=matrix, user_ids=Ids(np.arange(1)), item_ids=Ids(np.arange(3)))


def packed(artifact: Any) -> bytes:
    file = io.BytesIO()
    write_npz(artifact, file)
    return file.getvalue()


def read(data: bytes) -> Factors:
    Path("a.npz").write_bytes(data)
    with open("a.npz", "rb") as file:
        return read_npz(file, Factors, "a.npz")


def assert_same(found: Factors, expected: Factors) -> None:
    arrays = found.arrays()
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(arrays[name], array)


def npy(array: np.ndarray[Any, Any], *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npy_claiming(shape: str, dtype: str = "<f4", *, fortran: bool = False, data: bytes = bytes(16)) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def members(artifact: Any = None) -> Members:
    with zipfile.ZipFile(io.BytesIO(packed(artifact or factors()))) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def zipped(content: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in content:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return file.getvalue()


def with_member(name: str, data: bytes) -> bytes:
    return zipped([(member, data if member == f"{name}.npy" else old) for member, old in members()])


def with_header(change: Callable[[dict[str, Any]], Any]) -> bytes:
    header = json.loads(members()[0][1].split(b"\n", 1)[1])
    return with_text_header(json.dumps(change(header) or header).encode())


def with_text_header(text: bytes) -> bytes:
    return with_member("header", npy(np.frombuffer(text, np.uint8)))


def aliased() -> bytes:
    """Two members of the directory that share the bytes of one."""
    data = packed(factors())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        first = archive.getinfo("b_u.npy")
    entry = data.index(b"b_v.npy", data.rindex(b"b_u.npy")) - 46
    sizes = struct.pack("<III", first.CRC, first.compress_size, first.file_size)
    offset = struct.pack("<I", first.header_offset)
    return data[: entry + 16] + sizes + data[entry + 28 : entry + 42] + offset + data[entry + 46 :]


def with_duplicate() -> bytes:
    data = packed(factors())
    return data.replace(b"b_v.npy", b"b_u.npy")


def with_directory_size(size: int) -> bytes:
    data = packed(factors())
    end = data.rindex(b"PK\x05\x06")
    return data[: end + 12] + struct.pack("<I", size) + data[end + 16 :]


def newer(header: dict[str, Any]) -> None:
    header["version"] = 2


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "expected an NPZ file"),
    "text": (lambda: b"user,item\n1,2\n", "expected an NPZ file"),
    "no zip inside": (lambda: b"PK\x03\x04" + bytes(500), "expected an NPZ file"),
    "empty zip": (lambda: zipped([]), "found no header; its members: none"),
    "another program's": (lambda: zipped(members()[1:]), "expected an NPZ written by recli, found no header"),
    "compressed": (lambda: zipped(members(), zipfile.ZIP_DEFLATED), "array header: expected a stored member"),
    "pickled": (
        lambda: with_member("P", npy(np.array([{}], object), allow_pickle=True)),
        "array P: expected numbers, found pickled objects, which are never loaded",
    ),
    "terabyte": (
        lambda: with_member("P", npy_claiming("(4, 62500000000)")),
        r"array P: .* 1000000000000 bytes; 16 are",
    ),
    "overflowing sides": (
        lambda: with_member("P", npy_claiming("(4294967296, 4294967296)")),
        "array P: its header asks",
    ),
    "negative side": (lambda: with_member("P", npy_claiming("(-2, -2)")), r"array P: .* shape \[-2, -2\]"),
    "infinitely many empty rows": (
        lambda: with_member("P", npy_claiming(f"({2**70}, 0)", data=b"")),
        "damaged NPZ|array P",
    ),
    "huge empty rows": (
        lambda: with_member("P", npy_claiming(f"({2**62}, 0)", data=b"")),
        "damaged NPZ: array is too big|array P: expected float32",
    ),
    "fortran order": (lambda: with_member("P", npy_claiming("(4, 1)", fortran=True)), "array P: expected C order"),
    "big-endian": (lambda: with_member("P", npy_claiming("(4, 1)", ">f4")), "array P: expected little-endian numbers"),
    "strings": (lambda: with_member("P", npy_claiming("(4, 1)", "|S4")), "array P: expected little-endian numbers"),
    "no such type": (lambda: with_member("P", npy_claiming("(16, 1)", "|f1")), "damaged NPZ"),
    "float64": (
        lambda: with_member("P", npy(factors().P.astype(np.float64))),
        r"array P: expected float32\[4, 3\], fou",
    ),
    "structured": (
        lambda: with_member("P", npy(np.zeros(4, [("x", "<f4")]))),
        "array P: expected an .npy header for plain numbers",
    ),
    "code for a shape": (
        lambda: with_member("P", npy_claiming("__import__('os').abort()")),
        "array P: expected an .npy",
    ),
    "not an array": (lambda: with_member("P", b"hello"), "array P: expected an .npy header"),
    "NaN": (lambda: with_member("b_u", npy(np.full(4, np.nan, np.float32))), "array b_u: expected finite numbers"),
    "missing": (
        lambda: zipped([member for member in members() if member[0] != "Q.npy"]),
        "array Q is missing; found P, b, b_u",
    ),
    "half of the seen lists": (
        lambda: zipped([member for member in members() if member[0] != "seen_indices.npy"]),
        "arrays seen_indptr and seen_indices: expected both or neither",
    ),
    "seen items outside": (
        lambda: with_member("seen_indices", npy(np.array([0, 3], np.int32))),
        "array seen_indices: expected numbers below 3, found 0 to 3",
    ),
    "ids beyond their bytes": (
        lambda: with_member("user_ids_offsets", npy(np.array([0, 1, 2, 3, 99], np.int64))),
        "array user_ids_offsets: expected to rise from 0 to 4",
    ),
    "wrong kind": (
        lambda: packed(interactions()),
        "kind factors, found interactions",
    ),
    "newer": (lambda: with_header(newer), "expected factors/1 or older, found factors/2: upgrade recli"),
    "version of another type": (lambda: with_header(lambda h: {**h, "version": True}), "expected factors/1 or older"),
    "columns of another type": (
        lambda: with_header(lambda h: {**h, "columns": {"user": 3}}),
        "header: columns: expected",
    ),
    "inputs of another type": (lambda: with_header(lambda h: {**h, "inputs": "x"}), "header: inputs: expected a list"),
    "no command": (lambda: with_header(lambda h: {"kind": "factors", "version": 1}), "header: command: expected a str"),
    "header is a list": (lambda: with_text_header(b"[1]"), "damaged header: expected a JSON object"),
    "header is no JSON": (lambda: with_text_header(b"{"), "damaged NPZ"),
    "header is no UTF-8": (lambda: with_text_header(b'{"kind": "\xff"}'), "damaged NPZ"),
    "header is deep": (lambda: with_text_header(b"[" * 200_000), "damaged NPZ"),
    "header is long": (lambda: with_text_header(b" " * (LONGEST_HEADER + 1)), "found another array named header"),
    "header is numbers": (lambda: with_member("header", npy(np.zeros(3))), "found another array named header"),
    "twice the same name": (with_duplicate, "array b_u: it is there twice"),
    "shared bytes": (aliased, "array b_v: its zip header is another member's"),
    "directory of 4 GB": (lambda: with_directory_size(0xFFFFFFF0), "expected an NPZ file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_reason_and_without_allocating_what_it_claims(name: str) -> None:
    make, reason = BAD[name]
    data = make()
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"^a\.npz: .*({reason})"):
            read(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e6 + 10 * len(data)


def test_a_member_with_a_path_is_not_extracted(tmp_path: Path) -> None:
    evil = [*members(), ("../../evil.npy", npy(np.zeros(1))), (f"{tmp_path}/evil.npy", npy(np.zeros(1)))]
    assert_same(read(zipped(evil)), factors())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.npz"]


def test_an_artifact_repacked_by_another_zip_program_is_read_as_aligned_arrays() -> None:
    for pad in range(4):
        model = read(zipped([("x" * pad + "0.npy", npy(np.zeros(1))), *members()]))
        assert_same(model, factors())
        assert all(array.flags.aligned for array in model.arrays().values())


def test_a_directory_entry_that_swallows_the_next_ones_is_refused() -> None:
    """A flipped bit in the length of a comment: what is behind it, optional arrays, is not there any more."""
    whole = packed(factors())
    entry = whole.rindex(b"seen_indptr.npy", 0, whole.rindex(b"PK\x05\x06")) - 46  # in the directory
    assert whole[entry : entry + 4] == b"PK\x01\x02"
    rest = whole.rindex(b"PK\x05\x06") - (entry + 46 + len("seen_indptr.npy"))
    extra = struct.unpack("<H", whole[entry + 30 : entry + 32])[0]
    data = bytearray(whole)
    data[entry + 32 : entry + 34] = struct.pack("<H", rest - extra)
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        assert "seen_indices.npy" not in archive.namelist()
    with pytest.raises(DataError, match=r"a\.npz: its directory promises \d+ arrays, \d+ are in it"):
        read(bytes(data))
