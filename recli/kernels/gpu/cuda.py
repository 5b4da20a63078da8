"""One GPU as the kernels need it: memory, copies, launches. The only file that imports CuPy.

Kernels are compiled by NVRTC when a file's first one is launched; the result is kept on disk. Python's numbers reach a
kernel as `long long` and `float`, True and False as 1 and 0, None as a null pointer; arrays as pointers. Everything
runs in the order of the calls; a copy to the host waits for what is before it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

import cupy
import numpy as np
from numpy.typing import DTypeLike, NDArray

from recli.errors import DeviceError
from recli.kernels.device import version_text
from recli.kernels.gpu.memory import DeviceMemoryError, Evictable, Shares, halving
from recli.kernels.gpu.sources import OPTIONS, source

SPARE_BYTES = 64 << 20  # of the device's memory, left to the driver and to compiled kernels
TOO_NEW = 35  # cudaErrorInsufficientDriver

Array = Any  # on the device: cupy.ndarray


class Cuda:
    """GPU `number`, of which `limit` bytes at most are used."""

    def __init__(self, number: int, limit: int | None) -> None:
        self._pool = cupy.get_default_memory_pool()
        try:
            device = cupy.cuda.Device(number)
            device.use()
            self._pool.free_all_blocks()
            free, _ = cupy.cuda.runtime.memGetInfo()
            self._capability = device.compute_capability
            self.processors = int(device.attributes["MultiProcessorCount"])
            self.shared_limit = int(device.attributes["MaxSharedMemoryPerBlockOptin"])
        except cupy.cuda.runtime.CUDARuntimeError as error:  # somebody else may have it for himself alone
            raise DeviceError(f"GPU {number} does not start: {error}; use --device cpu") from error
        self.limit = max(1, min(int(free) - SPARE_BYTES, limit or int(free)))
        self._pool.set_limit(size=self.limit)
        self.shares = Shares()
        self._modules: dict[str, Any] = {}
        self._kernels: dict[str, Any] = {}
        self._evictable: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def left(self) -> int:
        """Bytes that can still be had."""
        used: int = self._pool.used_bytes()
        return max(0, self.limit - used)

    @property
    def available(self) -> int:
        """The same, with what others can do without."""
        return self.left + sum(int(each.evictable) for each in self._evictable)

    def keep(self, evictable: Evictable) -> None:
        """Where memory runs out, it will be asked for what it can do without."""
        self._evictable.add(evictable)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
        """Raises DeviceMemoryError (75) where there is no memory for it, whatever is let go."""
        while True:
            try:
                return cupy.empty(shape, dtype)
            except cupy.cuda.memory.OutOfMemoryError:
                self._pool.free_all_blocks()
                largest = max(self._evictable, key=lambda each: each.evictable, default=None)
                if largest and largest.evictable:
                    largest.evict()
                else:
                    needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
                    used = self._pool.used_bytes()
                    raise DeviceMemoryError(
                        f"the GPU's memory: {_size(used + needed)} are needed at once, {_size(self.limit)} may be "
                        "used: use a smaller --rank, a larger --memory-limit, or --device cpu"
                    ) from None

    def scratch(self, most: int, least: int, *shape: int, dtype: DTypeLike = np.float32) -> Array:
        """An array [n, *shape] to work with block by block: n is `most`, or half of it again and again until it fits,
        but `least`. Raises DeviceMemoryError where that does not.
        """
        return halving(lambda n: self.empty((n, *shape), dtype), most, least)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
        array = self.empty(shape, dtype)
        self.clear(array)
        return array

    def clear(self, array: Array) -> None:
        if array.nbytes:
            array.data.memset_async(0, array.nbytes)

    def upload(self, host: NDArray[Any]) -> Array:
        """A copy on the device, C-order."""
        array = self.empty(host.shape, host.dtype)
        if array.nbytes:
            array.set(np.ascontiguousarray(host))
        return array

    def download(self, array: Array) -> NDArray[Any]:
        host: NDArray[Any] = array.get()
        return host

    def copy(self, source: Array, to: Array) -> None:
        """Between arrays of the same bytes on the device."""
        assert source.nbytes == to.nbytes
        if source.nbytes:
            to.data.copy_from_device_async(source.data, source.nbytes)

    def launch(self, name: str, grid: int | tuple[int, int], threads: int, *arguments: Any, shared: int = 0) -> None:
        """Runs kernel `name`, FILE.KERNEL, on a grid of blocks (none: nothing) with `shared` bytes each."""
        blocks = grid if isinstance(grid, tuple) else (grid, 1)
        if not all(blocks):
            return
        kernel = self._kernels.get(name) or self._load(name)
        if shared > kernel.max_dynamic_shared_size_bytes:
            kernel.max_dynamic_shared_size_bytes = shared
        kernel(blocks, (threads,), tuple(map(_argument, arguments)), shared_mem=shared)

    def synchronize(self) -> None:
        self.work.synchronize()

    @property
    def work(self) -> Any:
        """The stream of kernels."""
        return cupy.cuda.get_current_stream()

    def stream(self) -> Any:
        """One of its own, for copies: they wait for nothing but events."""
        return cupy.cuda.Stream(non_blocking=True)

    def event(self) -> Any:
        return cupy.cuda.Event(disable_timing=True)

    def pinned(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Memory of the host that the device reads and writes by itself, while both go on."""
        size = int(np.prod(shape))
        memory = cupy.cuda.alloc_pinned_memory(max(1, size * np.dtype(dtype).itemsize))
        return np.frombuffer(memory, dtype, size).reshape(shape)

    def close(self) -> None:
        """Gives back what nobody uses any more."""
        self.synchronize()
        self._pool.free_all_blocks()

    def _load(self, name: str) -> Any:
        file, _, kernel = name.partition(".")
        if file not in self._modules:
            self._modules[file] = cupy.RawModule(path=str(self._compiled(file)))
        self._kernels[name] = self._modules[file].get_function(kernel)
        return self._kernels[name]

    def _compiled(self, file: str) -> Path:
        """FILE.cu as machine code for this GPU, kept where numba's is.

        Not by CuPy's own compilation, which makes zeros of the smallest numbers (-ftz=true): scores must have them.
        """
        from recli.compiled import cache_folder  # numba, for which detection would have to wait

        architecture = f"sm_{_architecture(self._capability)}"
        key = "\0".join([source(file), *OPTIONS, architecture, str(cupy.cuda.nvrtc.getVersion())])
        folder = Path(os.environ.get("NUMBA_CACHE_DIR") or cache_folder()) / "cuda"
        path = folder / f"{file}-{architecture}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.cubin"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as made:
                made.write(_cubin(file, (*OPTIONS, f"-arch={architecture}")))
            os.replace(made.name, path)
        return path


def _cubin(file: str, options: tuple[str, ...]) -> bytes:
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram(source(file), f"{file}.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        code: bytes = nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        log = " ".join(nvrtc.getProgramLog(program).split())
        raise RuntimeError(f"{file}.cu does not compile ({' '.join(options)}): {error}: {log:.400}") from error
    finally:
        nvrtc.destroyProgram(program)
    return code + b"\0"  # which CuPy leaves off


def problem(number: int, install: str) -> str:
    """What keeps CuPy from using GPU `number`, of a driver that is there; empty: nothing does. Makes no context.
    install: what to advise where a package is missing or does not fit.
    """
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
        if number >= count:
            return f"there is no GPU {number}: CuPy sees {count}"
    except runtime.CUDARuntimeError as error:
        if error.status != TOO_NEW:
            return f"CUDA does not start: {error}"
        made = runtime.runtimeGetVersion()
        return f"CuPy is made for CUDA {version_text(made)}, so run pip uninstall cupy-cuda{made // 1000}x ({install})"
    try:
        major, minor = cupy.cuda.nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError):
        return f"CUDA's NVRTC library is missing ({install})"
    if major > runtime.driverGetVersion() // 1000:
        return f"CUDA's NVRTC library is of CUDA {major}.{minor}, so run pip uninstall nvidia-cuda-nvrtc ({install})"
    capability = cupy.cuda.Device(number).compute_capability
    if not _architecture(capability):
        return (
            f"CUDA's NVRTC library {major}.{minor} is older than the GPU (compute capability {capability}; {install})"
        )
    return ""


def _architecture(capability: str) -> int:
    """The closest that NVRTC knows of those that a GPU runs: of its generation, and no later than itself; 0: none."""
    own = int(capability)
    return max((each for each in cupy.cuda.nvrtc.getSupportedArchs() if own // 10 * 10 <= each <= own), default=0)


def _argument(value: Any) -> Any:
    match value:
        case None:
            return np.uint64(0)
        case bool() | int():
            return np.int64(value)
        case float():
            return np.float32(value)
    return value


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
