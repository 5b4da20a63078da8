"""Sparse matrices for the device: kept there where there is room, else on the host and copied in parts of neighbouring
rows, the next part while one is worked with. What belongs to a part's rows and entries comes along where it is on the
host: the rows of a table that is solved or made, and those of a table that entries gather from, each once a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.ids import Csr
from recli.kernels.gpu.cuda import Array, Cuda
from recli.kernels.gpu.memory import DeviceMemoryError, halving
from recli.kernels.gpu.transfers import Moving, moving, started
from recli.kernels.spec import Floats, Nums

ENTRY_BYTES = 12  # a number, a weight, a target


class Part(NamedTuple):
    """Rows first, ..., behind - 1, which are numbered from 0 on the device.

    indices number the rows of `gathered`; entries count from `origin`. out: the part's rows of the table that is solved
    or made. For a half-sweep: indptr int64[rows + 1]; regularization float32[rows]; order int32[rows]: the longest rows
    first, on the host, too.
    """

    first: int
    behind: int
    origin: int
    host_order: Nums
    indices: Array
    weights: Array
    gathered: Array
    out: Array
    targets: Array
    indptr: Array = None
    regularization: Array = None
    order: Array = None


class SparseMatrix:
    """See `spec.Kernels.matrix`."""

    def __init__(self, cuda: Cuda, csr: Csr) -> None:
        self.cuda, self.csr = cuda, csr
        self._stays = len(csr.indices) * ENTRY_BYTES <= cuda.shares.kept * cuda.left
        self._kept: list[Array] = []
        self._targets: tuple[Floats, Array] | None = None
        self._part_bytes = 0
        self._division: _Division | None = None
        cuda.keep(self)

    def __len__(self) -> int:
        return len(self.csr.indptr) - 1

    @cached_property
    def column_weights(self) -> Floats:
        """The sum of each column's values, up to its last column in use."""
        return np.bincount(self.csr.indices, self.csr.values).astype(np.float32)

    @cached_property
    def longest(self) -> int:
        """Entries of a row."""
        return int(np.diff(self.csr.indptr).max(initial=0))

    @property
    def evictable(self) -> int:
        return sum(array.nbytes for array in [*self._kept, *(self._targets or ())[1:]])

    def evict(self) -> None:
        """Entries are copied part by part from now on."""
        self._kept, self._targets, self._stays = [], None, False

    def parts(
        self,
        gathered: Array | NDArray[Any],
        out: Array | NDArray[Any],
        targets: Floats | None = None,
        regularization: Floats | None = None,
    ) -> Iterator[Part]:
        """All rows, in one part or in several; `out` goes back to where it is. For a half-sweep, which reads it, too:
        targets float32[nnz], in the order of the entries, and regularization float32[rows]; an array of targets that is
        passed again must not have changed.
        """
        far, sweep = isinstance(gathered, np.ndarray), targets is not None
        row_bytes = (1 + sweep) * out[:1].nbytes if isinstance(out, np.ndarray) else 0
        row_bytes += 16 if sweep else 0
        gathered_bytes = 4 + gathered[:1].nbytes if far else 0

        def attempt(size: int) -> Iterator[Part]:
            entries, indptr = self._entries(targets)
            entry_bytes = sum(array.itemsize for array in entries.values() if isinstance(array, np.ndarray))
            division = self._divide(size, entry_bytes + gathered_bytes, row_bytes)
            arrays = {name: Moving(array, division.entries) for name, array in entries.items()}
            arrays["out"] = Moving(out, division.rows, read=sweep, written=True)
            if far:
                needed, places = division.gathered(len(gathered))
                arrays["gathered"], arrays["indices"] = Moving(gathered, needed), Moving(places, division.entries)
            else:
                arrays["gathered"] = Moving(gathered, [slice(0, len(gathered))] * len(division.rows))
            if sweep:
                arrays["indptr"] = Moving(indptr, division.bounds)
                arrays["regularization"] = Moving(regularization, division.rows)
                arrays["order"] = Moving(division.order, division.rows)
            return started(self._moving(division, arrays))

        shares = self.cuda.shares
        most = self._part_bytes or min(int(shares.part * self.cuda.left), shares.part_bytes)
        return halving(attempt, most, max(1, self.longest * (ENTRY_BYTES + gathered_bytes) + row_bytes))

    def _moving(self, division: _Division, arrays: dict[str, Moving]) -> Iterator[Part]:
        for number, here in enumerate(moving(self.cuda, list(arrays.values()))):
            rows, entries = division.rows[number], division.entries[number]
            order = division.order[rows] if "order" in arrays else np.empty(0, np.int32)
            parts = dict[str, Any](zip(arrays, here, strict=True))
            parts.setdefault("targets", parts["weights"])
            yield Part(rows.start, rows.stop, entries.start, order, **parts)

    def _entries(self, targets: Floats | None) -> tuple[dict[str, Any], Any]:
        """What there is for each entry, and indptr: on the device, or else on the host."""
        csr = self.csr
        apart = None if targets is csr.values else targets
        if self._stays:
            try:
                self._kept = self._kept or [self.cuda.upload(array) for array in (csr.indices, csr.values, csr.indptr)]
                there = dict[str, Any](indices=self._kept[0], weights=self._kept[1])
                if apart is not None:
                    there["targets"] = self._keep_targets(apart)
                return there, self._kept[2]
            except DeviceMemoryError:
                self.evict()
        there = {"indices": csr.indices, "weights": csr.values}
        return there if apart is None else {**there, "targets": apart}, csr.indptr

    def _keep_targets(self, targets: Floats) -> Array:
        if self._targets is None or self._targets[0] is not targets:
            self._targets = None  # before its successor takes memory
            self._targets = targets, self.cuda.upload(targets)
        return self._targets[1]

    def _divide(self, size: int, entry_bytes: int, row_bytes: int) -> _Division:
        """Parts of at most `size` bytes, or of one row."""
        indptr, n = self.csr.indptr, len(self)
        whole = entry_bytes * int(indptr[-1]) + row_bytes * n <= size
        key = None if whole else (size, entry_bytes, row_bytes)
        if self._division and self._division.key == key:
            return self._division
        cuts = [0]
        if whole:
            cuts.append(n)
        else:
            self._part_bytes, ends = size, entry_bytes * indptr + row_bytes * np.arange(n + 1)
            while cuts[-1] < n:
                behind = int(np.searchsorted(ends, ends[cuts[-1]] + size, side="right")) - 1
                cuts.append(max(cuts[-1] + 1, behind))
        self._division = _Division(self.csr, cuts, key)
        return self._division


class _Division:
    """A matrix in parts: the rows, the entries and the places in indptr of each. key: what they were made for."""

    def __init__(self, csr: Csr, cuts: list[int], key: tuple[int, int, int] | None) -> None:
        self.key, self._csr = key, csr
        self.rows = [slice(a, b) for a, b in pairwise(cuts)]
        self.bounds = [slice(a, b + 1) for a, b in pairwise(cuts)]
        self.entries = [slice(int(csr.indptr[a]), int(csr.indptr[b])) for a, b in pairwise(cuts)]
        self._gathered: tuple[list[Nums], Nums] | None = None

    @cached_property
    def order(self) -> Nums:
        """The rows of each part, numbered from 0, the longest first: int32[rows]."""
        lengths = np.diff(self._csr.indptr)
        parts = [np.argsort(-lengths[rows], kind="stable").astype(np.int32) for rows in self.rows]
        return np.concatenate(parts)

    def gathered(self, count: int) -> tuple[list[Nums], Nums]:
        """The rows of a table of `count` that each part gathers, ascending, and instead of the matrix's indices their
        places among those of their part.
        """
        if self._gathered is None:
            seen, place = np.zeros(count, bool), np.empty(count, np.int32)
            needed, places = [], np.empty_like(self._csr.indices)
            for entries in self.entries:
                indices = self._csr.indices[entries]
                seen[indices] = True
                needed.append(np.flatnonzero(seen).astype(np.int32))
                place[needed[-1]] = np.arange(len(needed[-1]))
                places[entries] = place[indices]
                seen[needed[-1]] = False
            self._gathered = needed, places
        return self._gathered
