"""Which backend is chosen and why, what a GPU lacks, and where compiled code is kept."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.machinery
import importlib.util
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from threadpoolctl import threadpool_info

from recli import kernels
from recli.compiled import cache_folder
from recli.errors import DeviceError, StorageError, UsageError
from recli.kernels.device import gpu_problem


class Driver:
    """libcuda.so.1 with so many devices, or one that fails. version: of CUDA; capability: of all devices."""

    def __init__(
        self,
        devices: int = 0,
        init: int = 0,
        count: int = 0,
        version: int = 13000,
        capability: tuple[int, int] = (9, 0),
    ) -> None:
        self.devices, self.init, self.count, self.version = devices, init, count, version
        self.attributes = dict(zip((75, 76), capability, strict=True))

    def cuInit(self, flags: int) -> int:  # noqa: N802 (CUDA's name)
        assert flags == 0
        return self.init

    def cuDeviceGetCount(self, out: Any) -> int:  # noqa: N802
        out._obj.value = self.devices
        return self.count

    def cuDriverGetVersion(self, out: Any) -> int:  # noqa: N802
        out._obj.value = self.version
        return 0

    def cuDeviceGet(self, out: Any, number: int) -> int:  # noqa: N802
        out._obj.value = 100 + number
        return 0

    def cuDeviceGetName(self, out: Any, size: int, device: Any) -> int:  # noqa: N802
        out.value = f"NVIDIA T{device.value}".encode()
        assert len(out.value) < size
        return 0

    def cuDeviceTotalMem_v2(self, out: Any, device: Any) -> int:  # noqa: N802
        out._obj.value = 85_028_765_696 if device.value == 100 else 15 << 30
        return 0

    def cuDeviceGetAttribute(self, out: Any, which: int, device: Any) -> int:  # noqa: N802
        assert device.value >= 100
        out._obj.value = self.attributes[which]
        return 0


class CudaError(RuntimeError):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class MissingLibraryError(RuntimeError):
    """CuPy's DynamicLibNotFoundError."""


def answers(answer: Any) -> Callable[[], Any]:
    def call() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call


def fake_cupy(
    devices: Any = 2, nvrtc: Any = (12, 9), made: int = 12090, driver: int = 13000, capability: str = "90"
) -> ModuleType:
    """CuPy, as far as recli asks it whether it works. An exception: is raised instead."""
    module: Any = ModuleType("cupy")
    module.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    runtime = SimpleNamespace(
        getDeviceCount=answers(devices),
        runtimeGetVersion=answers(made),
        driverGetVersion=answers(driver),
        CUDARuntimeError=CudaError,
    )
    compiler = SimpleNamespace(getVersion=answers(nvrtc), getSupportedArchs=lambda: [75, 80, 86, 90])
    device = SimpleNamespace(compute_capability=capability)
    module.cuda = SimpleNamespace(runtime=runtime, nvrtc=compiler, Device=lambda number: device)
    return module  # type: ignore[no-any-return]


def of_cupy(name: str) -> bool:
    """Is it CuPy, or does it import CuPy?"""
    return name.split(".")[0] == "cupy" or name.startswith("recli.kernels.gpu")


@pytest.fixture
def modules() -> Iterator[dict[str, ModuleType]]:
    """sys.modules without CuPy and what imports it, which come back as they were."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if of_cupy(name)}
    yield sys.modules
    for name in list(sys.modules):
        if of_cupy(name):
            del sys.modules[name]
    sys.modules.update(kept)


def driver(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> None:
    def load(name: str) -> Driver:
        assert name == "libcuda.so.1"
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_a_device_that_is_asked_for_is_chosen(name: str) -> None:
    assert kernels.choose(name) == (name, "as asked")


OTHERS = (
    "",
    "cuda",
    "CPU",
    "gpu0",
    "gpu:x",
    "gpu:-1",
    "gpu:1.5",
    "gpu:",
    "gpu:\u0663",
    "gpu:1234567890",
    "cpu:",
    "cpu:0",
)


@pytest.mark.parametrize("name", [*OTHERS, "auto:0", "reference:1"])
def test_other_names_are_refused_with_the_list(name: str) -> None:
    with pytest.raises(UsageError, match=r"expected one of auto, cpu, gpu, gpu:N, reference"):
        kernels.choose(name)


@pytest.mark.parametrize("name", ["gpu", "gpu:3"])
def test_a_gpu_that_cannot_be_used_is_an_error_and_auto_says_why(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    driver(monkeypatch, None)
    with pytest.raises(DeviceError, match=rf"--device {name}: no NVIDIA driver: .*; use --device cpu"):
        kernels.choose(name)
    assert kernels.choose("auto") == ("cpu", "no NVIDIA driver: libcuda.so.1 not found")


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ("gpu", ("gpu", "NVIDIA T100, 79 GiB")),
        ("gpu:0", ("gpu", "NVIDIA T100, 79 GiB")),
        ("gpu:00", ("gpu", "NVIDIA T100, 79 GiB")),
        ("gpu:1", ("gpu:1", "NVIDIA T101, 15 GiB")),
        ("auto", ("gpu", "NVIDIA T100, 79 GiB")),
        ("cpu", ("cpu", "as asked")),
    ],
)
def test_a_gpu_that_can_be_used_is_chosen_and_auto_chooses_the_first(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, ModuleType], asked: str, chosen: tuple[str, str]
) -> None:
    driver(monkeypatch, Driver(devices=2))
    modules["cupy"] = fake_cupy()
    assert kernels.choose(asked) == chosen


@pytest.mark.parametrize(
    ("found", "number", "problem"),
    [
        (None, 0, "no NVIDIA driver"),
        (Driver(init=100), 0, "sees no GPU"),
        (Driver(devices=0), 0, "sees no GPU"),
        (Driver(init=34), 0, r"does not start \(cuInit: error 34\)"),
        (Driver(devices=1, count=3), 0, r"does not start \(cuInit: error 3\)"),
        (Driver(devices=2), 2, "there is no GPU 2: the driver sees 2"),
        (Driver(devices=2, capability=(7, 0)), 1, r"NVIDIA T101 is too old: compute capability 7\.0, recli needs 7\.5"),
        (Driver(devices=2, version=11080), 0, r"knows CUDA 11\.8: install one that knows CUDA 12 or newer"),
        (Driver(devices=2, version=12080), 1, r"not installed \(pip install 'recli\[gpu\]'; .* knows CUDA 12\.8\)"),
        (Driver(devices=2, version=13000), 1, r"not installed \(pip install 'recli\[gpu13\]'; .* knows CUDA 13\.0\)"),
        (Driver(devices=2, version=14020, capability=(7, 5)), 1, r"pip install 'recli\[gpu13\]'; .* CUDA 14\.2\)"),
    ],
)
def test_the_first_thing_that_a_gpu_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch,
    modules: dict[str, ModuleType],
    found: Driver | None,
    number: int,
    problem: str,
) -> None:
    driver(monkeypatch, found)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=problem):
        kernels.choose(f"gpu:{number}")
    assert not any(map(of_cupy, modules))


TOO_OLD = CudaError(35, "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")


@pytest.mark.parametrize(
    ("cupy", "problem"),
    [
        (
            fake_cupy(TOO_OLD, made=13020, driver=12080),
            "CuPy is made for CUDA 13.2, so run pip uninstall cupy-cuda13x "
            "(pip install 'recli[gpu]'; the NVIDIA driver knows CUDA 12.8)",
        ),
        (
            fake_cupy(CudaError(802, "cudaErrorSystemNotReady: system not yet initialized")),
            "CUDA does not start: cudaErrorSystemNotReady: system not yet initialized",
        ),
        (fake_cupy(1), "there is no GPU 1: CuPy sees 1"),
        (
            fake_cupy(nvrtc=MissingLibraryError("libnvrtc.so.12\nSearched in: ...")),
            "CUDA's NVRTC library is missing (pip install 'recli[gpu]'; ",
        ),
        (
            fake_cupy(nvrtc=RuntimeError("CuPy failed to load libnvrtc.so.12")),
            "CUDA's NVRTC library is missing (pip install 'recli[gpu]'; ",
        ),
        (
            fake_cupy(nvrtc=(13, 5), driver=12080),
            "CUDA's NVRTC library is of CUDA 13.5, so run pip uninstall nvidia-cuda-nvrtc (pip install 'recli[gpu]'; ",
        ),
        (
            fake_cupy(capability="120"),
            "CUDA's NVRTC library 12.9 is older than the GPU (compute capability 120; pip install 'recli[gpu]'; ",
        ),
        (fake_cupy(capability="89"), ""),  # for which code of 8.6 will do
    ],
)
def test_what_cupy_lacks_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, ModuleType], cupy: ModuleType, problem: str
) -> None:
    driver(monkeypatch, Driver(devices=2, version=12080))
    modules["cupy"] = cupy
    assert gpu_problem(1).startswith(problem)
    assert bool(gpu_problem(1)) == bool(problem)
    assert kernels.choose("auto")[0] == ("gpu" if "no GPU 1" in problem or not problem else "cpu")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("RuntimeError('NumPy 3 is too new\\nfor it')", "RuntimeError: NumPy 3 is too new"),
        ("ImportError('=' * 80 + '\\nadvice') from OSError('no libgcc')", "OSError: no libgcc"),
        ("AttributeError()", "AttributeError: "),
    ],
)
def test_a_cupy_that_does_not_import_is_named_by_its_first_line(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, ModuleType], tmp_path: Path, raised: str, said: str
) -> None:
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(tmp_path)
    driver(monkeypatch, Driver(devices=1))
    assert gpu_problem().startswith(f"CuPy does not import: {said} (pip install 'recli[gpu13]'; ")


@pytest.mark.parametrize("found", [None, Driver(init=100), Driver(devices=0), Driver(devices=1, capability=(6, 1))])
def test_cupy_is_not_imported_where_there_is_no_gpu_for_it(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, ModuleType], tmp_path: Path, found: Driver | None
) -> None:
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    driver(monkeypatch, found)
    assert "imported" not in gpu_problem()
    assert not any(map(of_cupy, modules))


def test_choosing_imports_no_backend() -> None:
    code = (
        "import sys; from recli import kernels; chosen, _ = kernels.choose('auto')\n"
        "heavy = {'numba', 'recli.kernels.gpu.backend', *(['cupy'] if chosen == 'cpu' else [])}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_load_gives_the_backend_of_that_name(name: str) -> None:
    with kernels.load(name, 1) as backend:
        assert backend.name == name


@pytest.mark.parametrize("name", ["auto", "", "cpu:1", "GPU"])
def test_load_never_falls_back_to_another_backend(name: str) -> None:
    with pytest.raises(ValueError, match="no backend"), kernels.load(name, 1):
        pass


@pytest.mark.parametrize(("name", "limit", "made"), [("gpu", None, (0, None)), ("gpu:3", 1 << 30, (3, 1 << 30))])
def test_load_gives_the_gpu_its_number_and_limit(
    modules: dict[str, ModuleType], name: str, limit: int | None, made: tuple[int, int | None]
) -> None:
    backend: Any = ModuleType("recli.kernels.gpu.backend")
    backend.GpuKernels = lambda *arguments: contextlib.nullcontext(arguments)
    modules[backend.__name__] = backend
    with kernels.load(name, 1, limit) as found:
        assert found == made


def test_blas_is_held_to_the_threads_asked_for_and_let_go() -> None:
    def blas() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with kernels.load("cpu", 2):
        before = blas()
        with kernels.load("cpu", 1):
            assert set(blas()) == {1}
        assert blas() == before


class TestCacheFolder:
    """Where compiled code is kept: never beside the package."""

    @pytest.fixture
    def temporary(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """Everything but this folder for temporary files is read-only; the folder that is to be made there."""
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        return tmp_path / f"recli-numba-{os.getuid()}"

    def test_is_the_users_where_that_can_be_made(self, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
        (temporary.parent / "cache").mkdir()
        usual = temporary.parent / "cache" / "not" / "there" / "yet"
        monkeypatch.setenv("XDG_CACHE_HOME", str(usual))
        monkeypatch.setattr(os, "access", lambda path, mode: str(path).endswith("cache"))
        assert cache_folder() == str(usual / "recli")
        assert not temporary.exists()

    def test_is_else_private_and_found_again(self, temporary: Path) -> None:
        assert cache_folder() == str(temporary)
        assert temporary.stat().st_mode & 0o777 == 0o700
        assert cache_folder() == str(temporary)

    def test_needs_no_home(self, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
        """A container's arbitrary user: no HOME, no entry in /etc/passwd."""

        def unknown(uid: int) -> Any:
            raise KeyError(uid)

        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(pwd, "getpwuid", unknown)
        assert cache_folder() == str(temporary)

    def test_needs_no_entry_to_home(self, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
        """Another user's HOME: su without a dash, or a container that was built as root."""
        stat = os.stat

        def refused(path: Any, *rest: Any, **more: Any) -> os.stat_result:
            if str(path).startswith("/home-of-another/"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return stat(path, *rest, **more)

        monkeypatch.setenv("XDG_CACHE_HOME", "/home-of-another/.cache")
        monkeypatch.setattr(os, "stat", refused)
        assert cache_folder() == str(temporary)

    @pytest.mark.parametrize("mode", [0o755, 0o720, 0o701])
    def test_that_others_may_enter_is_refused(self, temporary: Path, mode: int) -> None:
        temporary.mkdir()
        temporary.chmod(mode)
        with pytest.raises(StorageError, match=rf"{temporary.name}: .*; set NUMBA_CACHE_DIR to another"):
            cache_folder()

    def test_of_another_user_is_refused(self, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
        theirs = temporary.with_name("recli-numba-12345")
        theirs.mkdir(mode=0o700)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        with pytest.raises(StorageError, match="a folder of yours alone"):
            cache_folder()

    @pytest.mark.parametrize("what", ["file", "link", "dangling link", "no temporary folder"])
    def test_that_is_no_folder_is_refused(self, monkeypatch: pytest.MonkeyPatch, temporary: Path, what: str) -> None:
        private = temporary.parent / "private"
        match what:
            case "file":
                temporary.write_text("")
            case "link":
                private.mkdir(mode=0o700)
                temporary.symlink_to(private)
            case "dangling link":
                temporary.symlink_to(private)
            case _:
                monkeypatch.setattr(tempfile, "tempdir", str(private))
        with pytest.raises(StorageError, match="set NUMBA_CACHE_DIR to another"):
            cache_folder()

    @pytest.mark.parametrize("asked", [True, False])
    def test_is_what_numba_uses_unless_the_user_says_otherwise(self, tmp_path: Path, asked: bool) -> None:
        code = (
            "import os; os.access = lambda path, mode: False\n"
            "import recli.kernels.cpu, numba; print(numba.config.CACHE_DIR)"
        )
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        environment.pop("NUMBA_CACHE_DIR", None)
        if asked:
            environment["NUMBA_CACHE_DIR"] = str(tmp_path / "mine")
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.strip() == str(tmp_path / ("mine" if asked else f"recli-numba-{os.getuid()}"))
