"""Copies between host and device beside the work: what comes next is on its way to the device, and what was last is on
its way back, while kernels run. Each way has two places, on both sides, that take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.kernels.gpu.cuda import Array, Cuda


def arriving(cuda: Cuda, pieces: Sequence[Sequence[NDArray[Any]]]) -> Iterator[list[Array]]:
    """Copies of each piece's arrays [any] on the device, until the next piece is asked for. Pieces have as many arrays,
    of the same dtypes. Raises DeviceMemoryError before the first where two pieces of the largest size do not fit.
    """
    sizes = [max(array.size for array in arrays) for arrays in zip(*pieces, strict=True)]
    copies = cuda.stream()
    places = [_Place(cuda, sizes, [array.dtype for array in pieces[0]]) for _ in pieces[:2]]

    def send(number: int) -> None:
        place = places[number % 2]
        place.copied.synchronize()  # what was there last has left the host's memory
        copies.wait_event(place.used)
        for array, to, through in zip(pieces[number], place.arrays, place.pinned, strict=True):
            if array.size:
                np.copyto(through[: array.size], array)
                to[: array.size].set(through[: array.size], stream=copies)
        place.copied.record(copies)

    try:
        for number, piece in enumerate(pieces):
            for ahead in (0, 1) if not number else (number + 1,):
                if ahead < len(pieces):
                    send(ahead)
            place = places[number % 2]
            cuda.work.wait_event(place.copied)
            yield [to[: array.size] for to, array in zip(place.arrays, piece, strict=True)]
            place.used.record(cuda.work)
    finally:
        copies.synchronize()  # before the memory is somebody else's


class Returning:
    """Arrays [n, ...] of these shapes and dtypes on their way to the host, block by block."""

    def __init__(self, cuda: Cuda, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[Any]) -> None:
        self._cuda, self._copies = cuda, cuda.stream()
        self._places = [_Place(cuda, shapes, dtypes) for _ in range(2)]
        self._outs: list[Sequence[NDArray[Any]]] = [(), ()]
        self._now = 0

    def room(self) -> list[Array]:
        """Arrays on the device for a block, to be filled by kernels and sent."""
        self._settle(self._now)
        return self._places[self._now].arrays

    def send(self, outs: Sequence[NDArray[Any]]) -> None:
        """The arrays that `room` gave last go to outs [up to n, ...], which have them after `finish`."""
        place = self._places[self._now]
        place.used.record(self._cuda.work)
        self._copies.wait_event(place.used)
        for array, through, out in zip(place.arrays, place.pinned, outs, strict=True):
            if out.size:
                array[: len(out)].get(stream=self._copies, out=through[: len(out)], blocking=False)
        place.copied.record(self._copies)
        self._outs[self._now] = outs
        self._now = 1 - self._now

    def finish(self) -> None:
        for number in (0, 1):
            self._settle(number)

    def _settle(self, number: int) -> None:
        place, outs = self._places[number], self._outs[number]
        place.copied.synchronize()
        for through, out in zip(place.pinned, outs, strict=bool(outs)):
            np.copyto(out, through[: len(out)])
        self._outs[number] = ()


class _Place:
    """Memory on both sides. copied: what was there last has arrived; used: kernels have done with it."""

    def __init__(self, cuda: Cuda, shapes: Sequence[int | tuple[int, ...]], dtypes: Sequence[Any]) -> None:
        self.arrays = [cuda.empty(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        self.pinned = [cuda.pinned(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        self.copied, self.used = cuda.event(), cuda.event()
        self.used.record(cuda.work)  # by those who had the memory before
