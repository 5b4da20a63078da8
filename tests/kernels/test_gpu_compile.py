"""The kernels compile for every GPU that is supported, without one, and cost what they should."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recli.kernels.gpu import sources

from .nvrtc import ARCHITECTURES, compiled

SECONDS = 20  # a file takes 2: a guard against a loop that is unrolled into minutes
# of a thread's frame, where ptxas lays a register or four aside so that one more block fits, as it does for sm_100
FRAME = {100: 16}
REGISTERS = 1 << 16  # of a multiprocessor; a warp gets them by 256

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="NVIDIA has no compiler for it")


@pytest.mark.parametrize("file", sources.names())
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles(file: str, architecture: int) -> None:
    found = compiled(file, architecture)
    assert found.kernels
    assert len(found.kernels) == found.log.count("Compiling entry function"), found.log
    assert "warning" not in found.log, found.log
    assert found.seconds < SECONDS
    assert not [kernel for kernel in found.kernels if not kernel.threads], "no launch bounds"
    frame = FRAME.get(architecture, 0)
    assert not [kernel for kernel in found.kernels if kernel.stack > frame or kernel.spills > 2 * frame], (
        "something is in local memory"
    )
    assert not [kernel for kernel in found.kernels if -(-kernel.registers // 8) * 8 * kernel.threads > REGISTERS], (
        "a block of them does not fit"
    )


def test_kernels_are_launched() -> None:
    """All of them, and no others."""
    kernels = {f"{file}.{kernel.name}" for file in sources.names() for kernel in compiled(file, 90).kernels}
    launched = {pattern: {name for name in kernels if re.fullmatch(pattern, name)} for pattern in _launched()}
    assert not [pattern for pattern, names in launched.items() if not names], "no such kernel"
    assert not kernels.difference(*launched.values()), "never launched"


def _launched() -> Iterator[str]:
    """Patterns of FILE.KERNEL, from the package's strings: what an f-string has in braces may be anything."""
    is_name = re.compile(rf"({'|'.join(sources.names())})\\\.(\w|\\w\*)+")
    for path in Path(sources.__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        parts = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            of = node.values if isinstance(node, ast.JoinedStr) else [] if node in parts else [node]
            pattern = "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"\w*" for part in of)
            if is_name.fullmatch(pattern):
                yield pattern
