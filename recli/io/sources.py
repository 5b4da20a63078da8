"""Where tables come from: files, folders, globs, cloud addresses and stdin, as one polars LazyFrame."""

from __future__ import annotations

import contextlib
import glob
import gzip
import hashlib
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recli.errors import DataError, MissingInputError, StorageError, UsageError
from recli.io.background import in_background

STDIN = "-"
FORMATS = ("parquet", "csv", "ndjson", "npz", "npy")
SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".dat": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".npz": "npz",
    ".npy": "npy",
    ".safetensors": "safetensors",  # no table: embeddings.py reads it, and others can say what they found
}
COMPRESSIONS = (".gz", ".zst")
GZIP, ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # the first bytes of such files
LONGEST_TENSORS_HEADER = 100_000_000  # bytes, by the definition of safetensors, whose files begin with the number
DELIMITERS = "\t,;|"
INFER_ROWS = 10_000
INTERACTIONS, SPEC = "interactions.npz", "spec.json"  # in the folder that featurize writes


@dataclass(frozen=True)
class Source:
    """Files of one format. name is what errors call it; remote files are read by polars, straight from there."""

    name: str
    files: tuple[str, ...]
    format: str
    remote: bool = False

    def sha256(self) -> list[str]:
        """A hash of each local file, in order; none for remote ones."""
        if self.remote:
            return []
        hashes = []
        for path in self.files:
            with open(path, "rb") as file:
                hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
        return hashes


@contextlib.contextmanager
def source(inputs: Sequence[str], format: str | None = None) -> Iterator[Source]:
    """The input arguments of a command as one source; what comes from stdin or a pipe lives in a temporary file until
    the block ends.

    Raises MissingInputError (66) or DataError (65: empty, mixed formats).
    """
    if not any(path == STDIN or is_pipe(path) for path in inputs):
        yield _from_paths(inputs, format)
        return
    if len(inputs) > 1:
        raise UsageError("- (stdin) or a pipe cannot be combined with other inputs")
    path = inputs[0]
    name = "stdin" if path == STDIN else path
    if path == STDIN and sys.stdin is None:
        raise MissingInputError("it is closed", file=name)
    if path == STDIN and sys.stdin.isatty():
        raise UsageError("stdin is a terminal: pipe data in, or give a file")
    with tempfile.NamedTemporaryFile(prefix="recli-stdin-") as spool:
        try:
            with contextlib.nullcontext(sys.stdin.buffer) if path == STDIN else open(path, "rb") as stream:
                shutil.copyfileobj(stream, spool, 1 << 20)
            spool.flush()
        except OSError as error:
            raise StorageError(f"copying it to {tempfile.gettempdir()} failed: {error.strerror}", file=name) from error
        yield Source(name, (spool.name,), format or _by_suffix(path) or _sniff(spool.name, name))


def is_pipe(path: str) -> bool:
    """To be read once only: a named pipe, or the shell's <(command)."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _from_paths(inputs: Sequence[str], format: str | None) -> Source:
    name = inputs[0] if len(inputs) == 1 else f"{inputs[0]} (and {len(inputs) - 1} more)"
    if any("://" in path for path in inputs):
        if not all("://" in path for path in inputs):
            raise UsageError("local files and remote addresses cannot be combined")
        return Source(name, tuple(inputs), format or _one_format(inputs, name), remote=True)
    files = [file for path in inputs for file in _expand(path)]
    for file in files:
        if not os.access(file, os.R_OK):
            raise MissingInputError("may not be read (permissions)", file=file)
        if Path(file).is_file() and os.path.getsize(file) == 0:
            raise DataError("expected a table, found an empty file", file=file)
    return Source(name, tuple(files), format or _one_format(files, name))


def _expand(path: str) -> list[str]:
    """A file as itself, a folder as its parts, a glob as its matches; sorted, so that a job reads in the same order
    every night. A folder of featurize is its training interactions: its tables are the test's, too.
    """
    if os.path.isdir(path):
        if all(os.path.isfile(os.path.join(path, name)) for name in (INTERACTIONS, SPEC)):
            return [os.path.join(path, INTERACTIONS)]
        parts = [entry.path for entry in os.scandir(path) if entry.is_file() and _by_suffix(entry.name) in FORMATS[:3]]
        if not parts:
            raise MissingInputError("a folder without Parquet, CSV or NDJSON files", file=path)
        return sorted(parts)
    if os.path.exists(path):
        return [path]
    matches = sorted(match for match in glob.glob(path, recursive=True) if os.path.isfile(match))
    if not matches:
        raise MissingInputError("no such file", file=path)
    return matches


def _by_suffix(path: str) -> str | None:
    name = os.path.basename(path).lower()
    if name.startswith((".", "_")):
        return None
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return SUFFIXES.get(os.path.splitext(name)[1])


def _one_format(files: Sequence[str], name: str) -> str:
    found = {_by_suffix(file) or ("parquet" if "://" in file else _sniff(file, name)) for file in files}
    if len(found) > 1:
        raise DataError(f"expected files of one format, found {', '.join(sorted(found))}", file=name)
    return found.pop()


def _sniff(path: str, name: str) -> str:
    """A format from the first bytes."""
    with table_errors(name):
        with open(path, "rb") as file:
            head = file.read(4096)
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_TENSORS_HEADER:
            return "safetensors"  # four of these bytes are zero: no text, and no gzip, where "{" stands for a level
        if head[:2] == GZIP:
            with gzip.open(path) as unpacked:
                head = unpacked.read(4096)
        elif head[:4] == ZSTANDARD:
            head = _first_line(path).encode()
    if not head:
        raise DataError("expected a table, found nothing", file=name)
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:6] == b"\x93NUMPY":
        return "npy"
    if head[:4] == b"PK\x03\x04":
        return "npz"
    return "ndjson" if head.lstrip()[:1] == b"{" else "csv"


def scan(
    found: Source,
    text_columns: Sequence[str] = (),
    *,
    header: bool = True,
    types: Mapping[str, pl.DataType] | None = None,
    whole: bool = False,
) -> pl.LazyFrame:
    """The source as a LazyFrame. Columns of a text format that are named in text_columns keep their text; the types of
    others are inferred. Without a header, CSV columns are column_1, column_2, ... types: what an earlier scan inferred:
    NDJSON is read whole for them, once. whole: types of CSV columns, too, are inferred from all rows, for small files:
    a column that has text among its numbers is text.

    Raises MissingInputError, DataError.
    """
    with table_errors(found.name):
        files = list(found.files)
        if found.format == "parquet":
            return pl.scan_parquet(files, glob=found.remote)
        if found.format == "ndjson":
            # scan_ndjson takes no glob=False
            files = files if found.remote else [glob.escape(path) for path in files]
            as_text: dict[str, Any] = dict.fromkeys(text_columns, pl.String)
            if types is not None:
                return pl.scan_ndjson(files, schema={**types, **as_text})
            # all rows: polars ignores a key that the rows it looked at do not have, and a rating must not get lost
            return pl.scan_ndjson(files, schema_overrides=as_text, infer_schema_length=None)
        if found.format == "csv":
            separator = _delimiter(found)
            names = {} if header else _numbered_columns(found, separator)
            theirs = {ours: name for name, ours in names.items()}
            lazy = pl.scan_csv(
                files,
                has_header=header,
                separator=separator,
                schema_overrides={theirs.get(column, column): pl.String for column in text_columns},
                infer_schema_length=None if whole else INFER_ROWS,
                glob=found.remote,
            )
            return lazy.rename(names) if names else lazy
    raise DataError(f"expected a table ({', '.join(FORMATS[:3])}), found {found.format}", file=found.name)


def _numbered_columns(found: Source, separator: str) -> dict[str, str]:
    """polars' names of columns without a heading -> ours: polars 1 counts from 1, polars 2 from 0."""
    lazy = pl.scan_csv(found.files[0], has_header=False, separator=separator, infer_schema=False, glob=found.remote)
    return {name: f"column_{at}" for at, name in enumerate(column_types(lazy, found.name), 1)}


def batches(lazy: pl.LazyFrame, size: int) -> Iterator[pl.DataFrame]:
    """The rows in order, `size` at a time but for the last ones. polars works ahead while they are used."""
    found = in_background(lambda: lazy.collect_batches(chunk_size=size, lazy=True))
    while (rows := in_background(lambda: next(found, None))) is not None:
        yield rows


def column_types(frame: pl.LazyFrame, name: str) -> dict[str, pl.DataType]:
    with table_errors(name):
        return dict(in_background(frame.collect_schema))


def first_line(found: Source) -> str:
    """The first line of a CSV file, compressed or not."""
    with table_errors(found.name):
        return _first_line(found.files[0], found.remote)


def _first_line(path: str, remote: bool = False) -> str:
    lines = pl.scan_csv(
        path, has_header=False, separator="\x01", quote_char=None, n_rows=1, infer_schema=False, glob=remote
    )
    line = lines.collect().item(0, 0)
    return "" if line is None else str(line)


def _delimiter(found: Source) -> str:
    line = first_line(found)
    return max(DELIMITERS, key=line.count) if any(mark in line for mark in DELIMITERS) else ","


@contextlib.contextmanager
def table_errors(name: str) -> Iterator[None]:
    """polars' errors about a file, in one line, with ours' exit codes."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingInputError("no such file", file=name) from error
    except pl.exceptions.NoDataError as error:
        raise DataError("expected a table, found an empty file", file=name) from error
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,  # what polars does with some damaged files
        OSError,
        EOFError,
        UnicodeDecodeError,
        zlib.error,
    ) as error:
        reason = str(error).strip().split("\n")[0]
        if isinstance(error, OSError) and "://" in name:
            raise MissingInputError(f"cannot be read: {reason}", file=name) from error
        raise DataError(f"cannot be read: {reason}", file=name) from error
