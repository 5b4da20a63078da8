"""Is there a GPU to use? Where there is no driver or no device, that is found out without importing CuPy, in well under
a millisecond.
"""

from __future__ import annotations

import ctypes
import importlib.util
from typing import Any

DRIVER = "libcuda.so.1"
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
OLDEST = (7, 5)  # Turing: the oldest that kernels are compiled for
EXTRAS = {13: "gpu13", 12: "gpu"}  # by the CUDA that the driver must know; a newer driver knows older CUDA, too


def gpu_problem(number: int = 0) -> str:
    """Why GPU `number` cannot be used: the first thing that is missing, and what to install. Empty: it can be."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return f"no NVIDIA driver: {DRIVER} not found"
    count, version = ctypes.c_int(), ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))  # makes no context
    if status == NO_DEVICE or (not status and not count.value):
        return "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES empty?)"
    status = status or driver.cuDriverGetVersion(ctypes.byref(version))
    if status:
        return f"the NVIDIA driver does not start (cuInit: error {status})"
    if number >= count.value:
        return f"there is no GPU {number}: the driver sees {count.value}"
    name, capability, _ = _properties(driver, number)
    if capability < OLDEST:
        found, needed = (".".join(map(str, pair)) for pair in (capability, OLDEST))
        return f"{name} is too old: compute capability {found}, recli needs {needed}"
    extra = next((extra for cuda, extra in EXTRAS.items() if version.value >= 1000 * cuda), None)
    knows = f"the NVIDIA driver knows CUDA {version_text(version.value)}"
    if extra is None:
        return f"{knows}: install one that knows CUDA {min(EXTRAS)} or newer"
    return _cupy_problem(number, f"pip install 'recli[{extra}]'; {knows}")


def gpu_text(number: int = 0) -> str:
    """What GPU `number`, which can be used, is: NVIDIA H100 80GB HBM3, 79 GiB."""
    name, _, memory = _properties(ctypes.CDLL(DRIVER), number)
    return f"{name}, {memory / 2**30:.0f} GiB"


def version_text(version: int) -> str:
    """12.8 of CUDA's 12080."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _properties(driver: Any, number: int) -> tuple[str, tuple[int, int], int]:
    """Name, compute capability and bytes of memory; the driver has been started."""
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor = (ctypes.c_int() for _ in CAPABILITY)
    for value, attribute in zip((major, minor), CAPABILITY, strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return name.value.decode("utf-8", "replace"), (major.value, minor.value), memory.value


def _cupy_problem(number: int, install: str) -> str:
    """What keeps CuPy from using the GPU. install: what brings what fits the driver."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed ({install})"
    try:
        from recli.kernels.gpu import cuda
    except Exception as error:  # a broken installation fails in many ways
        cause = error.__cause__ or error  # CuPy puts a page of advice around it
        said = next(iter(str(cause).strip().splitlines()), "")
        return f"CuPy does not import: {type(cause).__name__}: {said} ({install})"
    return cuda.problem(number, install)
