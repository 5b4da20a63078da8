"""Artifacts as NPZ: stored, not compressed, members aligned to 64 bytes so that they can be memory-mapped; never
pickled.

The first member, `header`, is JSON: kind, version, recli's version, and the artifact's provenance. Same artifact, same
bytes: members are in a fixed order with a fixed date.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zipfile
import zlib
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from recli import __version__
from recli.artifacts import Arrays, Provenance
from recli.errors import DataError
from recli.io.sources import Source

ALIGNMENT = 64
LONGEST_HEADER = 1 << 20
_LOCAL_HEADER = 30  # bytes of a zip member's header before its name (APPNOTE.TXT 4.3.7)
_ZIP64_EXTRA = 20  # zipfile adds this to the local header when it is told to expect a large member
_PADDING_ID = 0x6372  # an extra field of our own, to be skipped by readers


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


def read_npz(file: BinaryIO, kind: type[A], name: str) -> A:
    """Reads an artifact of the given class from a seekable binary file; name is what errors call it.

    Arrays are memory-mapped, read-only. Raises DataError for everything that is not a whole artifact of that kind, of a
    version known here.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if "header" not in members:
                raise DataError(f"expected an NPZ written by recli, found no header; its members: {_names(members)}")
            header = _parse_header(_read_member(file, members.pop("header")))
            _check_header(header, kind)
            arrays = {member: _read_member(file, info) for member, info in members.items()}
        provenance = Provenance(**{f.name: header[f.name] for f in dataclasses.fields(Provenance)})
        return kind.from_arrays(arrays, provenance)  # type: ignore[attr-defined,no-any-return]
    except zipfile.BadZipFile as error:
        raise DataError(
            f"expected an NPZ file, found something else or a truncated one ({error})", file=name
        ) from error
    except DataError as error:
        raise DataError(str(error), file=name) from error
    except (ValueError, KeyError, TypeError, EOFError, RecursionError, struct.error) as error:
        raise DataError(f"damaged NPZ: {error}", file=name) from error


def read_artifact(found: Source, kind: type[A]) -> A:
    """The artifact of the given class in a source of one NPZ file."""
    if found.format != "npz" or len(found.files) != 1 or found.remote:
        raise DataError("expected one local NPZ file written by recli", file=found.name)
    with open(found.files[0], "rb") as file:
        return read_npz(file, kind, found.name)


def _read_member(file: BinaryIO, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Checks the sizes that headers claim against the bytes that are there before allocating anything."""
    name = info.filename.removesuffix(".npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise DataError(f"array {name}: expected a stored member, found a compressed one (recli writes none)")
    file.seek(info.header_offset)
    local = file.read(_LOCAL_HEADER)
    if len(local) < _LOCAL_HEADER or local[:4] != b"PK\x03\x04":
        raise DataError(f"array {name}: its zip header is damaged")
    name_length, extra_length = struct.unpack("<HH", local[26:30])
    start = info.header_offset + _LOCAL_HEADER + name_length + extra_length
    file.seek(start)
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise DataError(f"array {name}: expected numbers, found pickled objects, which are never loaded")
    offset = file.tell()
    claimed = int(np.prod([int(side) for side in shape], dtype=object)) * dtype.itemsize
    there = start + info.file_size - offset
    if fortran or claimed != there or any(side < 0 for side in shape):
        raise DataError(f"array {name}: its header asks for {claimed} bytes, {there} are there")
    file.seek(0, 2)
    if offset + claimed > file.tell():
        raise DataError(f"array {name}: the file ends before it does (truncated?)")
    data = _map(file, offset, claimed)
    file.seek(start)
    if zlib.crc32(data.data, zlib.crc32(file.read(offset - start))) != info.CRC:
        raise DataError(f"array {name}: its checksum does not match (damaged file)")
    return data.view(dtype).reshape(shape)


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
        raise DataError(f"expected an artifact of kind {kind.kind}, found {found}")
    if not isinstance(version, int) or version > kind.version:
        raise DataError(f"expected {kind.kind}/{kind.version} or older, found {kind.kind}/{version}: upgrade recli")


def _names(members: dict[str, zipfile.ZipInfo]) -> str:
    return ", ".join(sorted(members)[:8]) or "none"
