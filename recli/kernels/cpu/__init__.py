"""The CPU backend. Importing it imports numba."""

from recli.kernels.cpu.backend import CpuKernels

__all__ = ["CpuKernels"]
