"""Which files an argument means, and what format they have."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import polars as pl
import pytest

from recli.errors import DataError, MissingInputError, UsageError
from recli.io.sources import column_types, scan, source, table_errors

CSV = b"user,item,rating\n1,20,4\n2,10,5\n"
NDJSON = b'{"user": 1, "item": 20, "rating": 4}\n{"user": 2, "item": 10, "rating": 5}\n'
# the same in frames of zstd 1.5, which Python 3.11 cannot make
CSV_ZST = "28b52ffd0468f90000757365722c6974656d2c726174696e670a312c32302c340a322c31302c350a167a3b8b"
NDJSON_ZST = (
    "28b52ffd0468ad0100a4027b2275736572223a20312c20226974656d223a2032302c2022726174696e67223a20347d0a3231357d0a0300e0"
    "08d8b7a8504f203c6ab6"
)
ROWS = [("1", "20", "4"), ("2", "10", "5")]


def parquet() -> bytes:
    file = io.BytesIO()
    pl.read_csv(CSV).write_parquet(file)
    return file.getvalue()


def rows(*inputs: str, format: str | None = None, header: bool = True) -> list[tuple[str, ...]]:
    with source(inputs, format) as found, table_errors(found.name):
        return [tuple(map(str, row)) for row in scan(found, header=header).collect().rows()]


GOOD: dict[str, bytes] = {
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
    "a.csv.zst": bytes.fromhex(CSV_ZST),
    "zst_no_suffix": bytes.fromhex(CSV_ZST),
    "a.parquet": parquet(),
    "a.pq": parquet(),
    "parquet_no_suffix": parquet(),
    "a.ndjson": NDJSON,
    "a.jsonl.gz": gzip.compress(NDJSON),
    "ndjson_no_suffix": b"\n " + NDJSON,
    "ndjson_gz_no_suffix": gzip.compress(NDJSON),
    "ndjson_zst_no_suffix": bytes.fromhex(NDJSON_ZST),
    "[1]*?.csv": CSV,
    "[1]*?.ndjson": NDJSON,
    "[1]*?.parquet": parquet(),
    "a folder/späce.csv": CSV,
}


@pytest.mark.parametrize("name", GOOD)
def test_a_format_goes_by_suffix_or_first_bytes(name: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(GOOD[name])
    assert rows(name) == ROWS


@pytest.mark.parametrize("data", [CSV, gzip.compress(CSV), NDJSON, parquet()], ids=["csv", "gz", "ndjson", "parquet"])
@pytest.mark.parametrize("header", [True, False])
def test_a_pipe_is_read_once_and_whole(data: bytes, header: bool) -> None:
    """As the shell's <(command): what has been looked at to find out the format is not lost."""
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(data))
    writer.start()
    with source(["pipe"]) as found:
        writer.join()
        assert found.name == "pipe"
        (spool,) = found.files
        assert Path(spool).read_bytes() == data
    assert not os.path.exists(spool)


def test_a_pipe_with_a_suffix_needs_no_guess() -> None:
    os.mkfifo("a.csv")
    writer = threading.Thread(target=lambda: Path("a.csv").write_bytes(b'{"user"\n"x"\n'))
    writer.start()
    with source(["a.csv"]) as found:
        assert found.format == "csv"
    writer.join()


@pytest.mark.parametrize(
    ("data", "expected"),
    [(NDJSON, "ndjson"), (gzip.compress(CSV), "csv"), (parquet(), "parquet"), (b"PK\x03\x04", "npz")],
    ids=["ndjson", "gz", "parquet", "npz"],
)
def test_stdin_is_spooled_and_removed(data: bytes, expected: str) -> None:
    code = """
import os
from recli.io.sources import source
with source(["-"]) as found:
    print(found.format, found.name, found.files[0], os.path.getsize(found.files[0]))
"""
    child = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    format, name, spool, size = child.stdout.decode().split()
    assert (format, name, int(size)) == (expected, "stdin", len(data))
    assert not os.path.exists(spool)


@pytest.mark.parametrize("how", ["<&-", "< /dev/null"])
def test_a_closed_or_empty_stdin_is_an_error_of_ours(how: str) -> None:
    code = "from recli.io.sources import source\nwith source(['-']): pass"
    ended = subprocess.run(["sh", "-c", f'"{sys.executable}" -c "{code}" {how}'], capture_output=True, text=True)
    last = ended.stderr.strip().splitlines()[-1]
    assert last in (
        "recli.errors.MissingInputError: stdin: it is closed",
        "recli.errors.DataError: stdin: expected a table, found nothing",
    )


def test_a_folder_is_its_tables_in_order_of_name() -> None:
    Path("parts/below").mkdir(parents=True)
    for name, user in {"b.csv": 2, "a.csv": 1, "c.txt": 3, ".hidden.csv": 9, "_temporary.csv": 9}.items():
        Path("parts", name).write_text(f"user,item\n{user},1\n")
    Path("parts/_SUCCESS").touch()
    Path("parts/README.md").write_text("not a table")
    Path("parts/model.factors.npz").write_bytes(b"PK\x03\x04")  # an output beside the data
    Path("parts/below/d.csv").write_text("user,item\n9,1\n")
    assert rows("parts") == [("1", "1"), ("2", "1"), ("3", "1")]


def test_globs_and_several_files_are_read_in_the_order_given() -> None:
    for name in ("x-2", "x-1", "y"):
        Path(f"{name}.csv").write_text(f"user,item\n{name},1\n")
    assert [user for user, _ in rows("y.csv", "x-*.csv")] == ["y", "x-1", "x-2"]
    with source(["y.csv", "x-*.csv"]) as found:
        assert found.name == "y.csv (and 1 more)"
        assert len(found.sha256()) == 3


def test_the_sha256_is_of_the_files_bytes() -> None:
    Path("a.csv").write_bytes(b"abc")
    with source(["a.csv"]) as found:
        assert found.sha256() == ["ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]


@pytest.mark.parametrize(
    ("inputs", "format"),
    [
        (["s3://bucket/a.parquet"], "parquet"),
        (["s3://bucket/part-*"], "parquet"),
        (["https://example.org/a.csv.gz", "https://example.org/b.tsv"], "csv"),
        (["gs://bucket/a.jsonl"], "ndjson"),
    ],
)
def test_a_remote_address_is_left_to_polars(inputs: list[str], format: str) -> None:
    with source(inputs) as found:
        assert (found.remote, found.files, found.format) == (True, tuple(inputs), format)
        assert found.sha256() == []


def test_columns_without_heading_are_numbered_from_1() -> None:
    Path("a.csv").write_text("x,007,1\ny,8,2\n")
    with source(["a.csv"]) as found:
        kinds = column_types(scan(found, ["column_2"], header=False), "a.csv")
        assert kinds == {"column_1": pl.String, "column_2": pl.String, "column_3": pl.Int64}
    assert rows("a.csv", header=False) == [("x", "7", "1"), ("y", "8", "2")]


BAD: dict[str, tuple[type[Exception], str, list[str], dict[str, bytes]]] = {
    "missing": (MissingInputError, "a.csv: no such file", ["a.csv"], {}),
    "no match": (MissingInputError, r"a\*.csv: no such file", ["a*.csv"], {}),
    "empty": (DataError, "a.csv: expected a table, found an empty file", ["a.csv"], {"a.csv": b""}),
    "blank": (DataError, "a.csv: expected a table, found an empty file", ["a.csv"], {"a.csv": b"\n\n"}),
    "empty gz": (DataError, "a: expected a table, found nothing", ["a"], {"a": gzip.compress(b"")}),
    "an empty part": (DataError, "b.csv: expected a table", ["a.csv", "b.csv"], {"a.csv": CSV, "b.csv": b""}),
    "truncated gz": (DataError, "a: cannot be read: Compressed file ended", ["a"], {"a": gzip.compress(CSV)[:20]}),
    "damaged gz": (DataError, "a: cannot be read: ", ["a"], {"a": gzip.compress(CSV)[:10] + b"\xff" * 99}),
    "damaged csv.gz": (DataError, "a.csv.gz: cannot be read", ["a.csv.gz"], {"a.csv.gz": gzip.compress(CSV)[:-12]}),
    "mixed": (DataError, "found csv, ndjson", ["a.csv", "b.ndjson"], {"a.csv": CSV, "b.ndjson": NDJSON}),
    "npz": (DataError, "a.npz: expected a table .*, found npz", ["a.npz"], {"a.npz": b"PK\x03\x04"}),
    "no table in a folder": (MissingInputError, "x: a folder without Parquet", ["x"], {"x/README": b"hello"}),
    "stdin and more": (UsageError, "cannot be combined", ["-", "a.csv"], {"a.csv": CSV}),
    "remote and local": (UsageError, "cannot be combined", ["s3://x/a.csv", "a.csv"], {"a.csv": CSV}),
    "another order of columns": (
        DataError,
        "a.csv .and 1 more.: cannot be read: schema names differ",
        ["a.csv", "b.csv"],
        {"a.csv": CSV, "b.csv": b"item,user,rating\n1,2,3\n"},
    ),
    "ragged": (DataError, "cannot be read: found more fields", ["a.csv"], {"a.csv": b"user,item\n1,2\n1,2,3\n"}),
    "latin-1": (DataError, "cannot be read: invalid utf-8", ["a.csv"], {"a.csv": "user,item\n1,é\n".encode("latin-1")}),
    "utf-16": (DataError, "cannot be read: invalid utf-8", ["a.csv"], {"a.csv": CSV.decode().encode("utf-16")}),
    "no JSON": (DataError, "cannot be read", ["a.ndjson"], {"a.ndjson": NDJSON + b"oops\n"}),
    "no Parquet": (DataError, "cannot be read: parquet", ["a.parquet"], {"a.parquet": CSV}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_an_error_of_ours_in_one_line(name: str) -> None:
    error, message, inputs, content = BAD[name]
    for path, data in content.items():
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        rows(*inputs)
    assert "\n" not in str(caught.value)


def test_a_truncated_or_damaged_parquet_file_is_a_data_error(capfd: pytest.CaptureFixture[str]) -> None:
    file = io.BytesIO()
    pl.DataFrame({"user": [1, 2] * 50, "item": range(100), "rating": [1.0] * 100}).write_parquet(file)
    data = file.getvalue()
    for length in range(1, len(data), 7):
        Path("a.parquet").write_bytes(data[:length])
        with pytest.raises(DataError, match=r"^a\.parquet: cannot be read"):
            rows("a.parquet")
    for place in range(0, len(data), 3):  # polars panics on some of them, and says so on stderr
        Path("a.parquet").write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with contextlib.suppress(DataError):
            rows("a.parquet")
    capfd.readouterr()


def test_a_format_that_is_asked_for_comes_before_the_suffix() -> None:
    Path("a.csv").write_bytes(NDJSON)
    assert rows("a.csv", format="ndjson") == ROWS
    with pytest.raises(DataError, match=r"^a\.csv: cannot be read: parquet"):
        rows("a.csv", format="parquet")


@pytest.mark.parametrize(
    ("heading", "columns"),
    [("user;a,b;item", 3), ("user,a;b,item", 3), ("user\ta,b\titem", 3), ("user|item", 2), ("user", 1), ('"a,b"', 1)],
)
def test_the_commonest_delimiter_of_the_heading_separates(heading: str, columns: int) -> None:
    Path("a.txt").write_text(f"{heading}\n")
    with source(["a.txt"]) as found:
        assert len(column_types(scan(found), "a.txt")) == columns


def test_a_file_that_may_not_be_read_is_a_missing_input() -> None:
    code = """
import os, sys
from recli.io.sources import source
if os.getuid() == 0:
    os.setuid(65534)  # root may read anything
try:
    with source(["a.csv"]): pass
except Exception as error:
    print(type(error).__name__, error)
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        os.chmod(folder, 0o755)
        Path(folder, "a.csv").write_bytes(CSV)
        os.chmod(Path(folder, "a.csv"), 0)
        ended = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert ended.stdout == "MissingInputError a.csv: may not be read (permissions)\n"
