"""recli score: top-K lists, block by block, measured on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from recli.cli import options as o
from recli.cli.console import Console, print_json, print_table
from recli.cli.score_job import Job
from recli.cli.score_request import Request, read_request

if TYPE_CHECKING:
    from recli import io
    from recli.artifacts import Factors, Scores
    from recli.metrics import RankingQuality


def run(job: Job) -> None:
    from recli import io, kernels  # heavy: numpy, scipy and polars
    from recli.artifacts import Factors
    from recli.metrics import RankingQuality
    from recli.score import block_users, recommend

    o.let_ctrl_c_through()
    console, config = job.console, job.config
    device, why = kernels.choose(job.flags["device"])
    with ExitStack() as stack:
        out = stack.enter_context(_output(job, job.path)) if job.path else None
        write_stats = stack.enter_context(io.json_output(job.flags["stats"]))
        found = stack.enter_context(io.source([job.flags["factors"]]))
        model = io.read_artifact(found, Factors)
        request = read_request(job, model, stack)
        _say_what_was_read(console, model, request)
        console.note_device(job.flags["device"], device, why, job.workers)
        size = block_users(model, config, job.limit)
        with o.about(found.name):
            backend = stack.enter_context(kernels.load(device, job.workers))
            lists = recommend(model, request.audience, request.catalogue, config, backend, size)
        if job.flags["dry_run"]:
            _say_plan(job, len(request.audience), size)
            return
        quality = RankingQuality(config.k, model.item_counts, len(model.user_ids)) if request.truth else None
        short = ShortLists()
        with console.progress("users", len(request.audience)) as advance:
            lists = short.count(_measured(lists, request, quality, advance))
            if out:
                table = io.ScoreTable(request.users, model)
                out.write(lambda file: io.write_scores(map(table.frame, lists), table.schema, job.format, file))
            else:
                for _ in lists:
                    pass
        if out:
            console.note(
                f"wrote {o.shown(job.path)}: {len(request.audience):,} lists; {console.seconds():.1f} s",
                fields={"output": job.path},
            )
        short.say(job)
        metrics = quality.result() if quality else {}
        judged = {"judged_users": quality.users} if quality else {}
        result = {**console.finish(), "k": config.k, **judged, **metrics}
        write_stats(result)
        if job.flags["json_"]:
            print_json(result)
        elif quality and not (job.flags["quiet"] and job.path == "-"):
            rows = {name: f"{value:.4f}" for name, value in metrics.items()}
            stream = sys.stderr if job.path == "-" else sys.stdout
            print_table(f"{quality.users:,} users with held-out items", rows, stream)


def _output(job: Job, path: str) -> AbstractContextManager[io.Output]:
    from recli import io

    return io.output(path, inputs=job.inputs, no_clobber=job.flags["no_clobber"], binary=job.format == "parquet")


def _say_what_was_read(console: Console, model: Factors, request: Request) -> None:
    users = request.users
    unknown = int((users.nums < 0).sum())
    fallback = f"; users that are not in the model get the most popular items: {unknown:,}" if unknown else ""
    counts = {"users": len(users.nums), "unknown_users": unknown, "items": len(model.item_ids)}
    console.note(
        f"{len(users.nums):,} users, {len(model.item_ids):,} items, rank {model.P.shape[1]}{fallback}", fields=counts
    )


def _say_plan(job: Job, users: int, size: int) -> None:
    job.console.note(
        f"plan: {users:,} lists of {job.config.k} to {job.path or 'nowhere (quality only)'}, "
        f"{size:,} users at a time; nothing written"
    )
    if job.flags["json_"]:
        plan = {"output": job.path, "block_users": size, "config": job.config.semantic()}
        print_json({**job.console.finish(), **plan})


def _measured(
    lists: Iterator[Scores], request: Request, quality: RankingQuality | None, advance: Callable[[int, str], None]
) -> Iterator[Scores]:
    """The same blocks; on the way they are compared with the truth."""
    from recli import io

    at = io.positions(request.users.ids, request.truth[0].ids) if request.truth else None
    for block in lists:
        end = block.start + len(block.items)
        if quality and request.truth and at is not None:
            quality.add(block.items, request.truth[1].rows(at[block.start : end]))
        yield block
        advance(end, "")


class ShortLists:
    """How many lists end before their k-th place."""

    def __init__(self) -> None:
        self.number = 0

    def count(self, lists: Iterator[Scores]) -> Iterator[Scores]:
        for block in lists:
            self.number += int((block.items[:, -1] < 0).sum())
            yield block

    def say(self, job: Job) -> None:
        if self.number:
            job.console.note(
                f"{self.number:,} lists are shorter than {job.config.k}: nothing else is left to recommend",
                fields={"short_lists": self.number},
            )
