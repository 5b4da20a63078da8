"""Signals that end a command as an error would: the stack unwinds, and temporary files and locks go."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any, Self


class Signals:
    """SIGTERM and Ctrl-C raise SystemExit while the block lasts; SIGTERM's default action would clean up nothing.

    code: 128 + the signal, once there was one; 0 before.
    """

    def __init__(self) -> None:
        self.code = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        ends = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored: a script's background job
            ends.append(signal.SIGINT)
        self._before = {number: signal.signal(number, self._end) for number in ends}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.code = 128 + number
        raise SystemExit(self.code)
