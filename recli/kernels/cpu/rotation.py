"""A fixed rotation that evens out the entries of a row, so that a byte holds each to about the same precision."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = 128  # mixed with each other, at most: a rotation of all columns of a high rank would cost rank^2 a row


@cache
def _matrix(size: int, kind: str) -> NDArray[Any]:
    """Orthonormal: the discrete cosine transform (type II), after signs without a pattern that a row could share."""
    at = np.arange(size)
    matrix = np.sqrt(2 / size) * np.cos(np.pi / size * (at[:, None] + 0.5) * at)
    matrix[:, 0] /= np.sqrt(2)
    signed: NDArray[Any] = (matrix * np.where(np.sin(at**2.0) < 0, -1, 1)[:, None]).astype(kind)
    return signed


def rotate(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows [n, width] of float32 or float64, each times one and the same orthonormal matrix: a new array."""
    width = rows.shape[1]
    rotated = np.empty_like(rows)
    for columns in np.array_split(np.arange(width), max(1, -(-width // COLUMNS))):
        if len(columns):
            span = slice(columns[0], columns[-1] + 1)
            np.matmul(rows[:, span], _matrix(len(columns), rows.dtype.name), out=rotated[:, span])
    return rotated
