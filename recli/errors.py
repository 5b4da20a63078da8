"""What can go wrong, and the exit code of each. Anything else that escapes is a bug (exit code 1).

RecliError
+-- UsageError         2   flags or settings that make no sense
+-- GateError          3   the result is not as --expect says; the old output stays
+-- DataError         65   the input is not what it should be
+-- MissingInputError 66   no such input, or it may not be read
+-- DeviceError       69   the device asked for cannot be used
+-- DivergedError     70   the numbers overflowed
+-- OutputError       73   the output cannot be created
+-- StorageError      74   reading or writing failed half-way (full disk)
+-- BusyError         75   try again: locked, or too little memory

Signals: 130 Ctrl-C, 143 SIGTERM, 141 whoever read our output has gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class RecliError(Exception):
    """An error to show in one line: FILE: what, expected, found, what to do."""

    exit_code = 1

    def __init__(self, what: str, *, file: object = None) -> None:
        line = " ".join(str(what).split())
        super().__init__(line if file is None else f"{file}: {line}")


class UsageError(RecliError):
    exit_code = 2


class GateError(RecliError):
    exit_code = 3


class DataError(RecliError):
    exit_code = 65


class MissingInputError(RecliError):
    exit_code = 66


class DeviceError(RecliError):
    exit_code = 69


class DivergedError(RecliError):
    exit_code = 70


class OutputError(RecliError):
    exit_code = 73


class StorageError(RecliError):
    exit_code = 74


class BusyError(RecliError):
    exit_code = 75


@contextlib.contextmanager
def about(file: str) -> Iterator[None]:
    """Steps and arrays know no files: this names the one that their DataErrors are about."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error), file=file) from error
