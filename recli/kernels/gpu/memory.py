"""What to do where the device's memory ends: let go of what can be had again, and take less at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from recli.errors import BusyError

T = TypeVar("T")


@dataclass(frozen=True)
class Shares:
    """Of what, how much is on the device at once.

    kept: of the memory that may be had, a matrix or a table that would take more stays on the host. block_bytes: of
    tables that travel. part: of the memory that is left, and part_bytes: of a matrix with all that its rows and entries
    take along. What travels has two such places on the device, and as many in the host's pinned memory.
    """

    kept: float = 0.5
    block_bytes: int = 64 << 20
    part: float = 0.25
    part_bytes: int = 1 << 30


class Evictable(Protocol):
    """What keeps something on the device that it can do without."""

    @property
    def evictable(self) -> int:
        """Bytes of it."""
        ...

    def evict(self) -> None:
        """Lets go of it."""
        ...


class DeviceMemoryError(BusyError):
    """What is needed does not fit in the device's memory."""


def halving(attempt: Callable[[int], T], most: int, least: int = 1) -> T:
    """attempt(n) for n of `most`, or half of it again and again until it fits, but `least`. Raises DeviceMemoryError
    where that does not.
    """
    n = max(most, least)
    while True:
        try:
            return attempt(n)
        except DeviceMemoryError:
            if n == least:
                raise
        n = max(least, n // 2)  # what the attempt held is free by now
