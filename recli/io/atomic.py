"""Outputs that are there whole or not at all: checked before the work, written beside the target, renamed over it at
the end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from recli.errors import BusyError, OutputError, StorageError

STDOUT = "-"


class Output:
    """A file to be written once, or stdout. Made by `output`, which has checked and locked it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self, fill: Callable[[BinaryIO], None]) -> None:
        """fill(file) writes a seekable binary file, which then takes the place of the old one in one step.

        On any failure or signal the old file stays, whole, and the new one is removed.
        """
        if self.path == STDOUT:
            self._copy(fill, sys.stdout.buffer)
            return
        target = os.path.realpath(self.path)  # through a symbolic link, not over it
        if os.path.exists(target) and not os.path.isfile(target):  # a pipe or a device: there is nothing to keep
            with _storage_errors(self.path), open(target, "wb") as device:
                self._copy(fill, device)
            return
        temporary = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.{secrets.token_hex(4)}.tmp")
        try:
            with _storage_errors(self.path):
                # 0666 and the umask, as any other program's file; mkstemp would leave 0600
                with open(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "w+b") as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
                _sync_folder(os.path.dirname(target))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def _copy(self, fill: Callable[[BinaryIO], None], stream: BinaryIO) -> None:
        with _storage_errors(self.path), tempfile.TemporaryFile() as spool:
            fill(spool)
            spool.seek(0)
            shutil.copyfileobj(spool, stream, 1 << 20)
            stream.flush()


@contextlib.contextmanager
def output(
    path: str, *, inputs: tuple[str, ...] = (), no_clobber: bool = False, binary: bool = True
) -> Iterator[Output]:
    """Holds path for one writer (or `-`, stdout) until the block ends. All that can be refused is refused here, before
    the long work.

    inputs: files read by the same command, which must not be the output. Raises OutputError (73) or BusyError (75).
    """
    if path == STDOUT:
        if binary and sys.stdout.isatty():
            raise OutputError("stdout is a terminal, and this output is binary: give -o FILE, or a pipe")
        yield Output(path)
        return
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OutputError("expected a file to write, found a folder", file=path)
    if any(os.path.exists(source) and os.path.exists(path) and os.path.samefile(source, path) for source in inputs):
        raise OutputError("the output is also an input: give another -o", file=path)
    if no_clobber and target.exists():
        raise OutputError("exists already (--no-clobber)", file=path)
    if not target.parent.is_dir():
        raise OutputError(f"the folder {os.path.dirname(path) or '.'} does not exist: make it first", file=path)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError("the folder may not be written to", file=path)
    if target.exists() and not target.is_file():
        yield Output(path)
        return
    with _lock(target, path):
        yield Output(path)


@contextlib.contextmanager
def json_output(path: str | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes one JSON object to path, checked and locked like any output; does nothing where path is
    None.
    """
    if path is None:
        yield lambda content: None
        return
    with output(path, binary=False) as out:
        yield lambda content: out.write(lambda file: _write_json(file, content))


def _write_json(file: BinaryIO, content: dict[str, Any]) -> None:
    file.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


@contextlib.contextmanager
def _lock(target: Path, shown: str) -> Iterator[None]:
    """One writer a path, by flock on a file beside it, removed at the end; a killed writer's lock ends with it."""
    beside = target.parent / f".{target.name}.lock"
    while True:
        try:
            held = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise OutputError(f"cannot create a file in its folder: {error.strerror}", file=shown) from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(held, 32).decode("ascii", "replace").strip()
            os.close(held)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise OutputError(f"cannot lock {beside.name}: {error.strerror}", file=shown) from error
            raise BusyError(
                f"another recli run (process {owner or 'unknown'}) is writing it: wait for it, or give another -o",
                file=shown,
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.stat(beside).st_ino == os.fstat(held).st_ino:
                break
        os.close(held)  # its holder removed it between our open and our flock: try the new one
    try:
        os.ftruncate(held, 0)
        os.write(held, f"{os.getpid()}\n".encode())
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        os.close(held)


@contextlib.contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(f"cannot be written: {error.strerror}", file=path) from error
        raise StorageError(f"writing failed: {error.strerror or error}; the old file is intact", file=path) from error


def _sync_folder(folder: str) -> None:
    """The rename itself must survive a power cut. Some file systems cannot; their file is written all the same."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
