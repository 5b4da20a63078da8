"""Long calls into compiled code, off the main thread: signal handlers run in the main thread only, and only while it
runs Python.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL = 0.1  # seconds: the longest that a signal waits


def in_background(work: Callable[[], T]) -> T:
    """work() on a daemon thread: its result or exception here; a signal's exception (Ctrl-C, SIGTERM) gets through
    meanwhile.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL)
    if failure:
        raise failure[0]
    return outcome[0]
