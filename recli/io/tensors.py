"""safetensors: tables out of the files that PyTorch, TensorFlow and JAX save there, memory-mapped.

A file is the length of its header (uint64), the header (JSON: name -> dtype, shape, data_offsets), and the numbers,
little-endian and in C order. The library checks all that the header claims against the file before anything else here
looks at it; the numbers it would copy, and bfloat16 it does not give to NumPy at all.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.errors import DataError, StorageError, UsageError

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
SHOWN = 8  # names in an error


def tensor_specs(path: str, name: str) -> dict[str, Any]:
    """Tensor -> what the header says of it; name is what errors call the file.

    Raises UsageError without the library, DataError for what is no whole safetensors file.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise UsageError(
            f"reading safetensors needs the library: pip install 'recli[safetensors]' ({error})", file=name
        ) from error
    try:
        with safe_open(path, framework="np"), open(path, "rb") as file:
            header = json.loads(file.read(_header_length(file.read(8))))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise DataError(
            f"expected a safetensors file, found something else or a damaged one ({error})", file=name
        ) from error
    except OSError as error:
        raise StorageError(f"reading failed: {error.strerror or error}", file=name) from error
    return {tensor: spec for tensor, spec in header.items() if tensor != "__metadata__"}


def read_tensor(path: str, tensor: str, spec: dict[str, Any]) -> NDArray[Any]:
    """A tensor by what `tensor_specs` says of it: float16 to float64 mapped, read-only; bfloat16 as float32. Raises
    DataError for other dtypes, and where the file has changed meanwhile.
    """
    dtype, shape, (start, end) = spec["dtype"], spec["shape"], spec["data_offsets"]
    if dtype not in DTYPES:
        raise DataError(f"array {tensor}: expected a table of F16, BF16, F32 or F64, found {dtype}{shape}")
    data = np.asarray(np.memmap(path, np.uint8, "r"))
    first = 8 + _header_length(data[:8].tobytes())
    there = data[first + start : first + end]
    claimed = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if len(there) != claimed:
        raise DataError(f"array {tensor}: its header asks for shape {shape}, {claimed} bytes; {len(there)} are there")
    # a header may have any length, and the numbers then any address
    values = np.require(there.view(DTYPES[dtype]), requirements="A").reshape(shape)
    if dtype != "BF16":
        return values
    wide = values.astype(np.uint32)  # bfloat16 is the upper half of a float32
    return np.left_shift(wide, 16, out=wide).view(np.float32)


def _header_length(first: bytes) -> int:
    return int.from_bytes(first, "little")
