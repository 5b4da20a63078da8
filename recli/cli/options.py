"""What commands share: their class, and their flags, one type each, so that a name means the same everywhere. Every
flag is also a RECLI_* variable, but for -o and -n, which belong to one run, lists (--expect, --fail-if, and what
bench makes a grid of), and those that mean something else in another command (`own`).
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from recli.config import Config, ReadConfig
from recli.errors import OutputError, UsageError

C = TypeVar("C", bound=Config)
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
TABLES = (".parquet", ".pq", ".csv", ".tsv", ".tab", ".ndjson", ".jsonl", ".txt", ".dat")
EPILOG = """
Flags can also be keys in recli.toml (threads = 4) or variables (RECLI_THREADS=4); the command line wins.
"""


class Listed(str):
    """The value of a flag that is a list with commas; its setting in a file may also be a number, for one."""


@dataclass
class Run:
    """The contexts' `obj`: what `main` and the commands tell each other, for errors above all.

    is_help: then settings files do not matter. settings: (command, parameter) -> the settings file with its value.
    """

    is_help: bool = False
    command: str = "recli"
    debug: bool = False
    log_format: str = "text"
    settings: dict[tuple[str, str], Path] = field(default_factory=dict)


class Command(TyperCommand):
    """A command whose errors say where a bad setting comes from."""

    def invoke(self, ctx: Any) -> Any:
        run: Run = ctx.obj
        run.command, run.debug, run.log_format = ctx.info_name, ctx.params["debug"], ctx.params["log_format"]
        try:
            return super().invoke(ctx)
        except UsageError as error:
            flag = re.search(r"(?:^|: )(--?[a-z0-9-]+) ", str(error))
            names = [parameter.name for parameter in self.params if flag and flag[1] in parameter.opts]
            raise UsageError(str(error) + "".join(origin(ctx, name) for name in names)) from error
        except BrokenPipeError as error:
            raise typer.Exit(141) from error  # typer would make it 1


def origin(ctx: Any, name: str) -> str:
    """Where the value of a parameter comes from, if not from the command line."""
    source = ctx.get_parameter_source(name)
    if source is not None and source.name == "ENVIRONMENT":
        return f" (from RECLI_{name.strip('_').upper()})"
    if source is not None and source.name == "DEFAULT_MAP":
        return f" (from {ctx.obj.settings[ctx.info_name, name]})"
    return ""


def given_flags(ctx: typer.Context) -> frozenset[str]:
    """The parameters that stand on the command line itself: what settings files and variables say is for every run."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")


def flag(parameter: str) -> str:
    """--keep-rows of keep_rows, -k of k, FACTORS of the argument."""
    if parameter == "factors":
        return "FACTORS"
    return f"-{parameter}" if len(parameter) == 1 else f"--{parameter.strip('_').replace('_', '-')}"


def option(*flags: str, help: str, **more: Any) -> Any:
    variable = "RECLI_" + flags[0].split("/")[0].lstrip("-").upper().replace("-", "_")
    return typer.Option(*flags, help=help, envvar=variable, show_envvar=False, **more)


def own(*flags: str, help: str) -> Any:
    """A flag that means something else in another command: without a variable, which would have to mean both."""
    return typer.Option(*flags, help=help)


def app() -> typer.Typer:
    """The Typer application of one command."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    return typer.Typer(rich_markup_mode=None, add_completion=False, context_settings=settings)


def listed(*flags: str, help: str) -> Any:
    """A list, of what other commands take one of: without a variable, which would have to mean both."""
    return typer.Option(*flags, help=help, metavar="<list>", parser=Listed)


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
    str | None, option("--memory-limit", help="Refuse or divide work that needs more, as 4G; on a GPU, too.")
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
Where = Annotated[str | None, option("--where", help='SQL condition on rows, such as "rating >= 3".')]
Duplicates = Annotated[
    str,
    option(
        "--duplicates", help="Rows that repeat a user and item: last (by timestamp), first, sum, mean, max or error."
    ),
]
Weight = Annotated[str | None, option("--weight", help="Column of confidence weights, instead of ratings.")]
TestShare = Annotated[float, option("--test-share", help="How much of it is held out: of pairs, or of users.")]
Seed = Annotated[int, option("--seed", help="Seed of the initial factors, and of what is held out.")]
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


def check_paths(inputs: Sequence[str | None], output: str | None, stats: str | None, json_: bool) -> None:
    """Refuses what an unset shell variable makes of a command line, and outputs that collide with each other or with an
    input.
    """
    if "" in (*inputs, output, stats):
        raise UsageError("a file name is empty (is a shell variable not set?)")
    for name in (output, stats):
        if name and name.startswith("-") and name != "-":
            raise UsageError(f"found the flag {name} in the place of an output's name (is a shell variable not set?)")
    flags = {"--json": json_, "-o -": output == "-", "--stats -": stats == "-"}
    to_stdout = [flag for flag, used in flags.items() if used]
    if len(to_stdout) > 1:
        raise UsageError(f"{' and '.join(to_stdout)} cannot share stdout: write one of them to a file")
    refuse_stats(inputs, stats)


def refuse_stats(inputs: Sequence[str | None], stats: str | None) -> None:
    if stats and any(path and os.path.exists(path) and _same_file(path, stats) for path in inputs):
        raise OutputError("--stats would replace an input: give another name", file=stats)


def _same_file(path: str, other: str) -> bool:
    return os.path.exists(other) and os.path.samefile(path, other)


def let_ctrl_c_through() -> None:
    """To be called once polars is there: its SIGINT handler restarts system calls, so reading stdin would go on."""
    signal.siginterrupt(signal.SIGINT, True)


def shown(path: str | None) -> str:
    return "stdout" if path == "-" else str(path)


def limit_text(count: float) -> str:
    """Bytes for --memory-limit, rounded up, so that the advice is good."""
    return f"{math.ceil(count / 2**30 * 10) / 10:.1f}G"


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


def limit_threads(asked: int | None) -> int:
    """The threads to use; polars' and numba's, too, which they read once, when they are imported, as polars does how
    long to keep memory that it is done with: the next step wants it.
    """
    workers = thread_count(asked)
    os.environ.setdefault("POLARS_MAX_THREADS", str(workers))
    os.environ.setdefault("NUMBA_NUM_THREADS", str(workers))
    os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:100,muzzy_decay_ms:0")
    return workers


def default_output(inputs: list[str], ending: str) -> str:
    """`<input stem><ending>` in the working folder; data.csv.gz, data.factors.npz and a folder data/ have the stem
    data.
    """
    first = inputs[0]
    if first == "-" or (os.path.exists(first) and not os.path.isfile(first) and not os.path.isdir(first)):
        raise UsageError("the input is a pipe, without a name: say where to write with -o FILE (or -o - for stdout)")
    name = os.path.basename(first.rstrip("/"))
    for suffix in (".gz", ".zst", ".npz", ".npy", ".factors", *TABLES):
        name = name.removesuffix(suffix)
    name = re.sub(r"[*?\[\]]+", "", name).strip("-_. ") or "recli"
    return f"{name}{ending}"
