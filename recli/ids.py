"""External ids, and (user, item) pairs of dense numbers as rows of a sparse matrix.

`*_id` is what the user's files hold; `*_num` is the dense number that it has for ever: new ids are appended.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
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


class SortedPairs(NamedTuple):
    """Entries by user, then by item, then by position among all of them.

    indptr: int64[users + 1]; items: int32[n]; positions: int32[n], or int64 where n is that large; repeated: how many
    entries have the same user and item as the one before.
    """

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]
    positions: NDArray[Any]
    repeated: int

    @classmethod
    def of(
        cls, user_num: Sequence[NDArray[np.int32]], item_num: Sequence[NDArray[np.int32]], users: int
    ) -> SortedPairs:
        """Of entries in pieces, the same ones of both."""
        from recli import sorting  # numba, for which not all who know of matrices have to wait

        starts = [0, *itertools.accumulate(map(len, user_num))]
        n = starts[-1]
        indptr = sorting.row_bounds(user_num, users)
        items, positions = np.empty(n, np.int32), np.empty(n, np.int32 if n < 2**31 else np.int64)
        ends = indptr[:-1].copy()

        def part(first: int, last: int) -> int:
            for start, *piece in zip(starts[:-1], user_num, item_num, strict=True):
                sorting.scatter(start, *piece, first, last, ends, items, positions)
            return int(sorting.sort_rows(indptr, first, last, items, positions))

        return cls(indptr, items, positions, sum(sorting.over_rows(indptr, part)))

    def merged(self, values: NDArray[np.float32] | None, duplicates: str) -> Csr:
        """The matrix of values by position (None: ones); ends the use of `items`, which it takes over.

        duplicates: last, first, sum, mean or max (sums are taken in float64).
        """
        from recli import sorting

        if not self.repeated:
            if values is None:
                return Csr(self.indptr, self.items, np.ones(len(self.items), np.float32))
            sorted_values = np.empty(len(values), np.float32)

            def part(first: int, last: int) -> None:
                sorting.gather(values, self.positions, self.indptr[first], self.indptr[last], sorted_values)

            sorting.over_rows(self.indptr, part)
            return Csr(self.indptr, self.items, sorted_values)
        if values is None:
            values = np.ones(len(self.items), np.float32)
        indptr, pairs = np.zeros_like(self.indptr), len(self.items) - self.repeated
        merged = np.empty(pairs, np.float32)
        policy = sorting.POLICIES.index(duplicates)
        sorting.merge_rows(self.indptr, self.items, self.positions, values, policy, indptr, merged)
        self.items.resize(pairs, refcheck=False)  # in place, where [:pairs] would keep all and a copy needs more
        return Csr(indptr, self.items, merged)

    def latest(self) -> NDArray[Any]:
        """The position of the last entry of each pair, in the order of `merged`."""
        if not self.repeated:
            return self.positions
        is_last = np.ones(len(self.items), bool)
        is_last[:-1] = self.items[1:] != self.items[:-1]
        is_last[self.indptr[1:][np.diff(self.indptr) > 0] - 1] = True
        return self.positions[is_last]

    def repeats(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Where entries of pairs are that are there more than once, and for each a number of its pair, ascending."""
        again = np.zeros(len(self.items) + 1, bool)
        again[1:-1] = self.items[1:] == self.items[:-1]
        again[self.indptr[:-1]] = False
        places = np.flatnonzero(again[:-1] | again[1:])
        return places, np.cumsum(~again[places])


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
    pairs = SortedPairs.of([user_num], [item_num], users)
    return pairs.merged(values, duplicates), pairs.repeated


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


def row_sums(indptr: NDArray[np.int64], values: NDArray[Any], dtype: type[Any]) -> NDArray[Any]:
    """The sum of each row's values [nnz], in that dtype: [rows]. Its bits depend on the row alone, and nothing of the
    size of the matrix is made.
    """
    sums, there = np.zeros(len(indptr) - 1, dtype), np.diff(indptr) > 0
    if there.any():
        sums[there] = np.add.reduceat(values, indptr[:-1][there], dtype=dtype)
    return sums


def row_counts(indptr: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many entries of each row are kept: int64[rows]."""
    return row_sums(indptr, kept, np.int64)


def compress(matrix: Csr, kept: NDArray[np.bool_], rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> Csr:
    """The entries where kept, bool[nnz], in a matrix of these rows, bool[r], and columns, bool[c], alone, which have
    all of them.
    """
    counts = row_counts(matrix.indptr, kept)[rows]
    column_nums = (np.cumsum(columns) - 1).astype(np.int32)
    indptr = np.append(0, np.cumsum(counts))
    return Csr(indptr, column_nums[matrix.indices[kept]], matrix.values[kept])


def slice_rows(matrix: Csr, start: int, end: int) -> Csr:
    """Rows start to end, without a copy of their entries; values are empty where the matrix has none."""
    indptr = matrix.indptr[start : end + 1]
    entries = slice(indptr[0], indptr[-1])
    return Csr(indptr - indptr[0], matrix.indices[entries], matrix.values[entries])


def widen(matrix: Csr, rows: int) -> Csr:
    """With empty rows behind, up to so many."""
    missing = rows - (len(matrix.indptr) - 1)
    return matrix._replace(indptr=np.append(matrix.indptr, np.full(missing, matrix.indptr[-1]))) if missing else matrix


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
    from recli import sorting

    by_item = Csr(
        sorting.row_bounds([matrix.indices], items),
        np.empty(len(matrix.indices), np.int32),
        np.empty(len(matrix.indices), np.float32),
    )
    ends = by_item.indptr[:-1].copy()

    def part(first: int, last: int) -> None:
        sorting.transpose_into(*matrix, first, last, ends, by_item.indices, by_item.values)

    sorting.over_rows(by_item.indptr, part)
    return by_item
