"""Compute backends: the contract is spec.py; `load` chooses one, once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from recli.errors import DeviceError, UsageError
from recli.kernels.device import gpu_problem, gpu_text
from recli.kernels.spec import Kernels

DEVICES = "auto, cpu, gpu, gpu:N, reference"
MOST_DIGITS = 5  # of a GPU's number


def choose(device: str) -> tuple[str, str]:
    """The backend that --device stands for, by a name for `load`, and why. auto is the GPU where there is all that it
    takes, whatever the size of the work. Raises DeviceError (69) where a GPU is asked for and cannot be used.
    """
    kind, colon, number = device.partition(":")
    if kind not in ("auto", "cpu", "gpu", "reference") or (
        colon and (kind != "gpu" or not (number.isascii() and number.isdecimal() and len(number) <= MOST_DIGITS))
    ):
        raise UsageError(f"--device {device}: expected one of {DEVICES}")
    if kind in ("cpu", "reference"):
        return kind, "as asked"
    chosen = int(number or 0)
    problem = gpu_problem(chosen)
    if not problem:
        return f"gpu:{chosen}" if chosen else "gpu", gpu_text(chosen)
    if kind == "auto":
        return "cpu", problem
    raise DeviceError(f"--device {device}: {problem}; use --device cpu")


@contextlib.contextmanager
def load(device: str, threads: int, memory_limit: int | None = None) -> Iterator[Kernels]:
    """The backend for a name that `choose` returned, with BLAS held to the same number of threads meanwhile.

    memory_limit: bytes of the GPU's memory that may be used; other backends are held to it by what is asked of them.
    """
    from threadpoolctl import threadpool_limits

    kind, _, number = device.partition(":")
    if device == "reference":
        from recli.kernels.reference import ReferenceKernels

        yield ReferenceKernels()
    elif kind == "gpu":
        from recli.kernels.gpu.backend import GpuKernels

        with threadpool_limits(threads), GpuKernels(int(number or 0), memory_limit) as gpu:
            yield gpu
    elif device == "cpu":
        from recli.kernels.cpu import CpuKernels

        with threadpool_limits(threads), CpuKernels(threads) as cpu:
            yield cpu
    else:
        raise ValueError(f"no backend {device!r}: expected a name that choose returned")
