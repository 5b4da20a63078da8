"""The process of one contestant: python -m recli.bench.worker, started by contest.py.

Lines of JSON on stdin: the task, then {"run": {...}} for each run. Lines of JSON on stdout: {"ready": ...}, then one
answer a run; {"error": ...} is the last. When the bench ends, by whatever death, stdin closes, and so does this.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import queue
import resource
import sys
import threading
import warnings
from pathlib import Path
from typing import Any


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    orders: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        _serve(json.loads(orders.get()), orders, answer)
    except MemoryError:
        answer({"error": "out of memory"})
    except ModuleNotFoundError as error:
        answer({"error": f"needs the package {error.name}"})
    except Exception as error:  # the contestant's, whatever it is: its row says so, the others go on
        answer({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})


def _listen(orders: queue.Queue[bytes]) -> None:
    for line in sys.stdin.buffer:
        orders.put(line)
    os._exit(1)  # the bench has gone; whatever the main thread computes, nobody waits for it


def _serve(task: dict[str, Any], orders: queue.Queue[bytes], answer: Any) -> None:
    if task["memory_limit"]:
        resource.setrlimit(resource.RLIMIT_DATA, (task["memory_limit"], task["memory_limit"]))
    warnings.simplefilter("ignore")  # libraries' advice is not for the one who reads the report
    from recli.bench.clock import Clock
    from recli.bench.problem import Problem
    from recli.process import peak_bytes

    module = importlib.import_module(task["module"])
    problem = Problem(Path(task["folder"]), Path(task["out"]), task["threads"], task["settings"], task["memory_limit"])
    base = peak_bytes()
    work = getattr(module, task["race"])(problem)
    answer({"ready": True, "base_rss_bytes": base})
    while True:
        order = json.loads(orders.get())
        gc.collect()
        clock = Clock()
        result = work(clock, **order["run"])
        answer({"seconds": clock.seconds, "peak_rss_bytes": clock.peak, **result})


if __name__ == "__main__":
    main()
