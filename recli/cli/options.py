"""Flags that commands share: one type each, so that a name means the same everywhere. Every flag is also a RECLI_*
variable.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import typer

from recli.config import Config, ReadConfig
from recli.errors import UsageError

C = TypeVar("C", bound=Config)
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def option(*flags: str, help: str, **more: Any) -> Any:
    variable = "RECLI_" + flags[0].split("/")[0].lstrip("-").upper().replace("-", "_")
    return typer.Option(*flags, help=help, envvar=variable, show_envvar=False, **more)


def app(epilog: str) -> typer.Typer:
    """The Typer application of one command."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    return typer.Typer(rich_markup_mode=None, add_completion=False, context_settings=settings, epilog=epilog)


OutputPath = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", help="File to write, - for stdout [default: named after the input, in this folder]."
    ),
]
NoClobber = Annotated[bool, option("--no-clobber", help="Refuse to replace an existing output.")]
Device = Annotated[str, option("--device", help="auto, cpu, gpu, gpu:N, or reference (slow; to debug with).")]
Threads = Annotated[int | None, option("--threads", help="Threads [default: the cores this process may use].")]
MemoryLimit = Annotated[
    str | None, option("--memory-limit", help="Refuse or divide work that needs more, as 4G or 500M.")
]
Quiet = Annotated[bool, option("--quiet", "-q", help="Say nothing but errors.")]
Verbose = Annotated[bool, option("--verbose", "-v", help="Say more.")]
LogFormat = Annotated[str, option("--log-format", help="text, or json: one object a line.")]
Json = Annotated[bool, option("--json", help="Print the result as one JSON object on stdout.")]
Stats = Annotated[str | None, option("--stats", help="File for what happened: counts, seconds, peak memory (JSON).")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Read and check, print the plan, write nothing.")]
Debug = Annotated[bool, option("--debug", help="Show the trace of an error.")]
Columns = Annotated[
    str | None,
    option("--columns", help="Column names: user=NAME,item=NAME,rating=NAME,timestamp=NAME; rating= leaves one out."),
]
NoHeader = Annotated[bool, option("--no-header", help="CSV without a heading: columns are column_1, column_2, ...")]
InputFormat = Annotated[
    str | None,
    option("--input-format", help="parquet, csv (any delimiter) or ndjson [default: by suffix or first bytes]."),
]


def pick(kind: type[C], params: Mapping[str, Any], **more: Any) -> C:
    """A config from a command's parameters of the same names; a flag that was not given leaves the config's own
    default.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in params.items() if name in names and value is not None}, **more)


def read_config(params: Mapping[str, Any], **more: Any) -> ReadConfig:
    settings = {
        "columns": parse_columns(params.get("columns")),
        "header": not params.get("no_header"),
        "format": parse_format(params.get("input_format")),
        "weight": params.get("weight"),
        "where": params.get("where"),
        "duplicates": params.get("duplicates") or ReadConfig.duplicates,
    }
    return ReadConfig(**{**settings, **more})


def parse_columns(text: str | None) -> dict[str, str]:
    columns = {}
    for part in (text or "").split(",") if text else []:
        role, equals, name = part.partition("=")
        if role.strip() not in ("user", "item", "rating", "timestamp") or not equals:
            raise UsageError(
                f"--columns {text}: expected user=NAME,item=NAME,rating=NAME,timestamp=NAME, found {part!r}"
            )
        columns[role.strip()] = name.strip()
    return columns


def parse_format(text: str | None) -> str | None:
    if text not in (None, "parquet", "csv", "ndjson", "npz"):
        raise UsageError(f"--input-format {text}: expected parquet, csv, ndjson or npz")
    return text


def parse_size(text: str | None) -> int | None:
    """Bytes from 4G, 500M, 2.5GiB (powers of 1024)."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(?:I?B)?\s*", text.upper())
    if not match:
        raise UsageError(f"--memory-limit {text}: expected a size such as 4G or 500M")
    return int(float(match[1]) * UNITS[match[2]])


def thread_count(asked: int | None) -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked is not None and not 1 <= asked <= 4096:
        raise UsageError(f"--threads {asked}: expected a value from 1 to 4096")
    return asked or available


def default_output(inputs: list[str], ending: str) -> str:
    """`<input stem><ending>` in the working folder; data.csv.gz, data.factors.npz and a folder data/ have the stem
    data.
    """
    if inputs[0] == "-":
        raise UsageError("reading from stdin: say where to write with -o FILE (or -o - for stdout)")
    name = os.path.basename(inputs[0].rstrip("/"))
    for suffix in (
        ".gz",
        ".zst",
        ".npz",
        ".factors",
        ".parquet",
        ".pq",
        ".csv",
        ".tsv",
        ".ndjson",
        ".jsonl",
        ".txt",
        ".dat",
    ):
        name = name.removesuffix(suffix)
    name = re.sub(r"[*?\[\]]+", "", name).strip("-_. ") or "recli"
    return f"{name}{ending}"
