"""One run of recli bench: flags checked against each other, the races run, the report written and judged."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recli.cli import options as o
from recli.cli.bench_flags import check_outputs, check_sources, chosen
from recli.cli.bench_table import print_report
from recli.cli.console import Console, print_json, size_text
from recli.cli.training import say_what_was_read
from recli.config import PROCESS_BYTES, BenchConfig, ReadConfig
from recli.errors import BusyError, DataError, UsageError

if TYPE_CHECKING:
    from recli.bench.bench import Heading
    from recli.bench.data import Data
    from recli.bench.synthetic import Size
    from recli.kernels.spec import Kernels


@dataclass(frozen=True)
class Job:
    """flags: the parameters by name; peers, races: who may enter, and what; limit: bytes; path: of the report."""

    flags: Mapping[str, Any]
    console: Console
    config: BenchConfig
    reading: ReadConfig
    inputs: list[str]
    peers: tuple[str, ...]
    races: tuple[str, ...]
    limit: int | None
    workers: int
    path: str

    @classmethod
    def of(cls, ctx: Any) -> Job:
        from recli.bench.contestants import PEERS, RACES

        flags = dict(ctx.params)
        console, config = Console.of("bench", flags), o.pick(BenchConfig, flags)
        inputs = flags["inputs"] or []
        check_sources(flags, inputs, o.given_flags(ctx))
        workers = o.limit_threads(flags["threads"])
        check_outputs(flags, inputs)
        if flags["fail_if"] and not flags["baseline"]:
            raise UsageError(f"--fail-if {flags['fail_if'][0]!r}: there is no --baseline to compare with")
        named = inputs or [flags["train"] or (f"synthetic-{flags['synthetic']}" if flags["synthetic"] else "scale")]
        races = RACES if flags["races"] is None else chosen("--races", flags["races"], RACES)
        return cls(
            flags=flags,
            console=console,
            config=config,
            reading=o.read_config(flags),
            inputs=inputs,
            peers=chosen("--peers", flags["peers"], PEERS),
            races=races,
            limit=o.parse_size(flags["memory_limit"]),
            workers=workers,
            path=flags["output"] or o.default_output(named, ".bench.json"),
        )

    def run(self) -> None:
        flags = self.flags
        sizes = self._sizes()

        from recli import kernels  # heavy: numpy, scipy and polars
        from recli.bench import baseline
        from recli.bench.bench import headings
        from recli.bench.scale import heading

        o.let_ctrl_c_through()
        gates = [baseline.parse_gate(text, self.config.ks) for text in flags["fail_if"] or ()]
        old = baseline.read_report(flags["baseline"]) if flags["baseline"] else None
        devices = list(dict.fromkeys(kernels.choose(name)[0] for name in flags["device"].split(",")))
        with ExitStack() as stack:
            writers = self._outputs(stack)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recli-bench-")))
            backend = stack.enter_context(kernels.load("cpu", self.workers))
            data = stack.enter_context(self._data(folder, backend))
            planned = (
                headings(self.config, self.peers, devices, self.races, with_table=data.table is not None)
                if data
                else []
            )
            self._say_missing(planned)
            if data:
                self._check_fits(data.shape[0], data.shape[1], data.pairs)
            for size in sizes:
                self._check_fits(*size)
            keys = [
                {**entry.about, "contestant": entry.contestant, "status": entry.status}
                for heat in planned
                for entry in heat.entries
            ]
            keys += [
                {**heading(self.config, devices[0], size), "contestant": "recli", "status": "ok"} for size in sizes
            ]
            if not keys:
                raise UsageError("nothing to measure: --races none, and no --scale")
            if old:
                baseline.check_comparable(gates, keys, old, flags["baseline"])
            if flags["dry_run"]:
                self._say_plan(planned, sizes)
                return
            report = self._measured(data, planned, sizes, devices, folder, backend)
            incomparable = None
            if old:
                try:
                    report["gates"] = self._compared(report, old, gates)
                except DataError as error:  # to be said once the report, which took so long, is written
                    incomparable = error
            for write in writers:
                write(report)
            if flags["json_"]:
                print_json(report)
            elif self.path != "-" and not flags["quiet"]:
                print_report(report)
            if incomparable:
                raise incomparable
            if old:
                baseline.judge(report["gates"]["failed"], flags["baseline"])

    def _sizes(self) -> list[Size]:
        """Of --scale."""
        if self.flags["scale"] is None:
            return []
        from recli.bench.scale import CATALOGUE, parse_scale
        from recli.bench.synthetic import parse_size

        asked = self.flags["synthetic"]
        users, items = parse_size(asked)[:2] if asked else CATALOGUE
        return parse_scale(self.flags["scale"], users, items)

    def _outputs(self, stack: ExitStack) -> list[Callable[[dict[str, Any]], None]]:
        """What writes the report, its page and its rows, all checked now."""
        from recli import io
        from recli.bench.report import flat_rows

        inputs = [*self.inputs, self.flags["train"], self.flags["test"], self.flags["baseline"]]
        known = {"inputs": tuple(filter(None, inputs)), "no_clobber": self.flags["no_clobber"]}
        writers: list[Callable[[dict[str, Any]], None]] = []

        def add(path: str | None, fill: Callable[[dict[str, Any], Any], None], *, binary: bool = False) -> None:
            if path is None:
                return
            out = stack.enter_context(io.output(path, binary=binary, **known))

            def write(report: dict[str, Any]) -> None:
                out.write(lambda file: fill(report, file))
                self.console.note(f"wrote {o.shown(path)}; {self.console.seconds():.1f} s")

            writers.append(write)

        def page(report: dict[str, Any], file: Any) -> None:
            from recli.bench.page import page

            file.write(page(report).encode())

        add(self.path, lambda report, file: io.write_json(file, report))
        add(self.flags["html"], page)
        add(self.flags["rows"], lambda report, file: io.write_rows(flat_rows(report), file), binary=True)
        return writers

    @contextlib.contextmanager
    def _data(self, folder: Path, backend: Kernels) -> Iterator[Data | None]:
        """None where there is only --scale."""
        from recli.bench.data import check_lengths, read_data, synthetic_data
        from recli.bench.synthetic import parse_size

        flags = self.flags
        if not self.races or not (self.inputs or flags["train"] or flags["synthetic"]):
            yield None
            return
        if flags["synthetic"]:
            size = parse_size(flags["synthetic"])
            check_lengths(self.config.ks, size.items)
            data = synthetic_data(size, self.config, folder, self.workers)
            self.console.note(f"made {size.pairs:,} pairs of {size.users:,} users and {size.items:,} items")
            yield data
            return
        with read_data(self.inputs, flags["train"], flags["test"], self.config, self.reading, backend) as data:
            if data.report:
                say_what_was_read(self.console, data.report)
            check_lengths(self.config.ks, data.shape[1])
            about = data.about
            self.console.note(
                f"{about['train_pairs']:,} pairs to learn from, {about['test_pairs']:,} to judge by, of "
                f"{about['test_users']:,} users"
            )
            yield data

    def _check_fits(self, users: int, items: int, pairs: int) -> None:
        """Refuses, before the work, what the memory limit does not allow recli itself."""
        from recli.factorize import train_bytes

        if self.limit is None:
            return
        for solver in self.config.solvers:
            for rank in self.config.ranks:
                training = self.config.training(solver, rank)
                needed = PROCESS_BYTES + train_bytes(training, users, items, pairs, weighted=False)
                if needed > self.limit:
                    raise BusyError(
                        f"{solver} of rank {rank} on {pairs:,} pairs needs about {size_text(needed)}: give "
                        f"--memory-limit {o.limit_text(needed)} or less of it"
                    )

    def _measured(
        self,
        data: Data | None,
        planned: Sequence[Heading],
        sizes: Sequence[Size],
        devices: Sequence[str],
        folder: Path,
        backend: Kernels,
    ) -> dict[str, Any]:
        from recli.bench.bench import Bench
        from recli.bench.conditions import Conditions
        from recli.bench.machine import measure
        from recli.bench.races import RUN
        from recli.bench.report import document, machine_line
        from recli.bench.scale import exponents, scale_rows

        machine = measure(self.workers)
        self.console.note(machine_line({"machine": machine._asdict()}))
        entries = [entry for heading in planned for entry in heading.entries if entry.is_ok]
        scouts = sum(len(heading.entries) for heading in planned if heading.race == "objective")
        total = (len(entries) + len(sizes)) * (1 + self.config.repeats) + scouts
        with self.console.progress("run", total) as advance:
            done = 0

            def on_run(what: str) -> None:
                nonlocal done
                advance(min(done, total - 1), what)
                done += 1

            conditions = Conditions(self.config, devices, self.workers, folder, machine, backend, self.limit, on_run)
            rows: list[dict[str, Any]] = []
            if data:
                data.save(folder)
                bench = Bench(conditions, data)
                for row in bench.rows(planned, RUN):
                    self._say_row(row)
                    rows.append(row)
                bench.compare()
            grown = scale_rows(conditions, sizes)
            advance(total, "")
        more = {"scale": exponents(grown)} if sizes else {}
        about = data.about if data else {"source": "scale", "seed": self.config.seed}
        return document(self.config, about, machine, [*rows, *grown], more)

    def _compared(self, report: dict[str, Any], old: dict[str, Any], gates: Sequence[Any]) -> dict[str, Any]:
        from recli.bench import baseline

        path = self.flags["baseline"]
        others = baseline.differences(report, old)
        for other in others:
            self.console.note(f"{path} was made differently: {other}")
        failed = baseline.failures(gates, report["rows"], old["rows"], path)
        return {
            "baseline": os.path.basename(path),
            "gates": [gate.text for gate in gates],
            "failed": failed,
            "differs": others,
        }

    def _say_missing(self, planned: Sequence[Heading]) -> None:
        missing = {
            entry.contestant: entry.status for heading in planned for entry in heading.entries if not entry.is_ok
        }
        for name, status in missing.items():
            self.console.note(f"{name} {status}")

    def _say_row(self, row: Mapping[str, Any]) -> None:
        if not row["status"].startswith(("ok", "not installed")):
            self.console.note(f"{row['contestant']} in {row['race']} {row['status']}")

    def _say_plan(self, planned: Sequence[Heading], sizes: Sequence[Size]) -> None:
        heats = []
        for heading in planned:
            names = [entry.contestant for entry in heading.entries if entry.is_ok]
            about = "".join(f" {name} {value}" for name, value in heading.about.items())
            heats.append(f"{heading.race}{about}: {', '.join(names)}")
        heats += [f"scale {size}: recli" for size in sizes]
        for heat in heats:
            self.console.note(f"plan: {heat}")
        self.console.note(
            f"plan: each {self.config.repeats} times after one to warm up, to {self.path}; nothing written",
            fields={"plan": heats},
        )
        if self.flags["json_"]:
            print_json({**self.console.finish(), "output": self.path, "config": self.config.semantic()})
