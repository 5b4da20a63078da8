"""NPZ files of other programs: chosen arrays, stored or deflated, in C or Fortran order; never pickled."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from recli.checks import Arrays
from recli.errors import DataError
from recli.io.npz import npz_errors, parse_npy, stored_bytes

DEFLATE_LIMIT = 1032  # bytes that one compressed byte can stand for at most (zlib's technical details)


def array_names(file: BinaryIO, name: str) -> list[str]:
    """The names of the arrays in an NPZ file; name is what errors call it."""
    with npz_errors(name), zipfile.ZipFile(file) as archive:
        return [member.removesuffix(".npy") for member in archive.namelist()]


def read_arrays(file: BinaryIO, wanted: Collection[str], name: str) -> Arrays:
    """The wanted arrays; those that are not there are left out, and others not looked at.

    Stored arrays are memory-mapped, read-only. Raises DataError for damage, pickled objects, and sizes that the file
    cannot hold.
    """
    with npz_errors(name):
        size = file.seek(0, 2)
        with zipfile.ZipFile(file) as archive:
            infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            return {
                array: parse_npy(array, _member_bytes(archive, file, infos[array], size), fortran=True)
                for array in wanted
                if array in infos
            }


def _member_bytes(archive: zipfile.ZipFile, file: BinaryIO, info: zipfile.ZipInfo, size: int) -> NDArray[np.uint8]:
    name = info.filename.removesuffix(".npy")
    if info.flag_bits & 1:
        raise DataError(f"array {name}: it is encrypted")
    if info.compress_type == zipfile.ZIP_STORED:
        return stored_bytes(file, info, size)
    if info.compress_type != zipfile.ZIP_DEFLATED:
        raise DataError(f"array {name}: expected a stored or deflated member, found compression {info.compress_type}")
    if not 0 <= info.header_offset <= size:
        raise DataError(f"array {name}: it begins outside the file (truncated?)")
    if info.compress_size > size or info.file_size > DEFLATE_LIMIT * info.compress_size:
        raise DataError(
            f"array {name}: the file's directory promises {info.file_size} bytes from {info.compress_size}, "
            f"the file has {size}"
        )
    with archive.open(info) as member:
        data = member.read(info.file_size)
    if len(data) != info.file_size:
        raise DataError(f"array {name}: the file ends before it does (truncated?)")
    return np.frombuffer(data, np.uint8)
