"""What the modes of recli score share: the flags as one value, the checks on their combination, and the formats."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recli.cli import options as o
from recli.cli.adapted import feature_files
from recli.cli.console import Console
from recli.cli.shards import Shard, shards
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
COMMON = (
    *("factors", "output", "columns", "no_header", "output_format", "device", "threads", "memory_limit", "no_clobber"),
    *("dry_run", "json_", "stats", "log_format", "quiet", "verbose", "debug", "adapter", "features"),
)
TAKES = {
    "pairs": ("pairs", "truth", "truth_where"),
    "similar": ("similar", "k", "min_score", "allow", "deny", "items", "where"),
    "similar_users": ("similar_users", "k", "min_score"),
}


@dataclass(frozen=True)
class Job:
    """One run of recli score. flags: the command's parameters by name, at their defaults where the mode does not take
    them; path: where to write, or None; shard: the part of the users that is asked for, or None; folder: is path one,
    of parts?
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
    shard: Shard | None
    folder: bool

    @classmethod
    def of(cls, ctx: Any) -> Job:
        modes = [mode for mode in MODES if ctx.params[mode] is not None]
        if len(modes) > 1:
            raise UsageError(" and ".join(map(o.flag, modes)) + " exclude each other")
        mode = modes[0] if modes else "lists"
        given = o.given_flags(ctx)
        flags = _taken(ctx, mode, given)
        console = Console.of("score", flags)
        config = o.pick(ScoreConfig, {**flags, "max_per": _max_per(flags["max_per"])})
        reading = o.read_config({name: flags[name] for name in ("columns", "no_header")}, where=flags["truth_where"])
        adapters = list(flags["adapter"] or [])
        read = (*(flags[name] for name in (*INPUTS, "previous", "index")), *adapters)
        o.check_paths((*read, *feature_files(flags["features"])), flags["output"], flags["stats"], flags["json_"])
        path, shard = flags["output"], Shard.parse(flags["shard"]) if flags["shard"] is not None else None
        if path is None and (flags["parts"] is not None or not (flags["truth"] and mode in ("lists", "pairs"))):
            path = o.default_output([flags["factors"]], _ending(mode, flags["parts"], shard))
        if path is None and config.explain and "explain" in given:
            raise UsageError(f"--explain {config.explain}: --truth alone writes no lists: give -o FILE")
        if path is None:  # gates that stand in a settings file are for lists that are written
            flags |= {name: None for name in ("expect", "previous") if name not in given}
        folder = flags["parts"] is not None or bool(shard and path and (path.endswith("/") or os.path.isdir(path)))
        _check_parts(flags, path, folder)
        piped = [o.flag(name) for name in (*INPUTS, "previous") if flags[name] == "-"]
        piped += ["--adapter" for path in adapters if path == "-"]
        if len(piped) > 1:
            raise UsageError(f"only one of {' and '.join(piped)} can be - (stdin)")
        if flags["truth_where"] is not None and flags["truth"] is None:
            raise UsageError(f"--truth-where {flags['truth_where']!r}: there is no --truth for it to filter")
        if flags["features"] is not None and not flags["adapter"]:
            raise UsageError("--features: there is no --adapter that maps attributes to rows")
        if flags["index"] == "-":
            raise UsageError("--index -: expected a file, made once and mapped by later runs")
        _check_items(flags)
        return cls(
            flags=flags,
            mode=mode,
            console=console,
            config=config,
            reading=reading,
            limit=o.parse_size(flags["memory_limit"]),
            workers=o.limit_threads(flags["threads"]),
            path=path,
            format=output_format(None if folder else path, flags["output_format"]),
            shard=shard,
            folder=folder,
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        named = tuple(self.flags[name] for name in (*INPUTS, "index") if self.flags[name])
        return (*named, *(self.flags["adapter"] or []), *feature_files(self.flags["features"]))

    def outputs(self, stack: ExitStack) -> tuple[Output | None, Callable[[dict[str, Any]], None]]:
        """The output and what writes --stats, both checked and held until the stack closes."""
        from recli import io

        out, options = None, {"no_clobber": self.flags["no_clobber"], "binary": self.format == "parquet"}
        if self.path:
            out = stack.enter_context(io.output(self.path, inputs=self.inputs, **options))
        return out, stack.enter_context(io.json_output(self.flags["stats"]))


def _ending(mode: str, parts: int | None, shard: Shard | None) -> str:
    if parts is not None:
        return ".recs/"
    return f".recs.{shard.name}.parquet" if shard else MODES.get(mode, ".recs.parquet")


def _check_parts(flags: Mapping[str, Any], path: str | None, folder: bool) -> None:
    asked = [name for name in ("shard", "parts") if flags[name] is not None]
    if len(asked) > 1:
        raise UsageError(f"--shard {flags['shard']} and --parts exclude each other: -o FOLDER/ keeps shards as parts")
    if flags["parts"] is not None:
        shards(flags["parts"])
    if asked and flags["expect"]:
        gate = flags["expect"][0]
        raise UsageError(f"--expect {gate!r}: it is for a whole output, and does not go with --{asked[0]}")
    if folder and path == "-":
        raise UsageError("--parts writes a folder: give -o FOLDER/, not -o -")
    if folder and flags["output_format"] not in (None, "parquet"):
        raise UsageError(
            f"--output-format {flags['output_format']}: the parts in a folder are Parquet, which says of what run"
        )


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


def _taken(ctx: Any, mode: str, given: frozenset[str]) -> dict[str, Any]:
    """The command's parameters. Of a flag that the mode does not take, the default: on the command line it is refused,
    and what settings files and variables say is for the lists of other runs.
    """
    if mode not in TAKES:
        return dict(ctx.params)
    defaults = {parameter.name: parameter.default for parameter in ctx.command.params}
    others = ctx.params.keys() - {*COMMON, *TAKES[mode]}
    refused = [name for name in ctx.params if name in others and name in given]
    if refused:
        takes = ", ".join(o.flag(name) for name in TAKES[mode] if name != mode)
        raise UsageError(f"{o.flag(mode)} does not go with {', '.join(map(o.flag, refused))}: it takes {takes}")
    return {name: defaults[name] if name in others else value for name, value in ctx.params.items()}


def _check_items(flags: Mapping[str, Any]) -> None:
    for name in ("where", "max_per"):
        if flags[name] is not None and flags["items"] is None:
            raise UsageError(f"{o.flag(name)} {flags[name]!r}: there is no --items table for it to look in")
    if flags["items"] is not None and flags["where"] is None and flags["max_per"] is None:
        raise UsageError(f"--items {flags['items']}: it is there for --where or --max-per: give one of them")


def _max_per(text: str | None) -> dict[str, int]:
    caps = {}
    for part in text.split(",") if text else []:
        column, equals, count = part.partition("=")
        if not column.strip() or not equals or not count.strip().isdecimal() or int(count) < 1:
            raise UsageError(f"--max-per {text}: expected COLUMN=N, N from 1 up, as category=3, found {part!r}")
        if column.strip() in caps:
            raise UsageError(f"--max-per {text}: {column.strip()} is there twice")
        caps[column.strip()] = int(count)
    return caps
