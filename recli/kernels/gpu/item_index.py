"""Items for a search, by descending norm (nominate.cu): all of them on the device, or one run of them after the other
where they would take too much of its memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.ids import Csr
from recli.kernels.gpu import tables
from recli.kernels.gpu.cuda import Array, Cuda
from recli.kernels.spec import Floats, Nums

COLUMNS = 16  # of halves, which a tensor core takes at a time
CLIP = 126  # 2^-126 is float32's smallest normal number
SLACK = 1 + 2.0**-9


class OnDevice(NamedTuple):
    """Copies of an index, or of a run of its rows.

    rows float32[m, width]; halves float16[m, any], scales, norms float32[m]: see nominate.cu; order, places int32[m]:
    the item of each row, the row of each item. reach: no scaled row is longer; exponent: of the norm that is 1 in
    `norms`.
    """

    rows: Array
    halves: Array
    scales: Array
    norms: Array
    order: Array
    places: Array
    reach: float
    exponent: int

    def __len__(self) -> int:
        return int(self.order.size)

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self[:6])


class ItemIndex:
    """rows float32[m, width], norms float64[m], order int32[m]: see `spec.Kernels.index_arrays`. Copies are on the
    device from the first search on, if all items fit.

    run: how many items are on the device at a time, as far as is known.
    """

    def __init__(self, cuda: Cuda, rows: Floats, norms: NDArray[np.float64], order: Nums) -> None:
        self.rows, self.norms, self.order = rows, norms, order
        self._cuda = cuda
        self._copies: OnDevice | None = None
        width = tables.padded_width(rows.shape[1])
        each = 4 * width + 2 * halves_width(width) + 4 * 4
        all_fit = each * len(order) <= cuda.shares.kept * cuda.available
        self.run = len(order) if all_fit else max(1, int(cuda.shares.part * cuda.available) // each)
        cuda.keep(self)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"rows": self.rows, "norms": self.norms, "order": self.order}

    @property
    def evictable(self) -> int:
        return self._copies.nbytes if self._copies else 0

    def evict(self) -> None:
        self._copies = None

    @contextmanager
    def on_device(self) -> Iterator[OnDevice]:
        """All items, which nobody evicts meanwhile."""
        copies, self._copies = self._copies or _copy(self._cuda, self.rows, self.norms, self.order), None
        try:
            yield copies
        finally:
            self._copies = copies

    def runs(self) -> Iterator[tuple[OnDevice, Nums | None]]:
        """All items, `run` of them after the other: on the device, and the items that the numbers there stand for, in
        the same order (None: themselves).
        """
        if self.run >= len(self):
            with self.on_device() as copies:
                yield copies, None
            return
        for span in tables.spans(len(self), self.run):
            items = np.sort(self.order[span])
            nums = np.searchsorted(items, self.order[span]).astype(np.int32)
            yield _copy(self._cuda, self.rows[span], self.norms[span], nums), items


def _copy(cuda: Cuda, rows: Floats, norms: NDArray[np.float64], order: Nums) -> OnDevice:
    norms, m = np.asarray(norms), len(order)
    exponents = np.where(norms > 0, np.frexp(norms)[1] - 1, -CLIP)
    top = int(np.clip(exponents[:1].sum(), -CLIP, CLIP))
    exponents = np.clip(exponents, max(-CLIP, top - CLIP), top)
    units = np.ldexp(1.0, -exponents)
    places = np.empty(m, np.int32)
    places[order] = np.arange(m, dtype=np.int32)
    on_device = tables.to_device(cuda, rows)
    width = int(on_device.shape[1])
    halves = cuda.empty((m, halves_width(width)), np.uint16)
    arguments = on_device, width, cuda.upload(units.astype(np.float32)), halves, m, int(halves.shape[1])
    cuda.launch("nominate.round_items", tables.blocks_of(int(halves.size)), tables.THREADS, *arguments)
    return OnDevice(
        on_device,
        halves,
        cuda.upload(np.ldexp(1.0, exponents - top).astype(np.float32)),
        cuda.upload(np.nextafter((norms * 2.0**-top).astype(np.float32), np.float32(np.inf))),
        cuda.upload(np.array(order)),
        cuda.upload(places),
        float((norms * units).max(initial=0.0)) * SLACK,
        top,
    )


def index_items(cuda: Cuda, items: Floats) -> ItemIndex:
    norms = np.sqrt(np.einsum("ir,ir->i", items, items, dtype=np.float64))
    order = np.argsort(-norms, kind="stable").astype(np.int32)
    return ItemIndex(cuda, items[order], norms[order], order)


def index_from(cuda: Cuda, arrays: Mapping[str, NDArray[Any]]) -> ItemIndex:
    return ItemIndex(cuda, arrays["rows"], arrays["norms"], arrays["order"])


def halves_width(rank: int) -> int:
    return max(1, -(-rank // COLUMNS)) * COLUMNS


def among(excluded: Csr, items: Nums) -> Csr:
    """What `excluded` has of these items, ascending, numbered by their places."""
    places = np.searchsorted(items, excluded.indices).astype(np.int32)
    here = items[np.minimum(places, len(items) - 1)] == excluded.indices
    bounds = np.append(0, np.cumsum(here))
    return Csr(bounds[excluded.indptr], places[here], excluded.values[here])
