"""What recli uses of CuPy, on the CPU: kernels run through shim.h, and what is asynchronous is done as late as allowed.

Device memory is memory that ends at a page which may not be touched and starts as NaN. NumPy takes none of these arrays
(as it takes none of CuPy's), kernels take no argument of another type than theirs, and copies and kernels wait in their
stream until something waits for them: what changes or reads an array of the host too early gets it wrong. Settings of
the test: SCHEDULE (the shim's order, and a seed), memory (bytes of the device).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import subprocess
import tempfile
from bisect import bisect
from collections.abc import Callable
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

HERE = Path(__file__).parents[1]
FLAGS = (
    *("-x", "c++", "-std=c++17", "-O2", "-fPIC", "-shared", "-fno-strict-aliasing", "-ffp-contract=fast"),
    *("-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", "-Wl,-Bsymbolic"),  # a kernel may have a name of the C library's
)
SCHEDULE = [int(part) for part in os.environ.get("RECLI_SHIM_SCHEDULE", "0 1").split()]
memory = SimpleNamespace(total=int(os.environ.get("RECLI_SHIM_MEMORY", 4 << 30)), used=0, limit=0)


class ShimError(RuntimeError):
    """What a GPU would do wrong, crash on or hang at."""


def build(source: str, flags: tuple[str, ...] = ()) -> tuple[ctypes.CDLL, dict[str, int]]:
    """Kernels as a library, with shim_launch_NAME and shim_signature_NAME for each, and their launch bounds; kept
    between runs.
    """
    header = HERE / "shim.h"
    key = hashlib.sha256("\0".join([source, header.read_text(), *FLAGS, *flags]).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"recli-shim-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as made:
            text, done = Path(made) / "kernels.cu", Path(made) / "kernels.so"
            text.write_text(source)
            compiler = ["g++", *FLAGS, *flags, "-include", str(header)]
            plain = _run(["g++", "-x", "c++", "-E", "-P", "-DRECLI_SHIM", *flags, str(text)])
            kernels = re.findall(r'extern "C" __global__ void __launch_bounds__\(([^,)]*)[^)]*\)\s*(\w+)\s*\(', plain)
            text.write_text(source + "".join(f"\nSHIM_EXPORT({name})" for _, name in kernels) + "\n")
            _run([*compiler, str(text), "-o", str(done)])
            bounds = {name: prod(int(factor) for factor in bound.split("*")) for bound, name in kernels}
            library.with_suffix(".json").write_text(json.dumps(bounds))
            done.replace(library)
    return ctypes.CDLL(str(library)), json.loads(library.with_suffix(".json").read_text())


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ShimError(done.stderr)
    return done.stdout


_allocator, _ = build("")
_allocator.shim_allocate.restype = ctypes.c_void_p
_allocator.shim_allocate.argtypes = [ctypes.c_size_t]
_allocator.shim_free.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class _OutOfMemoryError(MemoryError):
    pass


class _Memory:
    """Bytes on the device, given back when nothing refers to them."""

    def __init__(self, size: int) -> None:
        self.size = 0
        taken = -(-size // 512) * 512
        if memory.used + taken > min(memory.total, memory.limit or memory.total):
            raise _OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        self.size = max(1, size)
        self.taken = taken
        memory.used += taken
        self.at = _allocator.shim_allocate(self.size)
        whole = -(-self.size // 16) * 16  # no numbers, and as indices places that nobody has
        every = np.frombuffer((ctypes.c_char * whole).from_address(self.at), np.uint8)
        every.view(np.uint32)[:] = 0x7FFFFFFF
        self._tail = every[self.size :]
        self._untouched = self._tail.tobytes()

    def check(self, kernel: str) -> None:
        """Of what an address that cannot be guarded hides: the rest of the last 16 bytes."""
        if self._tail.tobytes() != self._untouched:
            raise ShimError(f"{kernel}: memory is written beyond its {self.size} bytes")

    def __del__(self) -> None:
        if self.size:
            memory.used -= self.taken
            _allocator.shim_free(self.at, self.size)


class Stream:
    """Work that waits until something waits for it."""

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        assert null or non_blocking, "a blocking stream would wait for the null stream: not modelled"
        self.waiting: list[Callable[[], None]] = []

    def synchronize(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        self.waiting.append(event.latest.wait)

    def __enter__(self) -> Stream:
        _current.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _current.pop()


class _Record:
    """A place in a stream."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream, self.done = stream, stream is None

    def finish(self) -> None:
        self.done = True

    def wait(self) -> None:
        while not self.done and self.stream and self.stream.waiting:
            self.stream.waiting.pop(0)()


class Event:
    """Who waits for one waits for where it was last recorded before that."""

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.latest = _Record(None)

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or _current[-1]
        self.latest = _Record(stream)
        stream.waiting.append(self.latest.finish)

    def synchronize(self) -> None:
        self.latest.wait()


_null = Stream(null=True)
_current = [_null]


class _Pointer:
    """cupy.cuda.MemoryPointer."""

    def __init__(self, array: ndarray) -> None:
        self._array = array
        self.ptr = array._host.ctypes.data

    def memset_async(self, value: int, size: int, stream: Stream | None = None) -> None:
        array = self._array
        (stream or _current[-1]).waiting.append(lambda: ctypes.memset(array._host.ctypes.data, value, size) and None)

    def copy_from_device_async(self, source: _Pointer, size: int, stream: Stream | None = None) -> None:
        to, of = self._array, source._array
        assert size <= min(to.nbytes, of.nbytes)
        (stream or _current[-1]).waiting.append(
            lambda: ctypes.memmove(to._host.ctypes.data, of._host.ctypes.data, size) and None
        )


class ndarray:  # noqa: N801 (CuPy's name)
    """cupy.ndarray, as far as recli uses it."""

    def __init__(self, memory_: _Memory | None, host: NDArray[Any]) -> None:
        self._memory, self._host = memory_, host

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    nbytes = property(lambda self: self._host.nbytes)
    size = property(lambda self: self._host.size)
    data = property(_Pointer)

    def __len__(self) -> int:
        return len(self._host)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __getitem__(self, part: slice) -> ndarray:
        assert isinstance(part, slice)
        assert part.step in (None, 1)
        return ndarray(self._memory, self._host[part])

    def reshape(self, *shape: int) -> ndarray:
        return ndarray(self._memory, self._host.reshape(*shape))

    def view(self, dtype: DTypeLike) -> ndarray:
        return ndarray(self._memory, self._host.view(dtype))

    def set(self, host: NDArray[Any], stream: Stream | None = None) -> None:
        assert type(host) is np.ndarray or isinstance(host, np.memmap)
        assert host.flags.c_contiguous
        assert (host.shape, host.dtype) == (self.shape, self.dtype), (host.shape, host.dtype, self.shape, self.dtype)
        # pageable memory is read at once, pinned memory when it is the copy's turn
        source = host if _is_pinned(host.ctypes.data) else host.copy()
        (stream or _current[-1]).waiting.append(lambda: np.copyto(self._host, source))

    def get(self, stream: Stream | None = None, out: NDArray[Any] | None = None, blocking: bool = True) -> NDArray[Any]:
        stream = stream or _current[-1]
        result = np.empty(self.shape, self.dtype) if out is None else out
        assert result.flags.c_contiguous
        assert (result.shape, result.dtype) == (self.shape, self.dtype)
        stream.waiting.append(lambda: np.copyto(result, self._host))
        if blocking:
            stream.synchronize()
        return result


def empty(shape: int | tuple[int, ...], dtype: DTypeLike = float) -> ndarray:
    count = int(np.prod(shape))
    size = count * np.dtype(dtype).itemsize
    if not count:
        return ndarray(None, np.empty(shape, dtype))
    block = _Memory(size)
    buffer = (ctypes.c_char * size).from_address(block.at)
    return ndarray(block, np.frombuffer(buffer, dtype).reshape(shape))


_pinned: list[int] = []  # where each buffer starts and ends, ascending


def _is_pinned(address: int) -> bool:
    return bisect(_pinned, address) % 2 == 1


def alloc_pinned_memory(size: int) -> Any:
    """What np.frombuffer takes. It is never given back, so that no address is taken for pinned that is not."""
    buffer = ctypes.create_string_buffer(size)
    start = ctypes.addressof(buffer)
    at = bisect(_pinned, start)
    _pinned[at:at] = [start, start + size]
    _kept.append(buffer)
    return buffer


_kept: list[Any] = []


class _Program:
    def __init__(self, source: str) -> None:
        self.source = source
        self.options: tuple[str, ...] = ()


class _Nvrtc:
    """A compiler whose machine code is the source, with its options before it; built when it is loaded."""

    class NVRTCError(RuntimeError):
        pass

    def getVersion(self) -> tuple[int, int]:  # noqa: N802 (CUDA's names)
        return 12, 9

    def createProgram(self, source: str, name: str, headers: Any, include_names: Any) -> _Program:  # noqa: N802
        return _Program(source)

    def compileProgram(self, program: _Program, options: tuple[str, ...]) -> None:  # noqa: N802
        assert all(option.startswith(("-std=", "-D", "-arch=sm_90")) for option in options)
        program.options = options

    def getCUBIN(self, program: _Program) -> bytes:  # noqa: N802
        defines = " ".join(option for option in program.options if option.startswith("-D"))
        return f"{defines}\n{program.source}".encode()

    def getProgramLog(self, program: _Program) -> str:  # noqa: N802
        return ""

    def getSupportedArchs(self) -> list[int]:  # noqa: N802
        return [75, 80, 90]

    def destroyProgram(self, program: _Program) -> None:  # noqa: N802
        pass


class RawModule:
    def __init__(self, path: str) -> None:
        defines, _, source = Path(path).read_bytes().removesuffix(b"\0").decode().partition("\n")
        self._library, self._bounds = build(source, tuple(defines.split()))

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(self._library, name, self._bounds[name])


class RawKernel:
    def __init__(self, library: ctypes.CDLL, name: str, bound: int) -> None:
        self._bound = bound
        self._launch = getattr(library, f"shim_launch_{name}")
        self._launch.restype = ctypes.c_char_p
        signature = getattr(library, f"shim_signature_{name}")
        signature.restype = ctypes.c_char_p
        self._types = signature().decode().rstrip(",").split(",")
        self._name, self.max_dynamic_shared_size_bytes = name, 48 << 10

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None:
        if len(arguments) != len(self._types):
            raise ShimError(f"{self._name}: {len(arguments)} arguments, the kernel takes {len(self._types)}")
        if block[0] > self._bound:
            raise ShimError(f"{self._name}: {block[0]} threads, more than its launch bounds, {self._bound}")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise ShimError(f"{self._name}: more shared memory than max_dynamic_shared_size_bytes")
        values = [self._value(*pair) for pair in enumerate(zip(arguments, self._types, strict=True))]

        def run() -> None:
            pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
            sizes = [(ctypes.c_uint * 3)(*(*size, 1, 1)[:3]) for size in (grid, block)]
            order, seed = SCHEDULE
            error = self._launch(*sizes, ctypes.c_size_t(shared_mem), order, ctypes.c_uint64(seed), pointers)
            if error:
                raise ShimError(f"{self._name}: {error.decode()}")
            for argument in arguments:  # which keeps their memory, too
                if isinstance(argument, ndarray) and argument._memory:
                    argument._memory.check(self._name)

        _current[-1].waiting.append(run)

    def _value(self, at: int, of: tuple[Any, str]) -> Any:
        value, wanted = of
        if isinstance(value, ndarray):
            found = f"*{value.dtype.kind}{value.dtype.itemsize}"
            packed: Any = ctypes.c_void_p(value._host.ctypes.data if value.size else 0)
        elif isinstance(value, np.generic):
            found = f"{value.dtype.kind}{value.dtype.itemsize}"
            packed = (ctypes.c_char * value.dtype.itemsize).from_buffer_copy(value.tobytes())
            if wanted[0] == "*" and value.dtype == np.uint64 and value == 0:
                found = wanted
        else:
            raise ShimError(f"{self._name}, argument {at}: {type(value).__name__} is no NumPy scalar")
        if found.replace("*b1", "*u1") != wanted:
            raise ShimError(f"{self._name}, argument {at}: the kernel takes {wanted}, found {found}")
        return packed


class _Device:
    def __init__(self, number: int | None = None) -> None:
        self.id = number or 0
        self.attributes = {"MultiProcessorCount": 3, "MaxSharedMemoryPerBlockOptin": 227 << 10}
        self.compute_capability = "90"

    def use(self) -> None:
        assert self.id == 0


class _Pool:
    def free_all_blocks(self) -> None:
        _null.synchronize()

    def set_limit(self, size: int) -> None:
        memory.limit = size

    def used_bytes(self) -> int:
        return int(memory.used)


def get_default_memory_pool() -> _Pool:
    return _Pool()


class _CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"cudaError {status}")


cuda = SimpleNamespace(
    Device=_Device,
    Stream=Stream,
    Event=Event,
    alloc_pinned_memory=alloc_pinned_memory,
    get_current_stream=lambda: _current[-1],
    memory=SimpleNamespace(OutOfMemoryError=_OutOfMemoryError),
    runtime=SimpleNamespace(
        memGetInfo=lambda: (memory.total - memory.used, memory.total),
        getDeviceCount=lambda: 1,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 12090,
        CUDARuntimeError=_CUDARuntimeError,
    ),
    nvrtc=_Nvrtc(),
)
