"""Counting sorts of entries into the rows of sparse matrices (numba).

Each thread has a range of rows of its own, so that no two of them write to one place, and the order of entries within a
row is that of the input, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.compiled import nb

FEW = 1 << 16  # entries that are not worth a second thread
POLICIES = ("last", "first", "sum", "mean", "max")
INSERTED = 24  # entries of a row that are sorted by insertion


def over_rows(indptr: NDArray[np.int64], work: Callable[[int, int], Any]) -> list[Any]:
    """work(first row, last row) for ranges of rows with about equally many entries, a thread each: the results."""
    threads = min(nb.get_num_threads(), 1 + int(indptr[-1]) // FEW)
    cuts = np.searchsorted(indptr, np.linspace(0, indptr[-1], threads + 1)[1:-1]).tolist()
    bounds = [0, *cuts, len(indptr) - 1]
    if threads == 1:
        return [work(*bounds)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, bounds[:-1], bounds[1:]))


def row_bounds(pieces: Iterable[NDArray[np.int32]], count: int) -> NDArray[np.int64]:
    """Where the entries of each of `count` rows go, whose rows come in pieces: int64[count + 1]."""
    indptr = np.zeros(count + 1, np.int64)
    for rows in pieces:
        count_rows(rows, indptr)
    return np.cumsum(indptr, out=indptr)


@nb.njit(nogil=True, cache=True)
def count_rows(rows: Any, counts: Any) -> None:
    """Adds the entries of row r to counts[r + 1]; np.bincount would make int64 of all rows first."""
    for row in rows:
        counts[row + 1] += 1


@nb.njit(nogil=True, cache=True)
def scatter(
    start: Any, rows: Any, columns: Any, first: Any, last: Any, ends: Any, out_columns: Any, out_entries: Any
) -> None:
    """Puts the entries of rows first to last behind each other, with their positions, which count from `start`.

    ends int64[rows]: where the next entry of each row goes (IN/OUT).
    """
    for entry in range(len(rows)):
        row = rows[entry]
        if first <= row < last:
            at = ends[row]
            ends[row] = at + 1
            out_columns[at] = columns[entry]
            out_entries[at] = start + entry


@nb.njit(nogil=True, cache=True)
def group(labels: Any, indptr: Any, order: Any) -> None:
    """The positions of each label, ascending: indptr int64[labels + 1], zeros (IN/OUT), order int[n] (OUT)."""
    for at in range(len(labels)):
        indptr[labels[at] + 1] += 1
    for label in range(len(indptr) - 1):
        indptr[label + 1] += indptr[label]
    for at in range(len(labels)):
        order[indptr[labels[at]]] = at
        indptr[labels[at]] += 1
    for label in range(len(indptr) - 1, 0, -1):
        indptr[label] = indptr[label - 1]
    indptr[0] = 0


@nb.njit(nogil=True, cache=True)
def sort_rows(indptr: Any, first: Any, last: Any, columns: Any, entries: Any) -> Any:
    """Sorts the entries of rows first to last by column, then by position (IN/OUT); how many repeat a column."""
    longest = 0
    for row in range(first, last):
        longest = max(longest, indptr[row + 1] - indptr[row])
    keys, unsorted = np.empty(longest, np.uint64), np.empty(longest, entries.dtype)
    repeated = 0
    for row in range(first, last):
        start = indptr[row]
        n = indptr[row + 1] - start
        ascending = True
        for j in range(start + 1, start + n):
            if columns[j] <= columns[j - 1]:
                ascending = False
                break
        if ascending:
            continue
        for j in range(n):
            keys[j] = (np.uint64(columns[start + j]) << np.uint64(32)) | np.uint64(j)
            unsorted[j] = entries[start + j]
        if n <= INSERTED:
            for j in range(1, n):
                key = keys[j]
                i = j - 1
                while i >= 0 and keys[i] > key:
                    keys[i + 1] = keys[i]
                    i -= 1
                keys[i + 1] = key
        else:
            keys[:n].sort()
        before = np.int32(-1)
        for j in range(n):
            column = np.int32(keys[j] >> np.uint64(32))
            repeated += column == before
            before = column
            columns[start + j] = column
            entries[start + j] = unsorted[keys[j] & np.uint64(0xFFFFFFFF)]
    return repeated


@nb.njit(nogil=True, cache=True)
def gather(values: Any, entries: Any, start: Any, end: Any, out: Any) -> None:
    for at in range(start, end):
        out[at] = values[entries[at]]


@nb.njit(nogil=True, cache=True)
def mark_first(indptr: Any, first: Any, last: Any, by: Any, counts: Any, out: Any) -> None:
    """Which entries of rows first to last are among the first counts[row] if a row is ordered by `by`; equal ones stay
    as they are. out: bool[nnz] (OUT).
    """
    for row in range(first, last):
        start, end = indptr[row], indptr[row + 1]
        if counts[row] >= end - start:
            out[start:end] = True
        elif counts[row] > 0:
            order = np.argsort(by[start:end], kind="mergesort")
            for at in range(end - start):
                out[start + order[at]] = at < counts[row]
        else:
            out[start:end] = False


@nb.njit(nogil=True, cache=True)
def merge_rows(indptr: Any, columns: Any, entries: Any, values: Any, policy: Any, out_indptr: Any, out: Any) -> None:
    """One entry in the place of those of a row and column that follow each other; columns move up in place (IN/OUT).

    policy: a place in POLICIES; sums are taken in float64. out_indptr int64[rows + 1], out float32 (OUT).
    """
    at = 0
    for row in range(len(indptr) - 1):
        entry, end = indptr[row], indptr[row + 1]
        while entry < end:
            column, start = columns[entry], entry
            first = values[entries[entry]]
            last, most, total = first, first, np.float64(first)
            entry += 1
            while entry < end and columns[entry] == column:
                last = values[entries[entry]]
                most = max(most, last)
                total += np.float64(last)
                entry += 1
            if policy == 0:
                out[at] = last
            elif policy == 1:
                out[at] = first
            elif policy == 2:
                out[at] = np.float32(total)
            elif policy == 3:
                out[at] = np.float32(total / (entry - start))
            else:
                out[at] = most
            columns[at] = column
            at += 1
        out_indptr[row + 1] = at


@nb.njit(nogil=True, cache=True)
def transpose_into(
    indptr: Any, indices: Any, values: Any, first: Any, last: Any, ends: Any, out_indices: Any, out_values: Any
) -> None:
    """The entries of a CSR matrix in columns first to last, column by column; ends as in `scatter`."""
    for row in range(len(indptr) - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            column = indices[entry]
            if first <= column < last:
                at = ends[column]
                ends[column] = at + 1
                out_indices[at] = row
                out_values[at] = values[entry]
