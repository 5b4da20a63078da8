"""Which backend is chosen and why, what a GPU lacks, and where compiled code is kept."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_info

from recli import kernels
from recli.compiled import cache_folder
from recli.errors import DeviceError, StorageError, UsageError
from recli.kernels.device import gpu_problem


class Driver:
    """libcuda.so.1 with so many devices, or one that fails."""

    def __init__(self, devices: int = 0, init: int = 0, count: int = 0) -> None:
        self.devices, self.init, self.count = devices, init, count

    def cuInit(self, flags: int) -> int:  # noqa: N802 (CUDA's name)
        assert flags == 0
        return self.init

    def cuDeviceGetCount(self, out: Any) -> int:  # noqa: N802
        out._obj.value = self.devices
        return self.count


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


@pytest.mark.parametrize(
    "name", ["", "cuda", "CPU", "gpu0", "gpu:x", "gpu:-1", "gpu:1.5", "gpu:", "cpu:", "cpu:0", "auto:0", "reference:1"]
)
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
    ("found", "number", "problem"),
    [
        (None, 0, "no NVIDIA driver"),
        (Driver(init=100), 0, "sees no GPU"),
        (Driver(devices=0), 0, "sees no GPU"),
        (Driver(init=34), 0, r"does not start \(cuInit: error 34\)"),
        (Driver(devices=1, count=3), 0, r"does not start \(cuInit: error 3\)"),
        (Driver(devices=2), 2, "there is no GPU 2: the driver sees 2"),
        (Driver(devices=2), 1, r"CuPy is not installed \(pip install 'recli\[gpu\]'\)"),
    ],
)
def test_the_first_thing_that_a_gpu_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, found: Driver | None, number: int, problem: str
) -> None:
    driver(monkeypatch, found)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=problem):
        kernels.choose(f"gpu:{number}")


def test_cupy_is_found_without_being_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    driver(monkeypatch, Driver(devices=1))
    assert gpu_problem() == "this version of recli has no GPU kernels yet"
    assert "cupy" not in sys.modules


def test_choosing_imports_no_backend() -> None:
    code = "import sys; from recli import kernels; kernels.choose('auto'); print({'cupy', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_load_gives_the_backend_of_that_name(name: str) -> None:
    with kernels.load(name, 1) as backend:
        assert backend.name == name


@pytest.mark.parametrize("name", ["gpu", "gpu:1", "auto", ""])
def test_load_never_falls_back_to_another_backend(name: str) -> None:
    with pytest.raises(ValueError, match="no backend"), kernels.load(name, 1):
        pass


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
