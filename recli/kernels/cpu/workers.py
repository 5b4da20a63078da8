"""A pool of Python threads for kernels that release the GIL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers:
    """Calls functions on `threads` threads."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="recli")

    def shutdown(self) -> None:
        self._pool.shutdown()

    def __call__(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
        """work(task) for each task on the threads, results in the order of the tasks; on an exception or a signal the
        rest is dropped.
        """
        numbered = enumerate(tasks)
        lock, stop = threading.Lock(), threading.Event()
        results: dict[int, Result] = {}

        def worker() -> None:
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows shows in the results
                while not stop.is_set():
                    with lock:
                        task = next(numbered, None)
                    if task is None:
                        return
                    results[task[0]] = work(task[1])

        futures = [self._pool.submit(worker) for _ in range(self.threads)]
        try:
            for future in futures:
                future.result()
        finally:
            stop.set()
            wait(futures)
        return [results[number] for number in range(len(results))]
