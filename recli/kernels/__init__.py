"""Compute backends: the contract is spec.py; `load` chooses one, once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from recli.errors import DeviceError, UsageError
from recli.kernels.device import gpu_problem
from recli.kernels.spec import Kernels

DEVICES = "auto, cpu, gpu, gpu:N, reference"


def choose(device: str) -> tuple[str, str]:
    """The backend that --device stands for, and why. Raises DeviceError (69) where a GPU is asked for and cannot be
    used.
    """
    kind, colon, number = device.partition(":")
    if kind not in ("auto", "cpu", "gpu", "reference") or (colon and (kind != "gpu" or not number.isdecimal())):
        raise UsageError(f"--device {device}: expected one of {DEVICES}")
    if kind in ("cpu", "reference"):
        return kind, "as asked"
    problem = gpu_problem(int(number or 0))
    if kind == "auto":
        return "cpu", problem
    raise DeviceError(f"--device {device}: {problem}; use --device cpu")


@contextlib.contextmanager
def load(device: str, threads: int) -> Iterator[Kernels]:
    """The backend for a name that `choose` returned, with BLAS held to the same number of threads meanwhile."""
    from threadpoolctl import threadpool_limits

    if device == "reference":
        from recli.kernels.reference import ReferenceKernels

        yield ReferenceKernels()
        return
    if device != "cpu":
        raise ValueError(f"no backend {device!r}: expected a name that choose returned")
    from recli.kernels.cpu import CpuKernels

    with threadpool_limits(threads), CpuKernels(threads) as kernels:
        yield kernels
