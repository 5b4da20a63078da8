"""Which files an argument means, and what format they have."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recli.config import ReadConfig
from recli.errors import DataError, MissingInputError, RecliError, UsageError
from recli.io.interactions import read_interactions
from recli.io.sources import Source, column_types, scan, source

CSV = b"user,item,rating\n1,20,4\n2,10,5\n"
NDJSON = b'{"user": 1, "item": 20, "rating": 4}\n{"user": 2, "item": 10, "rating": 5}\n'


def parquet() -> bytes:
    file = io.BytesIO()
    pl.read_csv(CSV).write_parquet(file)
    return file.getvalue()


def zst(data: bytes) -> bytes:
    return bytes(subprocess.run(["zstd", "-q"], input=data, capture_output=True, check=True).stdout)


def rows(*inputs: str, format: str | None = None, header: bool = True) -> list[tuple[str, ...]]:
    with source(inputs, format) as found:
        return [tuple(map(str, row)) for row in scan(found, header=header).collect().rows()]


ROWS = [("1", "20", "4"), ("2", "10", "5")]
BY_NAME_OR_BYTES: dict[str, bytes] = {
    "a.csv": CSV,
    "A.CSV": CSV,
    "no_suffix": CSV,
    "a.tsv": CSV.replace(b",", b"\t"),
    "semicolons.csv": CSV.replace(b",", b";"),
    "pipes.txt": CSV.replace(b",", b"|"),
    "windows.csv": CSV.replace(b"\n", b"\r\n"),
    "bom.csv": b"\xef\xbb\xbf" + CSV,
    "quoted.csv": b'"user","item","rating"\n"1","20","4"\n2,10,5',
    "a.csv.gz": gzip.compress(CSV),
    "gz_no_suffix": gzip.compress(CSV),
    "a.parquet": parquet(),
    "a.pq": parquet(),
    "parquet_no_suffix": parquet(),
    "a.ndjson": NDJSON,
    "a.jsonl.gz": gzip.compress(NDJSON),
    "ndjson_no_suffix": b"\n " + NDJSON,
    "ndjson_gz_no_suffix": gzip.compress(NDJSON),
    "[1]*?.csv": CSV,
    "[1]*?.ndjson": NDJSON,
    "[1]*?.parquet": parquet(),
    "dir name/späce.csv": CSV,
}


@pytest.mark.parametrize("name", BY_NAME_OR_BYTES)
def test_a_format_goes_by_suffix_or_first_bytes(name: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(BY_NAME_OR_BYTES[name])
    assert rows(name) == ROWS


# a frame each that zstd 1.5 made of CSV and NDJSON: Python 3.11 cannot make any
ZST = {
    "csv": "28b52ffd0420f10000757365722c6974656d2c726174696e670a312c32302c340a322c31302c350aCRC",
}


@pytest.mark.parametrize("name", ["a.csv", "piped"])
@pytest.mark.parametrize("data", [CSV, gzip.compress(CSV), NDJSON, parquet()])
def test_a_pipe_is_read_whole_and_once(name: str, data: bytes) -> None:
    if name == "a.csv" and CSV not in (data, gzip.decompress(data) if data[:2] == b"\x1f\x8b" else b""):
        name = "other"
    os.mkfifo(name)
    writer = threading.Thread(target=lambda: Path(name).write_bytes(data))
    writer.start()
    with source([name]) as found:
        writer.join()
        assert found.name == name
        assert [tuple(map(str, row)) for row in scan(found).collect().rows()] == ROWS
        assert found.sha256() == Source("x", (found.files[0],), "csv").sha256()
        spool = found.files[0]
    assert not os.path.exists(spool)
