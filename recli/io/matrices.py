"""Matrices that are no ratings: SciPy's sparse .npz files, and dense .npy files, which are memory-mapped."""

from __future__ import annotations

import zipfile
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recli.errors import DataError
from recli.ids import Csr
from recli.io.archives import array_names, read_arrays
from recli.io.npz import npz_errors, parse_npy
from recli.io.sources import Source

LAYOUTS = ("csr", "csc", "coo")
ARRAYS = ("shape", "data", "indices", "indptr", "row", "col")
LONGEST_NAME = 1 << 10  # of the member that names the layout
CHUNK = 1 << 24  # numbers of a dense matrix that are looked at together


def is_matrix(found: Source) -> bool:
    """Is it a matrix, rather than a table or an artifact of recli?"""
    if found.remote or len(found.files) != 1 or found.format not in ("npy", "npz"):
        return False
    if found.format == "npy":
        return True
    with open(found.files[0], "rb") as file:
        return {"format", "shape", "data"} <= set(array_names(file, found.name))


def read_matrix(found: Source) -> tuple[Csr | NDArray[Any], int]:
    """A sparse matrix, or a dense one of any real dtype, read-only and mapped; and its number of columns.

    Repeated entries of a sparse matrix are added. Raises DataError for damage, other layouts, numbers that are not
    finite in float32, and matrices without an entry.
    """
    with open(found.files[0], "rb") as file:
        if found.format == "npz":
            matrix, columns = _sparse(file, found.name)
            entries: NDArray[Any] = matrix.values
        else:
            with npz_errors(found.name):
                entries = parse_npy("of the file", np.asarray(np.memmap(file, np.uint8, "r")), fortran=True)
            if entries.ndim != 2 or not entries.size:
                raise DataError(f"expected a matrix, found an array of shape {entries.shape}", file=found.name)
            columns = entries.shape[1]
    if not _is_finite(entries):
        raise DataError("expected finite numbers that float32 has, found NaN, infinity or larger", file=found.name)
    return (matrix if found.format == "npz" else entries), columns


def _sparse(file: BinaryIO, name: str) -> tuple[Csr, int]:
    layout = _layout(file, name)
    arrays = read_arrays(file, ARRAYS, name)
    needed = ("row", "col", "data") if layout == "coo" else ("indptr", "indices", "data")
    missing = [array for array in ("shape", *needed) if array not in arrays]
    if missing:
        raise DataError(f"arrays {', '.join(missing)} are missing", file=name)
    shape = tuple(int(side) for side in arrays["shape"].ravel())
    numbers = tuple(arrays[array] for array in needed)
    if len(shape) != 2 or any(array.ndim != 1 for array in numbers) or not all(0 < side < 2**31 for side in shape):
        raise DataError(f"expected a matrix, found shape {shape}", file=name)
    lines = shape[layout == "csc"]
    if layout != "coo" and len(numbers[0]) != lines + 1:
        raise DataError(f"array indptr: expected {lines + 1} numbers, found {len(numbers[0])}", file=name)
    *at, values = numbers
    try:
        with np.errstate(over="ignore"):
            content = (values.astype(np.float32), tuple(at) if layout == "coo" else at[1])
        given: Any = content if layout == "coo" else (*content, at[0])
        matrix: Any = {"csr": sp.csr_array, "csc": sp.csc_array, "coo": sp.coo_array}[layout](given, shape=shape)
        if layout != "coo":
            matrix.check_format(full_check=True)
        matrix = matrix.tocsr()
    except (ValueError, IndexError, TypeError) as error:
        raise DataError(f"not a {layout} matrix: {error}", file=name) from error
    matrix.sum_duplicates()
    if not matrix.nnz:
        raise DataError("the matrix has no entry", file=name)
    return Csr(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data), shape[1]


def _layout(file: BinaryIO, name: str) -> str:
    """What the member `format` says, which is text."""
    with npz_errors(name), zipfile.ZipFile(file) as archive, archive.open("format.npy") as member:
        text = member.read(LONGEST_NAME)[-3:].decode("ascii", "replace")
    if text not in LAYOUTS:
        raise DataError(f"expected a matrix saved as {', '.join(LAYOUTS)}, found {text!r}", file=name)
    return text


def _is_finite(values: NDArray[Any]) -> bool:
    flat = values.reshape(-1, order="A")  # no copy: it is contiguous one way or the other
    largest = np.finfo(np.float32).max
    for start in range(0, len(flat), CHUNK):
        piece = flat[start : start + CHUNK]
        if not (np.isfinite(piece).all() and np.abs(piece, dtype=np.float64).max(initial=0) <= largest):
            return False
    return True
