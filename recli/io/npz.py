"""Artifacts as NPZ: stored, not compressed, members aligned to 64 bytes so that they can be memory-mapped; never
pickled.

The first member, `header`, is JSON: kind, version, recli's version, and the artifact's provenance. Same artifact, same
bytes: members are in a fixed order with a fixed date.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from recli import __version__
from recli.artifacts import Provenance
from recli.checks import Arrays
from recli.errors import DataError, StorageError
from recli.io.sources import Source

ALIGNMENT = 64
LONGEST_HEADER = 1 << 20
_LOCAL_HEADER = 30  # bytes of a zip member's header before its name (APPNOTE.TXT 4.3.7)
_DIRECTORY_END = 22  # bytes of the record behind a zip's directory, before its comment (4.3.16)
_NOT_HERE = 0xFFFF  # a count there that is elsewhere (zip64)
_ZIP64_EXTRA = 20  # zipfile adds this to the local header when it is told to expect a large member
_PADDING_ID = 0x6372  # an extra field of our own, to be skipped by readers
# What NumPy writes before plain numbers. Its own reader evaluates a Python literal, which damage makes warn or raise
# anything.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..){'descr': '([^']{2,8})', 'fortran_order': (True|False), 'shape': \(([-0-9, ]*)\), } *\n",
    re.DOTALL,
)
_LONGEST_NPY_HEADER = 1 << 10


class Artifact(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def provenance(self) -> Provenance: ...
    def arrays(self) -> Arrays: ...


A = TypeVar("A")


def write_npz(artifact: Artifact, file: BinaryIO) -> None:
    """Writes to a seekable binary file."""
    header = {"kind": artifact.kind, "version": artifact.version, "recli_version": __version__}
    header |= dataclasses.asdict(artifact.provenance)
    text = json.dumps(header, sort_keys=True, ensure_ascii=False).encode()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {"header": np.frombuffer(text, np.uint8), **artifact.arrays()}.items():
            _write_member(archive, file, f"{name}.npy", array)


def _write_member(archive: zipfile.ZipFile, file: BinaryIO, name: str, array: NDArray[Any]) -> None:
    info = zipfile.ZipInfo(name)  # dated 1980-01-01
    info.external_attr = 0o644 << 16
    start = file.tell() + _LOCAL_HEADER + len(name.encode()) + _ZIP64_EXTRA + 4
    padding = -start % ALIGNMENT  # npy's own header is a multiple of 64 bytes too
    info.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
    with archive.open(info, "w", force_zip64=True) as member:
        npy.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


def read_npz(file: BinaryIO, kind: type[A], name: str, *, checked: bool = True) -> A:
    """Reads an artifact of the given class from a seekable binary file; name is what errors call it.

    Arrays are memory-mapped, read-only. Raises DataError for everything that is not a whole artifact of that kind, of a
    version known here. Unless checked, what the arrays hold is not read, and taken on trust.
    """
    with npz_errors(name):
        size = file.seek(0, 2)
        with zipfile.ZipFile(file) as archive:
            _check_count(file, archive, size)
            members: dict[str, zipfile.ZipInfo] = {}
            for info in archive.infolist():
                member = info.filename.removesuffix(".npy")
                if member in members:
                    raise DataError(f"array {member}: it is there twice")
                members[member] = info
            if "header" not in members:
                raise DataError(f"expected an NPZ written by recli, found no header; its members: {_names(members)}")
            header = _parse_header(_read_member(file, members.pop("header"), size))
            _check_header(header, kind)
            arrays = {member: _read_member(file, info, size, checked) for member, info in members.items()}
        trust = {} if checked else {"checked": False}
        return kind.from_arrays(arrays, _provenance(header), **trust)  # type: ignore[attr-defined,no-any-return]


@contextlib.contextmanager
def npz_errors(name: str) -> Iterator[None]:
    """What a file that is no whole NPZ makes zipfile, zlib and NumPy raise, as DataError."""
    try:
        yield
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(
            f"expected an NPZ file, found something else or a truncated one ({error})", file=name
        ) from error
    except DataError as error:
        raise DataError(str(error), file=name) from error
    except (ValueError, TypeError, OverflowError, RecursionError, EOFError, struct.error, zlib.error) as error:
        raise DataError(f"damaged NPZ: {error}", file=name) from error
    except OSError as error:
        raise StorageError(f"reading failed: {error.strerror or error}", file=name) from error


def read_artifact(found: Source, kind: type[A], *, checked: bool = True) -> A:
    """The artifact of the given class in a source of one NPZ file; see `read_npz`."""
    if found.format != "npz" or len(found.files) != 1 or found.remote:
        raise DataError(
            f"expected one local NPZ file of {kind.kind} that recli wrote, found {len(found.files)} {found.format}",  # type: ignore[attr-defined]
            file=found.name,
        )
    with open(found.files[0], "rb") as file:
        return read_npz(file, kind, found.name, checked=checked)


def fingerprint(found: Source) -> str:
    """What tells an NPZ file from any other: sha256 of the names, sizes and checksums in its directory, which is all
    that is read.
    """
    with npz_errors(found.name), zipfile.ZipFile(found.files[0]) as archive:
        members = [(info.filename, info.file_size, info.CRC) for info in archive.infolist()]
    return hashlib.sha256(json.dumps(members).encode()).hexdigest()


def _check_count(file: BinaryIO, archive: zipfile.ZipFile, size: int) -> None:
    """zipfile does not: a length damaged in the directory hides the members behind it, optional arrays among them."""
    file.seek(size - _DIRECTORY_END - len(archive.comment))
    (count,) = struct.unpack("<H", file.read(_DIRECTORY_END)[10:12])
    if count not in (len(archive.infolist()), _NOT_HERE):
        raise DataError(f"its directory promises {count} arrays, {len(archive.infolist())} are in it (damaged file)")


def _read_member(file: BinaryIO, info: zipfile.ZipInfo, size: int, checked: bool = True) -> NDArray[Any]:
    name = info.filename.removesuffix(".npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise DataError(f"array {name}: expected a stored member, found a compressed one (recli writes none)")
    return parse_npy(name, stored_bytes(file, info, size, checked=checked))


def stored_bytes(file: BinaryIO, info: zipfile.ZipInfo, size: int, *, checked: bool = True) -> NDArray[np.uint8]:
    """The bytes of a stored member of a file of `size` bytes, memory-mapped. What headers claim is checked against the
    bytes that are there; nothing is allocated. checked: the checksum, too, for which all of it is read.
    """
    name = info.filename.removesuffix(".npy")
    if not 0 <= info.header_offset <= size:
        raise DataError(f"array {name}: it begins outside the file (truncated?)")
    file.seek(info.header_offset)
    local = file.read(_LOCAL_HEADER)
    if len(local) < _LOCAL_HEADER or local[:4] != b"PK\x03\x04":
        raise DataError(f"array {name}: its zip header is damaged")
    name_length, extra_length = struct.unpack("<HH", local[26:30])
    if file.read(name_length) != info.filename.encode():
        raise DataError(f"array {name}: its zip header is another member's")
    start = info.header_offset + _LOCAL_HEADER + name_length + extra_length
    if start + info.file_size > size:
        raise DataError(f"array {name}: the file ends before it does (truncated?)")
    data = _map(file, start, info.file_size)
    if checked and zlib.crc32(data.data) != info.CRC:
        raise DataError(f"array {name}: its checksum does not match (damaged file)")
    return data


def parse_npy(name: str, data: NDArray[np.uint8], *, fortran: bool = False) -> NDArray[Any]:
    """The array in the bytes of an .npy file, without a copy where they are aligned, as ours are. fortran: its order
    may be Fortran's, too.
    """
    match = _NPY_HEADER.match(data[:_LONGEST_NPY_HEADER].tobytes())
    if not match or 10 + int.from_bytes(match[1], "little") != match.end():
        raise DataError(f"array {name}: expected an .npy header for plain numbers, found another")
    dtype, columns_first, sides = match[2].decode("ascii", "replace"), match[3] == b"True", match[4].decode()
    if "O" in dtype:
        raise DataError(f"array {name}: expected numbers, found pickled objects, which are never loaded")
    if not re.fullmatch(r"[<|][biuf][1248]", dtype):
        raise DataError(f"array {name}: expected little-endian numbers, found type {dtype}")
    if columns_first and not fortran:
        raise DataError(f"array {name}: expected C order, found Fortran order")
    shape = [int(side) for side in sides.split(",") if side.strip()]
    there = len(data) - match.end()
    claimed = math.prod(shape) * np.dtype(dtype).itemsize
    if claimed != there or any(side < 0 for side in shape):
        raise DataError(f"array {name}: its header asks for shape {shape}, {claimed} bytes; {there} are there")
    values = np.require(data[match.end() :].view(dtype), requirements="A")
    return values.reshape(shape, order="F" if columns_first else "C")


def _map(file: BinaryIO, offset: int, size: int) -> NDArray[np.uint8]:
    if not size:
        return np.zeros(0, np.uint8)
    return np.asarray(np.memmap(file, np.uint8, "r", offset, (size,)))


def _parse_header(member: NDArray[Any]) -> dict[str, Any]:
    if member.dtype != np.uint8 or member.ndim != 1 or len(member) > LONGEST_HEADER:
        raise DataError("expected an NPZ written by recli, found another array named header")
    header = json.loads(member.tobytes())
    if not isinstance(header, dict):
        raise DataError("damaged header: expected a JSON object")
    return header


def _check_header(header: dict[str, Any], kind: Any) -> None:
    found, version = header.get("kind"), header.get("version")
    if found != kind.kind:
        raise DataError(f"expected an artifact of kind {kind.kind}, found {found!s:.40}")
    if type(version) is not int or not 1 <= version <= kind.version:
        raise DataError(f"expected {kind.kind}/{kind.version} or older, found {kind.kind}/{version}: upgrade recli")


def _provenance(header: dict[str, Any]) -> Provenance:
    """Checked, since the rest of the program trusts it."""
    fields = {f.name: header.get(f.name) for f in dataclasses.fields(Provenance)}
    for name, usual in vars(Provenance()).items():
        if type(fields[name]) is not type(usual):
            raise DataError(f"header: {name}: expected a {type(usual).__name__}, found {fields[name]!r:.40}")
    columns = fields["columns"]
    if not isinstance(columns, dict) or not all(isinstance(columns.get(role), str) for role in ("user", "item")):
        raise DataError(f"header: columns: expected the names of user and item, found {columns!r:.80}")
    return Provenance(**fields)  # type: ignore[arg-type]


def _names(members: dict[str, zipfile.ZipInfo]) -> str:
    return ", ".join(sorted(members)[:8]) or "none"
