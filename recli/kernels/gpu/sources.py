"""CUDA C++ of the kernels, as a compiler gets it: no CuPy here, so that it compiles where there is none."""

from __future__ import annotations

from importlib.resources import files

OPTIONS = ("-std=c++17",)  # beside the architecture


def names() -> list[str]:
    """The files of kernels, less .cu."""
    found = (entry.name for entry in files(__package__).iterdir())
    return sorted(name.removesuffix(".cu") for name in found if name.endswith(".cu"))


def source(file: str) -> str:
    """FILE.cu, complete."""
    folder = files(__package__)
    return (folder / "prims.cuh").read_text("utf-8") + (folder / f"{file}.cu").read_text("utf-8")
