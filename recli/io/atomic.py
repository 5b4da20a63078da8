"""Outputs that are there whole or not at all: checked before the work, written beside the target, renamed over it at
the end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from recli.errors import BusyError, OutputError, StorageError

STDOUT = "-"


class Output:
    """A file to be written once, or stdout. Made by `output`, which has checked and locked it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def refuse(self, inputs: Iterable[str]) -> None:
        """Raises OutputError if the output is one of these files: what a folder or a glob stood for, say."""
        if any(
            os.path.exists(file) and os.path.exists(self.path) and os.path.samefile(file, self.path) for file in inputs
        ):
            raise OutputError("the output is also an input: give another -o", file=self.path)

    def write(self, fill: Callable[[BinaryIO], None]) -> None:
        """fill(file) writes a seekable binary file, which then takes the place of the old one in one step.

        On any failure or signal the old file stays, whole, and the new one is removed.
        """
        if self.path == STDOUT:
            self._copy(fill, sys.stdout.buffer)
            return
        if _is_stream(self.path):
            with _storage_errors(self.path), open(self.path, "wb") as stream:
                self._copy(fill, stream)
            return
        target = os.path.realpath(self.path)  # through a symbolic link, not over it
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
        with _storage_errors(f"a temporary file in {tempfile.gettempdir()}"), tempfile.TemporaryFile() as spool:
            fill(spool)
            spool.seek(0)
            with _storage_errors("stdout" if self.path == STDOUT else self.path):
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
        if sys.stdout is None:
            raise OutputError("stdout is closed: give -o FILE")
        if binary and sys.stdout.isatty():
            raise OutputError("stdout is a terminal, and this output is binary: give -o FILE, or a pipe")
        yield Output(path)
        return
    target = Path(os.path.realpath(path))
    if target.is_dir() or path.endswith("/"):
        raise OutputError("expected a file to write, found a folder", file=path)
    Output(path).refuse(inputs)
    if _is_stream(path):
        yield Output(path)
        return
    if no_clobber and target.exists():
        raise OutputError("exists already (--no-clobber)", file=path)
    if not target.parent.is_dir():
        raise OutputError(f"the folder {os.path.dirname(path) or '.'} does not exist: make it first", file=path)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError("the folder may not be written to", file=path)
    with _lock(target, path):
        for leftover in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}.tmp"):
            with contextlib.suppress(OSError):
                leftover.unlink()  # a killed writer's: we hold the lock, so nobody is writing it
        yield Output(path)


def _is_stream(path: str) -> bool:
    """A pipe or a device: nothing there to keep or to lock. Also by a name such as /dev/stdout, which has no real
    path.
    """
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


@contextlib.contextmanager
def json_output(path: str | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes one JSON object to path, checked and locked like any output; does nothing where path is
    None.
    """
    if path is None:
        yield lambda content: None
        return
    with output(path, binary=False) as out:
        yield lambda content: out.write(lambda file: write_json(file, content))


def write_json(file: BinaryIO, content: dict[str, Any]) -> None:
    file.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


@contextlib.contextmanager
def _lock(target: Path, shown: str) -> Iterator[None]:
    """One writer a path, by flock on a file beside it, removed at the end; a killed writer's lock ends with it."""
    beside = target.parent / f".{target.name}.lock"
    opened: list[int] = []
    try:
        held = _hold(beside, shown, opened)
        with _storage_errors(shown):
            os.ftruncate(held, 0)
            os.write(held, f"{os.getpid()}\n".encode())
        yield
    finally:
        for descriptor in opened:
            _remove_if_ours(beside, descriptor)
        # a signal may have come between its creation and our knowing
        with contextlib.suppress(OSError):
            _remove_if_ours(beside, os.open(beside, os.O_RDWR | os.O_CLOEXEC))


def _hold(beside: Path, shown: str, opened: list[int]) -> int:
    """A descriptor that has the lock. Those that are to be closed at the end join `opened`."""
    while True:
        try:
            held = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise OutputError(f"cannot create a file in its folder: {error.strerror}", file=shown) from error
        opened.append(held)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(held, 32).decode("ascii", "replace").strip()
            if owner == str(os.getpid()):
                raise OutputError("two outputs of this run have the same name", file=shown) from None
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise OutputError(f"cannot lock {beside.name}: {error.strerror}", file=shown) from error
            raise BusyError(
                f"another recli run (process {owner or 'unknown'}) is writing it: wait for it, or give another -o",
                file=shown,
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.stat(beside).st_ino == os.fstat(held).st_ino:
                return held
        # else its holder removed it between our open and our flock: try the new one


def _remove_if_ours(beside: Path, descriptor: int) -> None:
    """Closes it, and removes the file if it is the one that we have, or can have, the lock of."""
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(beside).st_ino == os.fstat(descriptor).st_ino:
                os.unlink(beside)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(f"cannot be written: {error.strerror}", file=path) from error
        intact = "; the old file is intact" if os.path.isfile(path) else ""
        raise StorageError(f"writing failed: {error.strerror or error}{intact}", file=path) from error


def _sync_folder(folder: str) -> None:
    """The rename itself must survive a power cut. Some file systems cannot; their file is written all the same."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
