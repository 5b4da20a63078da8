"""Is there a GPU to use? Found out without importing CuPy, in well under a millisecond where there is no driver."""

from __future__ import annotations

import ctypes
import importlib.util

DRIVER = "libcuda.so.1"
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


def gpu_problem(number: int = 0) -> str:
    """Why GPU `number` cannot be used: the first thing that is missing, and what to install.

    This version has no GPU kernels, so there is always a reason.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return f"no NVIDIA driver: {DRIVER} not found"
    count = ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))  # makes no context
    if status == NO_DEVICE or (not status and not count.value):
        return "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES empty?)"
    if status:
        return f"the NVIDIA driver does not start (cuInit: error {status})"
    if number >= count.value:
        return f"there is no GPU {number}: the driver sees {count.value}"
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed (pip install 'recli[gpu]')"
    return "this version of recli has no GPU kernels yet"
