"""Sparse matrices for the device: kept there where there is room, else on the host and copied in blocks of rows, the
next block while one is worked with.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.ids import Csr
from recli.kernels.gpu.cuda import Array, Cuda, DeviceMemoryError
from recli.kernels.gpu.transfers import arriving
from recli.kernels.spec import Floats, Nums

ENTRY_BYTES = 12  # a number, a weight, a target
KEPT_SHARE = 0.5  # of the memory that is left: a matrix may take so much for good
BLOCK_SHARE = 0.25  # a block so much, twice


class Part(NamedTuple):
    """Rows first, ..., behind - 1, whose entries, counted from `origin`, are on the device."""

    first: int
    behind: int
    origin: int
    indices: Array
    weights: Array
    targets: Array  # or None


class ByLength(NamedTuple):
    """Rows, the longest first: on the device, on the host, and their lengths."""

    rows: Array
    host: Nums
    lengths: NDArray[np.int64]


class SparseMatrix:
    """See `spec.Kernels.matrix`."""

    def __init__(self, cuda: Cuda, csr: Csr) -> None:
        self.cuda, self.csr = cuda, csr
        self.lengths = np.diff(csr.indptr)
        self._kept: tuple[Array, Array] | None = None
        self._targets: tuple[Floats, Array] | None = None
        self._by_length: dict[int, ByLength] = {}
        self._block = 0  # entries at a time: all of them
        self._divided: tuple[int, list[tuple[int, int]]] = (0, [])
        if len(csr.indices) * ENTRY_BYTES > KEPT_SHARE * cuda.left:
            self.evict()
        cuda.keep(self)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def indptr(self) -> Array:
        return self.cuda.upload(self.csr.indptr)

    @cached_property
    def column_weights(self) -> Floats:
        """The sum of each column's values, up to its last column in use."""
        return np.bincount(self.csr.indices, self.csr.values).astype(np.float32)

    def evict(self) -> int:
        """Entries are copied block by block from now on."""
        freed: int = sum(array.nbytes for array in [*(self._kept or ()), *(self._targets or ())[1:]])
        self._kept = self._targets = None
        if not self._block:
            self._block = max(1, int(BLOCK_SHARE * self.cuda.left / ENTRY_BYTES))
        return freed

    def parts(self, targets: Floats | None = None) -> Iterator[Part]:
        """All rows, in one part or in several. targets: float32[nnz], in the order of the entries; an array that is
        passed again must not have changed.
        """
        if not self._block:
            try:
                indices, weights = self._keep()
                yield Part(0, len(self), 0, indices, weights, self._keep_targets(targets))
                return
            except DeviceMemoryError:
                self.evict()
        while True:
            bounds = self._bounds()
            spans = [(int(self.csr.indptr[a]), int(self.csr.indptr[b])) for a, b in bounds]
            arrays = [self.csr.indices, self.csr.values, *([] if targets is None else [targets])]
            pieces = arriving(self.cuda, [[array[start:end] for array in arrays] for start, end in spans])
            try:
                piece = next(pieces, None)
                break
            except DeviceMemoryError:
                if len(bounds) == len(self):
                    raise
                self._block = max(1, self._block // 2)
        for (first, behind), (origin, _) in zip(bounds, spans, strict=True):
            assert piece is not None
            yield Part(first, behind, origin, piece[0], piece[1], piece[2] if targets is not None else None)
            piece = next(pieces, None)

    def by_length(self, first: int, behind: int) -> ByLength:
        """Of the rows of a part."""
        if first not in self._by_length:
            lengths = self.lengths[first:behind]
            order = np.argsort(-lengths, kind="stable")
            rows = (first + order).astype(np.int32)
            self._by_length[first] = ByLength(self.cuda.upload(rows), rows, lengths[order])
        return self._by_length[first]

    def _keep(self) -> tuple[Array, Array]:
        if self._kept is None:
            self._kept = self.cuda.upload(self.csr.indices), self.cuda.upload(self.csr.values)
        return self._kept

    def _keep_targets(self, targets: Floats | None) -> Array:
        if targets is None:
            return None
        if targets is self.csr.values:
            return self._keep()[1]
        if self._targets is None or self._targets[0] is not targets:
            self._targets = None  # before its successor takes memory
            self._targets = targets, self.cuda.upload(targets)
        return self._targets[1]

    def _bounds(self) -> list[tuple[int, int]]:
        """Of parts with at most `_block` entries, or one row."""
        if self._divided[0] == self._block:
            return self._divided[1]
        self._by_length.clear()
        bounds, first, indptr = list[tuple[int, int]](), 0, self.csr.indptr
        while first < len(self):
            behind = int(np.searchsorted(indptr, indptr[first] + self._block, side="right")) - 1
            bounds.append((first, max(first + 1, behind)))
            first = bounds[-1][1]
        self._divided = self._block, bounds
        return bounds
