"""What the modes of recli score share: the flags as one value, the checks on their combination, and the formats."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recli.cli import options as o
from recli.cli.console import Console
from recli.config import ReadConfig, ScoreConfig
from recli.errors import UsageError

if TYPE_CHECKING:
    from recli.io import Output

SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
INPUTS = (
    "factors",
    "users",
    "history",
    "pairs",
    "similar",
    "similar_users",
    "truth",
    "allow",
    "deny",
    "deny_pairs",
    "items",
)
MODES = {"pairs": ".pairs.parquet", "similar": ".similar.parquet", "similar_users": ".similar-users.parquet"}
# What each mode takes beside the COMMON flags; lists, without a mode's flag, take everything.
COMMON = frozenset(
    "factors output columns no_header output_format device threads memory_limit no_clobber dry_run json_ stats "
    "log_format quiet verbose debug".split()
)
TAKES = {
    "pairs": ("pairs", "truth", "truth_where"),
    "similar": ("similar", "k", "min_score", "allow", "deny", "items", "where"),
    "similar_users": ("similar_users", "k", "min_score"),
}


@dataclass(frozen=True)
class Job:
    """One run of recli score. flags: the command's parameters by name, at their defaults where the mode does not take
    them; path: where to write, or None.
    """

    flags: Mapping[str, Any]
    mode: str
    console: Console
    config: ScoreConfig
    reading: ReadConfig
    limit: int | None
    workers: int
    path: str | None
    format: str

    @classmethod
    def of(cls, ctx: Any) -> Job:
        modes = [mode for mode in MODES if ctx.params[mode] is not None]
        if len(modes) > 1:
            raise UsageError(" and ".join(map(_flag, modes)) + " exclude each other")
        mode = modes[0] if modes else "lists"
        flags = _taken(ctx, mode)
        console = Console.of("score", flags)
        config = o.pick(ScoreConfig, {**flags, "max_per": _max_per(flags["max_per"])})
        reading = o.read_config({name: flags[name] for name in ("columns", "no_header")}, where=flags["truth_where"])
        o.check_paths(tuple(flags[name] for name in INPUTS), flags["output"], flags["stats"], flags["json_"])
        path = flags["output"]
        if path is None and not (flags["truth"] and mode in ("lists", "pairs")):
            path = o.default_output([flags["factors"]], MODES.get(mode, ".recs.parquet"))
        piped = [_flag(name) for name in INPUTS if flags[name] == "-"]
        if len(piped) > 1:
            raise UsageError(f"only one of {' and '.join(piped)} can be - (stdin)")
        if flags["truth_where"] is not None and flags["truth"] is None:
            raise UsageError(f"--truth-where {flags['truth_where']!r}: there is no --truth for it to filter")
        return cls(
            flags=flags,
            mode=mode,
            console=console,
            config=config,
            reading=reading,
            limit=o.parse_size(flags["memory_limit"]),
            workers=o.limit_threads(flags["threads"]),
            path=path,
            format=output_format(path, flags["output_format"]),
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.flags[name] for name in INPUTS if self.flags[name])

    def outputs(self, stack: ExitStack) -> tuple[Output | None, Callable[[dict[str, Any]], None]]:
        """The output and what writes --stats, both checked and held until the stack closes."""
        from recli import io

        out, options = None, {"no_clobber": self.flags["no_clobber"], "binary": self.format == "parquet"}
        if self.path:
            out = stack.enter_context(io.output(self.path, inputs=self.inputs, **options))
        return out, stack.enter_context(io.json_output(self.flags["stats"]))


def output_format(path: str | None, asked: str | None) -> str:
    """The format of the output: as asked, else by suffix."""
    if asked is not None:
        if asked not in SUFFIXES.values():
            raise UsageError(f"--output-format {asked}: expected parquet, csv or ndjson")
        return asked
    if path in (None, "-"):
        return "parquet"
    suffix = os.path.splitext(str(path))[1].lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"-o {path}: expected a suffix out of {', '.join(SUFFIXES)}, or --output-format")
    return SUFFIXES[suffix]


def _taken(ctx: Any, mode: str) -> dict[str, Any]:
    """The command's parameters. Of a flag that the mode does not take, the default: on the command line it is refused,
    and what settings files and variables say is for the lists of other runs.
    """
    if mode not in TAKES:
        return dict(ctx.params)
    defaults = {parameter.name: parameter.default for parameter in ctx.command.params}
    others = ctx.params.keys() - COMMON - set(TAKES[mode])
    refused = [name for name in ctx.params if name in others and ctx.get_parameter_source(name).name == "COMMANDLINE"]
    if refused:
        takes = ", ".join(_flag(name) for name in TAKES[mode] if name != mode)
        raise UsageError(f"{_flag(mode)} does not go with {', '.join(map(_flag, refused))}: it takes {takes}")
    return {name: defaults[name] if name in others else value for name, value in ctx.params.items()}


def _flag(name: str) -> str:
    if name == "factors":
        return "FACTORS"
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"


def _max_per(text: str | None) -> dict[str, int]:
    caps = {}
    for part in text.split(",") if text else []:
        column, equals, count = part.partition("=")
        if not column.strip() or not equals or not count.strip().isdecimal() or int(count) < 1:
            raise UsageError(f"--max-per {text}: expected COLUMN=N, N from 1 up, as category=3, found {part!r}")
        caps[column.strip()] = int(count)
    return caps
