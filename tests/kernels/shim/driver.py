"""A CUDA driver library that answers what detection asks, and no more: with the shim, whole commands find a GPU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SHIM = Path(__file__).parent
SOURCE = """
#include <stddef.h>
#include <string.h>
extern "C" {
int cuInit(unsigned) { return 0; }
int cuDeviceGetCount(int* count) { *count = DEVICES; return 0; }
int cuDriverGetVersion(int* version) { *version = VERSION; return 0; }
int cuDeviceGet(int* device, int number) { *device = number; return number < DEVICES ? 0 : 101; }
int cuDeviceGetName(char* name, int size, int) { strncpy(name, NAME, size); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = MEMORY; return 0; }
int cuDeviceGetAttribute(int* value, int which, int) {
    if (which != 75 && which != 76) return 1;
    *value = which == 75 ? CAPABILITY / 10 : CAPABILITY % 10;
    return 0;
}
}
"""


def driver_folder(
    folder: Path,
    *,
    devices: int = 1,
    version: int = 13000,
    capability: int = 90,
    name: str = "Shim",
    memory: int = 4 << 30,
) -> Path:
    """A folder for LD_LIBRARY_PATH with libcuda.so.1. version: 12080 for CUDA 12.8; capability: 90 for 9.0."""
    made = folder / "driver"
    made.mkdir()
    values = {"DEVICES": devices, "VERSION": version, "CAPABILITY": capability, "MEMORY": f"{memory}ull"}
    flags = [f"-D{key}={value}" for key, value in values.items()] + [f'-DNAME="{name}"']
    build = ["g++", "-shared", "-fPIC", *flags, "-x", "c++", "-", "-o", str(made / "libcuda.so.1")]
    subprocess.run(build, input=SOURCE, text=True, check=True)
    return made


def shim_environment(folder: Path) -> dict[str, str]:
    """The environment of a process that is to find that driver, and the shim as CuPy."""
    path = os.pathsep.join(filter(None, [str(SHIM), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": path}
