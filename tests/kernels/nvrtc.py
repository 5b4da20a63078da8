"""NVIDIA's compiler as a library, through ctypes on its wheel alone: no CuPy, no driver, no GPU.

    python -m tests.kernels.nvrtc [ARCHITECTURE...] [--wheel FOLDER]

prints what each kernel takes; FOLDER: where another wheel is unpacked.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from recli.kernels.gpu import sources

OPTIONS = (*sources.OPTIONS, "--ptxas-options=-v")
ARCHITECTURES = (75, 80, 86, 89, 90, 100)
KERNEL = re.compile(  # one as ptxas tells of it
    r"Compiling entry function '(?P<name>\w+)' for '\w+'\n"
    r".*Function properties for (?P=name)\n"
    r"\D*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r".*Used (?P<registers>\d+) registers"
)


class Kernel(NamedTuple):
    name: str
    threads: int  # at most, of a block: its launch bounds; 0 where it has none
    registers: int
    stack: int  # bytes of a thread's frame
    spills: int  # bytes


class Compiled(NamedTuple):
    kernels: list[Kernel]
    log: str
    seconds: float


@cache
def compiled(file: str, architecture: int, wheel: Path | None = None) -> Compiled:
    """FILE.cu for sm_ARCHITECTURE; RuntimeError with what the compiler says where it does not compile."""
    library, program = _library(wheel), ctypes.c_void_p()
    options = [option.encode() for option in (*OPTIONS, f"-arch=sm_{architecture}")]
    create = (ctypes.byref(program), sources.source(file).encode(), f"{file}.cu".encode(), 0, None, None)
    assert not library.nvrtcCreateProgram(*create)
    start = time.perf_counter()
    failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    seconds = time.perf_counter() - start
    log, ptx = _text(library, program, "ProgramLog"), _text(library, program, "PTX")
    library.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise RuntimeError(log)
    bounds = dict(re.findall(r"\.entry (\w+)\([^)]*\)\s*\.maxntid (\d+)", ptx))
    return Compiled(
        [
            Kernel(
                found["name"],
                int(bounds.get(found["name"], 0)),
                int(found["registers"]),
                int(found["stack"]),
                int(found["stores"]) + int(found["loads"]),
            )
            for found in KERNEL.finditer(log)
        ],
        log,
        seconds,
    )


@cache
def _library(wheel: Path | None) -> Any:
    """The newest in site-packages, or in `wheel`."""
    if wheel is None:
        spec = find_spec("nvidia")
        folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    else:
        folders = [wheel / "nvidia"]
    libraries = [path for folder in folders for path in folder.glob("*/lib/libnvrtc.so.1[0-9]")]
    if not libraries:
        raise FileNotFoundError("libnvrtc: pip install nvidia-cuda-nvrtc, which recli[test] has")
    newest = max(libraries, key=lambda path: path.name)
    for builtins in newest.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins))  # which the compiler looks for by name, in folders that a wheel's is none of
    return ctypes.CDLL(str(newest))


def _text(library: Any, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(max(1, size.value))
    getattr(library, f"nvrtcGet{what}")(program, text)
    return text.value.decode()


def main() -> None:
    parser = argparse.ArgumentParser(description="What each kernel takes.")
    parser.add_argument("architectures", nargs="*", type=int, default=ARCHITECTURES)
    parser.add_argument("--wheel", type=Path)
    arguments = parser.parse_args()
    for architecture in arguments.architectures:
        for file in sources.names():
            result = compiled(file, architecture, arguments.wheel)
            print(f"sm_{architecture} {file}.cu: {result.seconds:.2f} s{', warnings' * ('warning' in result.log)}")
            for kernel in sorted(result.kernels):
                print("    {:20} {:5} threads {:4} registers {:4} stack {:4} spills".format(*kernel))


if __name__ == "__main__":
    main()
