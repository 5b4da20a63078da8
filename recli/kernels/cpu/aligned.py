"""Arrays that begin at a cache line: NumPy's own begin 16 bytes into one, and every vector read from them spans two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

LINE = 64  # bytes, as a vector of AVX-512


def empty(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """As np.empty."""
    return within(np.empty(_room(shape, dtype), np.uint8), shape, dtype)


def zeros(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """As np.zeros."""
    return within(np.zeros(_room(shape, dtype), np.uint8), shape, dtype)


def within(raw: NDArray[np.uint8], shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """An array in these bytes, of which there are LINE more than it takes at least; they are its `base`."""
    start = -raw.ctypes.data % LINE
    return raw[start : start + _room(shape, dtype) - LINE].view(dtype).reshape(shape)


def _room(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize + LINE
