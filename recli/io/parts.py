"""A folder of Parquet parts, which may come from several runs: the footer of each holds the key of its run. A manifest,
written last, says that all are there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from recli.errors import DataError, OutputError, StorageError, UsageError
from recli.io.sources import STDIN, is_pipe, source, table_errors

ENTRY = "recli"  # of the footer's key-value metadata


def hash_inputs(paths: Mapping[str, str]) -> dict[str, list[str]]:
    """Flag -> sha256 of its files. Raises UsageError for what cannot be read again, or is not here."""
    hashes = {}
    for flag, path in paths.items():
        if path == STDIN or is_pipe(path) or "://" in path:
            raise UsageError(f"{flag} {path}: a later run compares parts with the files they were made of: give a file")
        with source([path]) as found:
            hashes[flag] = found.sha256()
    return hashes


def footer(key: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a part."""
    return {ENTRY: json.dumps(key, sort_keys=True)}


class PartFolder:
    """names: of all files of the set. Raises OutputError where the path is no folder, or one with Parquet files that
    are not of the set: whoever reads the folder would read them too.
    """

    def __init__(self, path: str, names: Sequence[str]) -> None:
        self.path, self._names = path, names
        self.manifest = os.path.join(path, "manifest.json")
        if not os.path.exists(path):
            return
        if not os.path.isdir(path):
            raise OutputError("expected a folder for the parts, found a file", file=path)
        others = sorted(name for name in os.listdir(path) if name.endswith(".parquet") and name not in names)
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise OutputError(
                f"it holds {others[0]}{more}, which would be read along with these {len(names)} parts: remove it, or "
                "give another folder",
                file=path,
            )

    def make(self) -> None:
        try:
            os.mkdir(self.path)
        except FileExistsError:
            pass
        except OSError as error:
            reason = "its parent does not exist: make it first" if error.errno == errno.ENOENT else error.strerror
            raise OutputError(f"the folder cannot be made: {reason}", file=self.path) from error

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def differing(self, name: str, key: Mapping[str, Any]) -> list[str] | None:
        """Which entries of a part's key are not these; none where it is of the same run. None without a part."""
        if not os.path.exists(self.file(name)):
            return None
        try:
            with table_errors(name):
                found = json.loads(pl.read_parquet_metadata(self.file(name))[ENTRY])
            return sorted(entry for entry in {*key, *found} if (entry, found.get(entry)) != (entry, key.get(entry)))
        except (DataError, KeyError, ValueError, TypeError, AttributeError):
            return ["its footer"]

    def drop_manifest(self) -> None:
        """Before a part changes: the set is not whole until all have."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.manifest)

    def describe(self) -> list[dict[str, Any]]:
        """Name, rows and sha256 of each part. Raises StorageError or DataError where one cannot be read."""
        files = []
        for name in self._names:
            path = self.file(name)
            try:
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise StorageError(f"reading failed: {error.strerror}", file=path) from error
            with table_errors(path):
                rows = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
            files.append({"name": name, "rows": rows, "sha256": digest})
        return files
