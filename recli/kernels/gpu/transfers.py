"""Copies between host and device beside the work: what comes next is on its way to the device, and what was last is on
its way back, while kernels run. Each way has two places, on both sides, that take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from recli.kernels.gpu.cuda import Array, Cuda

T = TypeVar("T")
Span: TypeAlias = "slice | NDArray[Any]"  # rows: neighbours, or by their numbers


class Moving(NamedTuple):
    """An array of which the device needs parts, one after the other: a view of each where it is there, else a copy.

    array [n, ...]: on the device or on the host, C-order. spans: the rows of each part, neighbours where it is on the
    device. read: a copy has the rows' values; written: the rows get a copy's, as kernels leave them.
    """

    array: Array | NDArray[Any]
    spans: Sequence[Span]
    read: bool = True
    written: bool = False

    @property
    def travels(self) -> bool:
        return isinstance(self.array, np.ndarray)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the largest part."""
        return max(map(_length, self.spans), default=0), *self.array.shape[1:]

    def length(self, number: int) -> int:
        return _length(self.spans[number])

    def fetch(self, number: int, to: NDArray[Any]) -> None:
        span = self.spans[number]
        if isinstance(span, slice):
            np.copyto(to, self.array[span])
        else:
            np.take(self.array, span, axis=0, out=to, mode="clip")  # another mode would make a copy first


def moving(cuda: Cuda, arrays: Sequence[Moving]) -> Iterator[list[Array]]:
    """Each part of the arrays, on the device until the next is asked for; what is written is on the host after the
    last. All have as many parts. Raises DeviceMemoryError before the first where there is no room for the largest.
    """
    if len(arrays[0].spans) == 1:
        yield from _at_once(cuda, arrays)
        return
    inward = [each for each in arrays if each.travels and each.read]
    outward = [each for each in arrays if each.travels and each.written]
    back = (
        Returning(cuda, [each.shape for each in outward], [each.array.dtype for each in outward]) if outward else None
    )
    for number, copies in enumerate(_arriving(cuda, inward, len(arrays[0].spans))):
        arrived, room = iter(copies), iter(back.room() if back else [])
        parts = []
        for each in arrays:
            part = each.array[each.spans[number]] if not each.travels else next(arrived) if each.read else None
            if each.travels and each.written:
                to = next(room)[: each.length(number)]
                if part is not None:
                    cuda.copy(part, to)
                part = to
            parts.append(part)
        yield parts
        if back:
            back.send([(each.array, each.spans[number]) for each in outward])
    if back:
        back.finish()


def _at_once(cuda: Cuda, arrays: Sequence[Moving]) -> Iterator[list[Array]]:
    """Of a single part: there is nothing beside which to copy."""
    parts = []
    for each in arrays:
        if not each.travels or each.read:
            part = each.array[each.spans[0]]
            parts.append(cuda.upload(part) if each.travels else part)
        else:
            parts.append(cuda.empty(each.shape, each.array.dtype))
    yield parts
    for each, part in zip(arrays, parts, strict=True):
        if each.travels and each.written:
            each.array[each.spans[0]] = cuda.download(part)


def started(parts: Iterator[T]) -> Iterator[T]:
    """The same, with memory taken for them."""
    for first in parts:
        return chain([first], parts)
    return iter(())


def _arriving(cuda: Cuda, arrays: Sequence[Moving], count: int) -> Iterator[list[Array]]:
    """Copies of the first, ..., last part of each array on the device."""
    if not arrays:
        yield from ([] for _ in range(count))
        return
    copies = cuda.stream()
    shapes, dtypes = [each.shape for each in arrays], [each.array.dtype for each in arrays]
    places = [_Place(cuda, shapes, dtypes) for _ in range(min(2, count))]

    def send(number: int) -> None:
        place = places[number % 2]
        place.copied.synchronize()  # what was there last has left the host's memory
        copies.wait_event(place.used)
        for each, to, through in zip(arrays, place.arrays, place.pinned, strict=True):
            length = each.length(number)
            if to[:length].size:
                each.fetch(number, through[:length])
                to[:length].set(through[:length], stream=copies)
        place.copied.record(copies)

    try:
        for number in range(count):
            for ahead in (0, 1) if not number else (number + 1,):
                if ahead < count:
                    send(ahead)
            place = places[number % 2]
            cuda.work.wait_event(place.copied)
            yield [to[: each.length(number)] for each, to in zip(arrays, place.arrays, strict=True)]
            place.used.record(cuda.work)
    finally:
        copies.synchronize()  # before the memory is somebody else's


class Returning:
    """Arrays [n, ...] of these shapes and dtypes on their way to the host, block by block."""

    def __init__(self, cuda: Cuda, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[Any]) -> None:
        self._cuda, self._copies = cuda, cuda.stream()
        self._places = [_Place(cuda, shapes, dtypes) for _ in range(2)]
        self._outs: list[Sequence[tuple[NDArray[Any], Span]]] = [(), ()]
        self._now = 0

    def room(self) -> list[Array]:
        """Arrays on the device for a block, to be filled by kernels and sent."""
        self._settle(self._now)
        return self._places[self._now].arrays

    def send(self, outs: Sequence[tuple[NDArray[Any], Span]]) -> None:
        """The arrays that `room` gave last go to these rows [up to n, ...], which have them after `finish`."""
        place = self._places[self._now]
        place.used.record(self._cuda.work)
        self._copies.wait_event(place.used)
        for array, through, (_, span) in zip(place.arrays, place.pinned, outs, strict=True):
            length = _length(span)
            if through[:length].size:
                array[:length].get(stream=self._copies, out=through[:length], blocking=False)
        place.copied.record(self._copies)
        self._outs[self._now] = outs
        self._now = 1 - self._now

    def finish(self) -> None:
        for number in (0, 1):
            self._settle(number)

    def _settle(self, number: int) -> None:
        place, outs = self._places[number], self._outs[number]
        place.copied.synchronize()
        for through, (out, span) in zip(place.pinned, outs, strict=bool(outs)):
            out[span] = through[: _length(span)]
        self._outs[number] = ()


class _Place:
    """Memory on both sides. copied: what was there last has arrived; used: kernels have done with it."""

    def __init__(self, cuda: Cuda, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[Any]) -> None:
        self.arrays = [cuda.empty(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        self.pinned = [cuda.pinned(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        self.copied, self.used = cuda.event(), cuda.event()
        self.used.record(cuda.work)  # by those who had the memory before


def _length(span: Span) -> int:
    return int(span.stop - span.start) if isinstance(span, slice) else len(span)
