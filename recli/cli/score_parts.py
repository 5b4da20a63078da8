"""recli score into a folder of parts: those that an earlier run of the same command left are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from recli.cli import options as o
from recli.cli.score_job import INPUTS, Job
from recli.cli.score_lists import Listing, say_plan
from recli.cli.shards import NEUTRAL, Shard, run_key, shards

if TYPE_CHECKING:
    from recli.io import PartFolder


def run(job: Job) -> None:
    from recli import io  # heavy: numpy, scipy and polars

    o.let_ctrl_c_through()
    assert job.path
    every = shards(job.shard.total if job.shard else job.flags["parts"])
    inputs = {name: job.flags[name] for name in INPUTS if job.flags[name] and name not in NEUTRAL}
    with ExitStack() as stack:
        folder = io.PartFolder(job.path, [file_name(shard) for shard in every])
        dry = job.flags["dry_run"]
        if not dry:
            folder.make()
        # the manifest is the lock of the folder, too; a single shard shares it with others
        whole = not dry and not job.shard
        write_manifest = stack.enter_context(io.json_output(folder.manifest if whole else None))
        write_stats = stack.enter_context(io.json_output(job.flags["stats"]))
        hashes = io.hash_inputs({o.flag(name): path for name, path in inputs.items()})
        listing = Listing(job, stack)
        flags = {name: value for name, value in job.flags.items() if name not in OF_THE_CHAIN}
        key = run_key(flags, dict(zip(inputs, hashes.values(), strict=True)), listing.backend.name)
        key |= {"chain": list(listing.chain)}
        parts = Parts(job, folder, listing, key)
        wanted = [job.shard] if job.shard else every
        first, end = wanted[0].bounds(listing.users)[0], wanted[-1].bounds(listing.users)[1]
        lists = f"{end - first:,} lists"
        if dry:
            there = sum(parts.differing(shard) == [] for shard in wanted)
            plan = f"{lists} of {job.config.k} to {len(wanted)} parts in {job.path}, {there} of which are there"
            say_plan(job, plan, listing)
            return
        with job.console.progress("users", end - first) as advance:
            for shard in wanted:
                parts.make(shard, lambda done, text: advance(done - first, text))
        if whole:
            files = folder.describe()
            rows = sum(file["rows"] for file in files)
            write_manifest({"kind": "parts", "version": 1, "rows": rows, "files": files, "key": key})
        job.console.note(
            f"wrote {len(wanted) - parts.skipped} of {len(wanted)} parts to {job.path}: {lists}; "
            f"{job.console.seconds():.1f} s",
            fields={"output": job.path, "parts": len(wanted), "skipped_parts": parts.skipped},
        )
        listing.report(write_stats, {})


OF_THE_CHAIN = ("adapter", "features")  # whose content counts, not the names


class Parts:
    """The parts of a folder, made where they are not there. key: of the run."""

    def __init__(self, job: Job, folder: PartFolder, listing: Listing, key: Mapping[str, Any]) -> None:
        self._job, self._folder, self._listing, self._key = job, folder, listing, key
        self.skipped = 0

    def differing(self, shard: Shard) -> list[str] | None:
        return self._folder.differing(file_name(shard), self._part_key(shard))

    def make(self, shard: Shard, advance: Callable[[int, str], None]) -> None:
        """Writes a part, or reads it where the same run has been here."""
        from recli import io

        job, listing, path = self._job, self._listing, self._folder.file(file_name(shard))
        start, end = shard.bounds(listing.users)
        table = listing.table(start, end)
        differing = self.differing(shard)
        no_clobber = job.flags["no_clobber"] and differing != []
        with io.output(path, inputs=job.inputs, no_clobber=no_clobber) as out:
            if differing == []:
                job.console.note(f"part {shard} is there: skipped")
                self.skipped += 1
                listing.add_written(io.Published(io.Source(path, (path,), "parquet"), table.schema), start, end)
                advance(end, "")
                return
            if differing:
                job.console.note(f"part {shard} is of another run ({', '.join(differing)}): replaced")
            self._folder.drop_manifest()
            lists = listing.watched(listing.lists(start, end), start, advance)
            metadata = io.footer(self._part_key(shard))
            out.write(
                lambda file: io.write_scores(map(table.frame, lists), table.schema, "parquet", file, metadata=metadata)
            )

    def _part_key(self, shard: Shard) -> dict[str, Any]:
        return {**self._key, "part": str(shard)}


def file_name(shard: Shard) -> str:
    return f"{shard.name}.parquet"
