"""recli score: top-K lists, block by block, measured on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO

from recli.cli import options as o
from recli.cli.console import print_json
from recli.cli.score_gates import Gates
from recli.cli.score_head import head_of
from recli.cli.score_index import make_index, read_model
from recli.cli.score_job import Job
from recli.cli.score_quality import HeldOut
from recli.cli.score_request import Request, read_request
from recli.errors import GateError, about

if TYPE_CHECKING:
    from recli.artifacts import Factors, Scores
    from recli.io import Published, ScoreTable


def run(job: Job) -> None:
    from recli import io  # heavy: numpy, scipy and polars

    o.let_ctrl_c_through()
    with ExitStack() as stack:
        out, write_stats = job.outputs(stack)
        gates = Gates(job, stack)
        listing = Listing(job, stack)
        table = listing.table(0, listing.users)
        gates.prepare(listing.request, listing.model, table.schema)
        lists = listing.lists(0, listing.users)
        if job.flags["dry_run"]:
            say_plan(
                job, f"{listing.users:,} lists of {job.config.k} to {job.path or 'nowhere (quality only)'}", listing
            )
            return
        failure = None
        with job.console.progress("users", listing.users) as advance:
            lists = listing.watched(lists, 0, advance)

            def fill(file: BinaryIO) -> None:
                io.write_scores(map(table.frame, lists), table.schema, job.format, file)
                gates.judge(io.written(file, job.format, o.shown(job.path)), listing.metrics())

            try:
                if out:
                    out.write(fill)
                else:
                    for _ in lists:
                        pass
                    gates.judge(None, listing.metrics())
            except GateError as error:
                failure = error
        if out and not failure:
            job.console.note(
                f"wrote {o.shown(job.path)}: {listing.users:,} lists; {job.console.seconds():.1f} s",
                fields={"output": job.path},
            )
        listing.report(write_stats, gates.result)
        if failure:
            raise failure


class Listing:
    """What lists are made of, read once, and how they turn out: all at once, or part by part."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        from recli import io, kernels
        from recli.score import Explainer, Recommender, block_users, fold_in

        self._job, console, config = job, job.console, job.config
        device, why = kernels.choose(job.flags["device"])
        found = stack.enter_context(io.source([job.flags["factors"]]))
        self._file, (adapted, prepared) = found.name, read_model(job, found)
        self.model, self.chain = adapted.factors, adapted.chain
        self.request = read_request(job, self.model, stack)
        self.backend = stack.enter_context(kernels.load(device, job.workers, job.limit))
        with about(job.flags["history"]):
            self.request = self.request.folded(fold_in(self.request.audience, self.model, self.backend))
        if job.shard and not job.folder:  # after folding: the last bit of a row may depend on the others of its batch
            self.request = self.request.part(*job.shard.bounds(len(self.request.audience)))
        _say_what_was_read(job, self.model, self.request)
        console.note_device(job.flags["device"], device, why, job.workers)
        self.block = block_users(self.model, self.request.audience, self.request.catalogue, config, job.limit)
        with about(found.name):
            if job.flags["index"] and prepared is None and not job.flags["dry_run"]:
                prepared = make_index(job, adapted, self.backend)
            head = head_of(job, adapted)
            self.recommender = Recommender(self.model, self.request.catalogue, config, self.backend, prepared, head)
            self._explainer = Explainer(self.model) if config.explain and job.path else None
        self.users = len(self.request.audience)
        self.held_out = HeldOut(self.request, self.model, config.k) if self.request.truth else None
        self.short = 0

    def lists(self, start: int, end: int) -> Iterator[Scores]:
        """The lists of the users from position start to end; what cannot work is raised at once."""
        audience, count = self.request.audience.part(start, end), self._job.config.explain
        with about(self._file):
            lists = self.recommender.lists(audience, self.block)
            return self._explainer.explain(lists, audience, count) if self._explainer else lists

    def table(self, start: int, end: int) -> ScoreTable:
        """What turns their blocks into rows."""
        from recli import io

        users = self.request.users.part(start, end)
        return io.ScoreTable(users, self.model, explained=self._explainer is not None, format=self._job.format)

    def watched(self, lists: Iterator[Scores], start: int, advance: Callable[[int, str], None]) -> Iterator[Scores]:
        """The same blocks, whose first user has position start; on the way they are measured."""
        for block in lists:
            first = start + block.start
            self.short += int((block.items[:, -1] < 0).sum())
            if self.held_out:
                self.held_out.add(first, block.items)
            yield block
            advance(first + len(block.items), "")

    def add_written(self, part: Published, start: int, end: int) -> None:
        """Lists of an earlier run, measured like those of this one."""
        from recli import io

        users, k = self.request.users.part(start, end).ids, self._job.config.k
        self.short += len(users) - part.full(k)
        if self.held_out:
            self.held_out.add(start, part.lists(users, io.to_series(self.model.item_ids, "item"), k))

    def metrics(self) -> dict[str, float]:
        return self.held_out.metrics() if self.held_out else {}

    def report(self, write_stats: Callable[[dict[str, Any]], None], more: dict[str, Any]) -> None:
        """The result, once there is one: for --stats, --json, or to be read."""
        job, k = self._job, self._job.config.k
        if self.short:
            least = "" if job.config.min_score is None else " that scores at least --min-score"
            job.console.note(
                f"{self.short:,} lists are shorter than {k}: nothing else is left to recommend{least}",
                fields={"short_lists": self.short},
            )
        judged = {"judged_users": self.held_out.users} if self.held_out else {}
        result = {**job.console.finish(), "k": k, **judged, **self.metrics(), **more}
        write_stats(result)
        if job.flags["json_"]:
            print_json(result)
        elif self.held_out and not (job.flags["quiet"] and job.path == "-"):
            self.held_out.show(job)


def _say_what_was_read(job: Job, model: Factors, request: Request) -> None:
    users, folded = request.users, request.audience.folded_at
    unknown = int(((users.nums < 0) if folded is None else (users.nums < 0) & (folded < 0)).sum())
    new = 0 if folded is None else int((folded >= 0).sum())
    fallback = f"; users folded in from --history: {new:,}" if folded is not None else ""
    fallback += f"; users that are not in the model get the most popular items: {unknown:,}" if unknown else ""
    of = f" of part {job.shard}" if job.shard and not job.folder else ""
    counts = {"users": len(users.nums), "unknown_users": unknown, "items": len(model.item_ids)}
    counts |= {"folded_users": new} if folded is not None else {}
    shard = {"shard": str(job.shard)} if job.shard else {}
    job.console.note(
        f"{len(users.nums):,} users{of}, {len(model.item_ids):,} items, rank {model.P.shape[1]}{fallback}",
        fields={**counts, **shard},
    )


def say_plan(job: Job, plan: str, listing: Listing) -> None:
    job.console.note(f"plan: {plan}, {listing.block:,} users at a time; nothing written")
    if job.flags["json_"]:
        shown = {"output": job.path, "block_users": listing.block, "config": job.config.semantic()}
        print_json({**job.console.finish(), **shown})
