"""Checks of arrays that may come from a file: an error names the array, what was expected and what was found."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recli.errors import DataError
from recli.ids import Ids

Arrays: TypeAlias = dict[str, NDArray[Any]]


def check_array(name: str, array: NDArray[Any], dtype: Any, shape: tuple[int, ...], *, finite: bool = False) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise DataError(
            f"array {name}: expected {np.dtype(dtype)}{list(shape)}, found {array.dtype}{list(array.shape)}"
        )
    if finite and not np.isfinite(array).all():
        raise DataError(f"array {name}: expected finite numbers, found NaN or infinity")


def check_csr(
    prefix: str, indptr: NDArray[Any], indices: NDArray[Any], rows: int, columns: int, checked: bool = True
) -> None:
    check_array(f"{prefix}indptr", indptr, np.int64, (rows + 1,))
    check_array(f"{prefix}indices", indices, np.int32, (indices.size,))
    if not checked:
        return
    _rises(f"{prefix}indptr", indptr, len(indices))
    if len(indices) and not (indices.min() >= 0 and indices.max() < columns):
        raise DataError(
            f"array {prefix}indices: expected numbers below {columns}, found {indices.min()} to {indices.max()}"
        )
    rising = indices[1:] > indices[:-1]
    rising[indptr[1:-1][(indptr[1:-1] > 0) & (indptr[1:-1] < len(indices))] - 1] = True  # where a new row begins
    if not rising.all():
        raise DataError(f"array {prefix}indices: expected to rise within each row, found otherwise")


def check_ids(name: str, ids: Ids, checked: bool = True) -> None:
    """Types and layout; that ids are unique is checked where they are looked up or written (io/id_columns.py)."""
    if ids.offsets is None:
        if ids.values.ndim != 1 or ids.values.dtype.kind not in "iu" or not ids.values.dtype.isnative:
            raise DataError(f"array {name}: expected integers, found {ids.values.dtype}{list(ids.values.shape)}")
        return
    check_array(f"{name}_utf8", ids.values, np.uint8, (ids.values.size,))
    check_array(f"{name}_offsets", ids.offsets, np.int64, (ids.offsets.size,))
    if checked:
        _rises(f"{name}_offsets", ids.offsets, len(ids.values))


def _rises(name: str, bounds: NDArray[Any], end: int) -> None:
    """From 0 to end. Neighbours are compared, not subtracted: a hostile file's differences may overflow."""
    if not len(bounds) or bounds[0] != 0 or bounds[-1] != end or (bounds[1:] < bounds[:-1]).any():
        raise DataError(f"array {name}: expected to rise from 0 to {end}, found otherwise")
