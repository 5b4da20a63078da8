"""External ids, and (user, item) pairs of dense numbers as rows of a sparse matrix.

`*_id` is what the user's files hold; `*_num` is the dense number that it has for ever: new ids are appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ids:
    """The external ids of numbers 0, 1, 2, ...: integers, or text in Arrow's layout.

    values: an integer array [n] of any integer dtype, or uint8 UTF-8 bytes. offsets: None, or int64[n + 1] into the
    bytes. order: int64[n], numbers by ascending id, where somebody has found it out.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64] | None = None
    order: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    def take(self, nums: NDArray[Any]) -> Ids:
        """The ids of these numbers as ids of their own."""
        if self.offsets is None:
            return Ids(self.values[nums])
        starts, lengths = self.offsets[nums], self.offsets[nums + 1] - self.offsets[nums]
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
        return Ids(self.values[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)], offsets)


class Csr(NamedTuple):
    """A sparse matrix by rows, users x items unless said otherwise. Columns ascend within a row, without repeats.

    indptr: int64[rows + 1]; indices: int32[nnz]; values: float32[nnz].
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]


def row_numbers(indptr: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of each entry: int64[nnz]."""
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def stable_order(nums: NDArray[np.int32], count: int) -> NDArray[Any]:
    """The stable sorting permutation of numbers in [0, count): a counting sort (SciPy's transposition)."""
    n = len(nums)
    kind: Any = np.int32 if n < 2**31 - 1 else np.int64
    indptr = np.arange(n + 1, dtype=kind)
    one_per_row = sp.csr_array((np.zeros(n, np.int8), nums.astype(kind), indptr), shape=(n, count))
    return np.asarray(one_per_row.tocsc().indices)


def to_csr(
    user_num: NDArray[np.int32],
    item_num: NDArray[np.int32],
    values: NDArray[np.float32],
    users: int,
    items: int,
    duplicates: str,
) -> tuple[Csr, int]:
    """COO entries, in the order in which `last` and `first` are meant, to CSR; and how many entries repeated a pair.

    duplicates: last, first, sum, mean or max (sums are taken in float64).
    """
    order = stable_order(item_num, items)
    order = order[stable_order(user_num[order], users)]
    user_num, item_num, values = user_num[order], item_num[order], values[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (user_num[1:] != user_num[:-1]) | (item_num[1:] != item_num[:-1])
    repeated = len(order) - int(np.count_nonzero(starts))
    if repeated:
        first = np.flatnonzero(starts)
        values = _merge(values, first, duplicates)
        user_num, item_num = user_num[first], item_num[first]
    indptr = np.zeros(users + 1, np.int64)
    np.cumsum(np.bincount(user_num, minlength=users), out=indptr[1:])
    return Csr(indptr, np.ascontiguousarray(item_num), np.ascontiguousarray(values)), repeated


def _merge(values: NDArray[np.float32], first: NDArray[np.intp], duplicates: str) -> NDArray[np.float32]:
    last: NDArray[np.intp] = np.append(first[1:], len(values)) - 1
    if duplicates == "first":
        return values[first]
    if duplicates == "last":
        return values[last]
    if duplicates == "max":
        return np.maximum.reduceat(values, first)
    total: NDArray[np.float64] = np.add.reduceat(values.astype(np.float64), first)
    if duplicates == "mean":
        total /= last - first + 1
    with np.errstate(over="ignore"):  # infinite then, for the caller to refuse with the file's name
        return total.astype(np.float32)


def take_rows(matrix: Csr, nums: NDArray[np.int64], *, values: bool = False) -> Csr:
    """These rows as a matrix of their own, with ones for values, or where asked for, its own (none if it has none); -1
    gives an empty row.
    """
    there = np.flatnonzero(nums >= 0)
    firsts, lengths = np.zeros((2, len(nums)), np.int64)
    firsts[there] = matrix.indptr[nums[there]]
    lengths[there] = matrix.indptr[nums[there] + 1] - firsts[there]
    indptr = np.zeros(len(nums) + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    at = np.arange(indptr[-1]) + np.repeat(firsts - indptr[:-1], lengths)
    indices = np.asarray(matrix.indices)[at]
    own = np.asarray(matrix.values)[at if len(matrix.values) else slice(0)] if values else None
    return Csr(indptr, indices, np.ones(len(indices), np.float32) if own is None else own)


def slice_rows(matrix: Csr, start: int, end: int) -> Csr:
    """Rows start to end, without a copy of their entries; values are empty where the matrix has none."""
    indptr = matrix.indptr[start : end + 1]
    entries = slice(indptr[0], indptr[-1])
    return Csr(indptr - indptr[0], matrix.indices[entries], matrix.values[entries])


def union_rows(matrices: Sequence[Csr], columns: int) -> Csr:
    """In each row, the columns that any of the matrices (at least one; equally many rows) has there; with ones for
    values.
    """
    if len(matrices) == 1:
        return matrices[0]
    rows = len(matrices[0].indptr) - 1
    row_of = np.concatenate([row_numbers(matrix.indptr) for matrix in matrices])
    entries = np.unique(row_of * columns + np.concatenate([matrix.indices for matrix in matrices]))
    indptr = np.append(0, np.cumsum(np.bincount(entries // columns, minlength=rows)))
    return Csr(indptr, (entries % columns).astype(np.int32), np.ones(len(entries), np.float32))


def transpose(matrix: Csr, items: int) -> Csr:
    """The same entries by item: CSR of shape [items, users]."""
    users = len(matrix.indptr) - 1
    by_item = sp.csr_array((matrix.values, matrix.indices, matrix.indptr), shape=(users, items)).tocsc()
    values: NDArray[np.float32] = by_item.data
    return Csr(by_item.indptr.astype(np.int64), by_item.indices.astype(np.int32), values)
