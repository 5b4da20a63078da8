"""recli score: top-K lists, block by block, measured on the way."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recli.cli import options as o
from recli.cli.console import Console, print_json, print_table
from recli.cli.score_job import Job

if TYPE_CHECKING:
    from recli.artifacts import Factors, Scores
    from recli.io import Users


def run(job: Job) -> None:
    console, config, reading, path, format, flags = (
        job.console,
        job.config,
        job.reading,
        job.path,
        job.format,
        job.flags,
    )
    k, users, truth, json_ = config.k, flags["users"], flags["truth"], flags["json_"]

    from recli import io, kernels  # heavy: numpy, scipy and polars
    from recli.artifacts import Factors
    from recli.metrics import RankingQuality
    from recli.score import block_users, recommend

    o.let_ctrl_c_through()
    device_name, reason = kernels.choose(flags["device"])
    with contextlib.ExitStack() as stack:
        out = (
            stack.enter_context(
                io.output(path, inputs=job.inputs, no_clobber=flags["no_clobber"], binary=format == "parquet")
            )
            if path
            else None
        )
        write_stats = stack.enter_context(io.json_output(flags["stats"]))
        found = stack.enter_context(io.source([flags["factors"]]))
        model = io.read_artifact(found, Factors)
        truth_users, held_out = (
            io.read_truth(stack.enter_context(io.source([truth])), model, reading) if truth else (None, None)
        )
        chosen = io.read_users(stack.enter_context(io.source([users])), model, reading) if users else truth_users
        wanted = chosen or io.everyone(model)
        _say_what_was_read(console, model, wanted)
        console.note_device(flags["device"], device_name, reason, job.workers)
        size = block_users(model, config, job.limit)
        with o.about(found.name):
            lists = recommend(
                model, wanted.nums, config, stack.enter_context(kernels.load(device_name, job.workers)), size
            )
        if flags["dry_run"]:
            console.note(
                f"plan: {len(wanted.nums):,} lists of {k} to {path or 'nowhere (quality only)'}, "
                f"{size:,} users at a time; nothing written"
            )
            if json_:
                print_json({**console.finish(), "output": path, "block_users": size, "config": config.semantic()})
            return
        quality = RankingQuality(k, model.item_counts, len(model.user_ids)) if held_out else None
        at = io.positions(wanted.ids, truth_users.ids) if truth_users else None
        short = 0

        def blocks(advance: Callable[[int, str], None]) -> Iterator[Scores]:
            nonlocal short
            for block in lists:
                end = block.start + len(block.items)
                short += int((block.items[:, -1] < 0).sum())
                if quality and held_out and at is not None:
                    quality.add(block.items, held_out.rows(at[block.start : end]))
                yield block
                advance(end, "")

        with console.progress("users", len(wanted.nums)) as advance:
            if out:
                table = io.ScoreTable(wanted, model)
                out.write(lambda file: io.write_scores(map(table.frame, blocks(advance)), table.schema, format, file))
            else:
                for _ in blocks(advance):
                    pass
        if out:
            console.note(
                f"wrote {o.shown(path)}: {len(wanted.nums):,} lists; {console.seconds():.1f} s", fields={"output": path}
            )
        if short:
            console.note(
                f"{short:,} lists are shorter than {k}: nothing else is left to recommend",
                fields={"short_lists": short},
            )
        metrics = quality.result() if quality else {}
        result = {**console.finish(), "k": k, **({"judged_users": quality.users} if quality else {}), **metrics}
        write_stats(result)
        if json_:
            print_json(result)
        elif quality and not (flags["quiet"] and path == "-"):
            rows = {name: f"{value:.4f}" for name, value in metrics.items()}
            print_table(f"{quality.users:,} users with held-out items", rows, sys.stderr if path == "-" else sys.stdout)


def _say_what_was_read(console: Console, model: Factors, wanted: Users) -> None:
    unknown = int((wanted.nums < 0).sum())
    fallback = f"; users that are not in the model get the most popular items: {unknown:,}" if unknown else ""
    counts = {"users": len(wanted.nums), "unknown_users": unknown, "items": len(model.item_ids)}
    console.note(
        f"{len(wanted.nums):,} users, {len(model.item_ids):,} items, rank {model.P.shape[1]}{fallback}", fields=counts
    )
