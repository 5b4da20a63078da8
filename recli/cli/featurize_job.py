"""recli featurize: checks the flags, opens inputs and the output folder, and has them fitted or applied."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from recli.cli import options as o
from recli.cli.console import Console, print_json, size_text
from recli.config import PROCESS_BYTES, FeaturizeConfig, ReadConfig
from recli.errors import BusyError, UsageError
from recli.process import held_bytes, peak_bytes

if TYPE_CHECKING:
    from recli.artifacts import Features, Interactions
    from recli.io import AttributeTable, Events, Fill, Rules, Source

ROLES = ("user", "item")
# What the fit decides, so that --apply cannot.
OF_THE_FIT = (
    *("spec", "min_user", "min_item", "where", "duplicates", "weight", "weights", "event", "half_life", "weighting"),
    *("split", "test_share", "valid_share", "seed"),
)
ADDED = "sum"  # rows that repeat a pair, where they are events or decay
EVENTS_BYTES = 16  # of a row, more than the index alone: its time, and that of its pair


@dataclass(frozen=True)
class Written:
    """What goes into the folder. tables: the split's; content: of spec.json;
    report: of report.json.
    """

    interactions: Interactions
    features: Mapping[str, Features]
    tables: Mapping[str, Fill]
    content: Any
    report: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One run, as its flags describe it. limit: bytes of --memory-limit, or None."""

    flags: Mapping[str, Any]
    given: frozenset[str]
    console: Console
    config: FeaturizeConfig
    reading: ReadConfig
    workers: int
    limit: int | None
    path: str
    vectors: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, ctx: typer.Context) -> Job:
        flags, given = ctx.params, o.given_flags(ctx)
        console = Console.of("featurize", flags)
        config = o.pick(FeaturizeConfig, flags)
        for name in OF_THE_FIT if flags["apply"] is not None else ():
            if name in given:
                raise UsageError(f"{o.flag(name)}: --apply does what {flags['apply']}/spec.json says: leave it out")
        if not flags["inputs"] and not (flags["apply"] is not None and (flags["items"] or flags["users"])):
            raise UsageError("nothing to do: give INPUT, or --apply with --items or --users")
        vectors = {role: _vectors(flags, role) for role in ROLES}
        if [*(flags["inputs"] or []), flags["items"], flags["users"]].count("-") > 1:
            raise UsageError("only one of INPUT, --items and --users can be -")
        workers = o.limit_threads(flags["threads"])
        asked: dict[str, Any] = {}
        source = ctx.get_parameter_source("duplicates")
        if (config.weights or config.half_life) and source is not None and source.name == "DEFAULT":
            asked["duplicates"] = ADDED
        reading = o.read_config(flags, **asked)
        if config.weights and reading.weight:
            raise UsageError("--weight and --weights exclude each other")
        if flags["event"] is not None and not config.weights:
            raise UsageError("--event: there are no --weights for it")
        if config.split == "none" and (named := {"test_share", "valid_share"} & given):
            raise UsageError(f"{o.flag(min(named))}: there is no --split for it")
        path = flags["output"] or o.default_output(flags["inputs"] or [flags["items"] or flags["users"]], ".features")
        limit = o.parse_size(flags["memory_limit"])
        return cls(flags, given, console, config, reading, workers, limit, path, vectors)

    @property
    def paths(self) -> list[str]:
        """Of all files that are read."""
        named = [*(self.flags["inputs"] or []), *(self.flags[name] for name in ("items", "users", "spec", "apply"))]
        return [path for path in (*named, *self.vectors["user"].values(), *self.vectors["item"].values()) if path]

    def run(self) -> None:
        flags, console = self.flags, self.console
        o.check_paths(self.paths, flags["output"], flags["stats"], flags["json_"])
        if self.path == "-":
            raise UsageError("-o -: the output is a folder: give its name")

        from recli import io, kernels
        from recli.cli.featurize_apply import apply
        from recli.cli.featurize_fit import fit
        from recli.cli.featurize_summary import print_summary

        o.let_ctrl_c_through()
        name, reason = kernels.choose(flags["device"])
        with contextlib.ExitStack() as stack:
            write_stats = stack.enter_context(io.json_output(flags["stats"]))
            into = None
            if not flags["dry_run"]:
                names = io.FEATURE_FILES
                read = tuple(self._files_read())
                into = stack.enter_context(
                    io.folder(self.path, names, flag="-o", inputs=read, no_clobber=flags["no_clobber"])
                )
            backend = stack.enter_context(kernels.load(name, self.workers, self.limit))
            console.note_device(flags["device"], name, reason, self.workers)
            work = apply if flags["apply"] is not None else fit
            found = stack.enter_context(io.source(flags["inputs"], self.reading.format)) if flags["inputs"] else None
            if into and found:
                into.refuse(found.files)
            written = work(self, found, backend)
            result = {"output": self.path, **written.report}
            if into is None:
                stored: list[Interactions | Features] = [written.interactions, *written.features.values()]
                size = sum(array.nbytes for artifact in stored for array in artifact.arrays().values())
                console.note(
                    f"plan: {size_text(peak_bytes())} of memory, {size_text(size)} to {self.path}, and the tables of a "
                    "split; nothing written",
                    fields={"plan": {"bytes": peak_bytes(), "output_bytes": size}},
                )
            else:
                files = io.write_features(
                    into, written.interactions, written.features, written.tables, written.content, written.report
                )
                size = sum(about["bytes"] for about in files.values())
                console.note(f"wrote {self.path}: {', '.join(files)}; {size_text(size)}, {console.seconds():.1f} s")
                result["files"] = files
            console.stats.update(result)
            result = console.finish()
            write_stats(result)
            if flags["json_"]:
                print_json(result)
            elif not flags["quiet"]:
                print_summary(written.report)

    def _files_read(self) -> list[str]:
        """Those that the output must not replace."""
        applied = self.flags["apply"]
        folder = [] if applied is None else [os.path.join(applied, name) for name in ("spec.json", "interactions.npz")]
        return [*(path for path in self.paths if os.path.isfile(path)), *folder]

    def window(self) -> tuple[int | None, int | None]:
        """--since and --until."""
        from recli import io

        since, until = (
            None if text is None else io.parse_moment(text, flag)
            for text, flag in ((self.config.since, "--since"), (self.config.until, "--until"))
        )
        if since is not None and until is not None and since >= until:
            raise UsageError(f"--since {self.config.since}: expected a moment before --until {self.config.until}")
        return since, until

    def events(self, found: Source, reading: ReadConfig, rules: Rules) -> Events:
        """The interactions, and what there is to say of them."""
        from recli import io
        from recli.cli.training import say_what_was_read

        least = io.least_bytes(found, reading)
        needed = held_bytes() + least + least * EVENTS_BYTES // io.ROW_BYTES
        if self.limit is not None and needed > self.limit:
            raise BusyError(
                f"reading {found.name} needs about {size_text(needed)}, --memory-limit is "
                f"{self.flags['memory_limit']}: give --memory-limit {o.limit_text(max(PROCESS_BYTES, 1.05 * needed))}"
            )
        events = io.read_events(found, reading, rules)
        say_what_was_read(self.console, events.report)
        return events

    def attributes(self, role: str, reading: ReadConfig, own_name: str) -> AttributeTable | None:
        """The table of --users or --items. own_name: of the ids in the interactions."""
        from recli import io

        path = self.flags[f"{role}s"]
        if path is None:
            return None
        with io.source([path]) as found:
            table = io.read_attributes(found, role, reading, own_name, self.vectors[role])
        again = f"; {table.repeated:,} repeat others word for word" if table.repeated else ""
        self.console.note(f"read {path}: {table.rows:,} {role}s, {table.frame.width} columns{again}")
        return table


def _vectors(flags: Mapping[str, Any], role: str) -> dict[str, str]:
    found: dict[str, str] = {}
    given: Sequence[str] = flags[f"{role}_vectors"] or []
    for text in given:
        name, equals, path = text.partition("=")
        if not name or not equals or not path or name in found:
            raise UsageError(f"--{role}-vectors {text}: expected a new name and a file, as cover=covers.npy")
        found[name] = path
    if found and flags[f"{role}s"] is None:
        raise UsageError(f"--{role}-vectors: there is no --{role}s whose rows they go with")
    return found
