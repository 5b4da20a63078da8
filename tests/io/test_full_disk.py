"""A full disk, for every kind of output: the old file stays, and the error says what happened."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pytest

from recli.artifacts import Interactions
from recli.errors import StorageError
from recli.ids import Csr, Ids
from recli.io.atomic import output
from recli.io.npz import write_npz
from recli.io.scores import FORMATS, write_scores

Fill = Callable[[BinaryIO], None]


def write(path: str | Path, fill: Fill) -> None:
    with output(str(path)) as out:
        out.write(fill)


def large_bytes(file: BinaryIO) -> None:
    file.write(bytes(1 << 20))


def large_npz(file: BinaryIO) -> None:
    n = 50_000
    matrix = Csr(np.array([0, n], np.int64), np.arange(n, dtype=np.int32), np.ones(n, np.float32))
    write_npz(Interactions(matrix=matrix, user_ids=Ids(np.arange(1)), item_ids=Ids(np.arange(n))), file)


def large_table(format: str) -> Fill:
    frame = pl.DataFrame({"user": np.random.default_rng(0).integers(0, 1 << 60, 50_000)})
    return lambda file: write_scores(iter([frame] * 5), frame.schema, format, file)


LARGE: dict[str, Fill] = {
    "bytes": large_bytes,
    "npz": large_npz,
    **{name: large_table(name) for name in FORMATS},
}


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no file system to fill: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("what", LARGE)
def test_a_full_disk_leaves_the_old_file_and_says_so(tiny: Path, what: str) -> None:
    target = tiny / "out"
    target.write_bytes(b"old")
    with pytest.raises(StorageError, match=rf"^{target}: writing failed: No space left on device; the old file is int"):
        write(target, LARGE[what])
    assert target.read_bytes() == b"old"
    assert os.listdir(tiny) == ["out"]


def test_a_disk_that_is_full_already_is_a_storage_error_before_the_work(tiny: Path) -> None:
    with open(tiny / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(StorageError, match=r"out: writing failed: No space left on device$"), output(str(tiny / "out")):
        pytest.fail("the work would have begun")
    assert os.listdir(tiny) == ["filler"]


@pytest.mark.parametrize("what", LARGE)
def test_a_full_device_is_a_storage_error(what: str) -> None:
    with pytest.raises(StorageError, match=r"^/dev/full: writing failed: No space left on device$"):
        write("/dev/full", LARGE[what])
