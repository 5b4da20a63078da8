"""recli score: config -> read -> kernels -> top-K blocks -> write, and measure on the way."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from recli.cli import options as o
from recli.cli.console import Console, print_json, print_table
from recli.config import ScoreConfig
from recli.errors import UsageError

if TYPE_CHECKING:
    from recli.artifacts import Factors, Scores
    from recli.io import Users

D = ScoreConfig()
SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
EXAMPLES = """Examples:

\b
  recli score ratings.factors.npz -k 10 -o recs.parquet
  recli score ratings.factors.npz --users todays_users.csv -o recs.csv
  recli score ratings.factors.npz --truth test.parquet -k 20
  recli factorize ratings.csv -o - | recli score - -o - --output-format ndjson
"""
app = o.app()


@app.command(cls=o.Command, epilog=EXAMPLES + o.EPILOG)
def score(
    ctx: typer.Context,
    factors: Annotated[str, typer.Argument(metavar="FACTORS", help="A model that factorize wrote, or - (stdin).")],
    output: o.OutputPath = None,
    k: Annotated[int, o.option("--k", "-k", help="Items a user.")] = D.k,
    users: Annotated[
        str | None,
        o.option("--users", help="Score these users only: a table, or ids one a line; - is stdin [default: all]."),
    ] = None,
    truth: Annotated[
        str | None,
        o.option(
            "--truth",
            help="Held-out interactions: score their users and print recall, ndcg, ...; -o writes the lists too.",
        ),
    ] = None,
    truth_where: Annotated[str | None, o.option("--truth-where", help="SQL condition on rows of --truth.")] = None,
    keep_seen: Annotated[bool, o.option("--keep-seen", help="Recommend also what a user has already.")] = False,
    columns: o.Columns = None,
    no_header: o.NoHeader = False,
    output_format: Annotated[
        str | None, o.option("--output-format", help="parquet, csv or ndjson [default: by suffix; parquet for -].")
    ] = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    memory_limit: o.MemoryLimit = None,
    no_clobber: o.NoClobber = False,
    dry_run: o.DryRun = False,
    json_: o.Json = False,
    stats: o.Stats = None,
    log_format: o.LogFormat = "text",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    debug: o.Debug = False,
) -> None:
    """A model to recommendations: exact top-K lists for all or chosen users, and their quality on held-out data.

    Rows are user, item, rank (from 1), score and reason: model, or popular for a user that the model does not know.
    """
    console = Console.of("score", ctx.params)
    config = o.pick(ScoreConfig, ctx.params)
    reading = o.read_config(ctx.params, where=truth_where)
    limit = o.parse_size(memory_limit)
    workers = o.limit_threads(threads)
    o.check_paths((factors, users, truth), output, stats, json_)
    path = output or (None if truth else o.default_output([factors], ".recs.parquet"))
    format = _format(path, output_format)
    if [factors, users, truth].count("-") > 1:
        raise UsageError("only one of FACTORS, --users and --truth can be - (stdin)")
    if truth_where is not None and truth is None:
        raise UsageError(f"--truth-where {truth_where!r}: there is no --truth for it to filter")

    from recli import io, kernels  # heavy: numpy, scipy and polars
    from recli.artifacts import Factors
    from recli.metrics import RankingQuality
    from recli.score import block_users, recommend

    o.let_ctrl_c_through()
    device_name, reason = kernels.choose(device)
    inputs = tuple(given for given in (factors, users, truth) if given)
    with contextlib.ExitStack() as stack:
        out = (
            stack.enter_context(io.output(path, inputs=inputs, no_clobber=no_clobber, binary=format == "parquet"))
            if path
            else None
        )
        write_stats = stack.enter_context(io.json_output(stats))
        found = stack.enter_context(io.source([factors]))
        model = io.read_artifact(found, Factors)
        truth_users, held_out = (
            io.read_truth(stack.enter_context(io.source([truth])), model, reading) if truth else (None, None)
        )
        chosen = io.read_users(stack.enter_context(io.source([users])), model, reading) if users else truth_users
        wanted = chosen or io.everyone(model)
        _say_what_was_read(console, model, wanted)
        console.note_device(device, device_name, reason, workers)
        size = block_users(model, config, limit)
        with o.about(found.name):
            lists = recommend(model, wanted.nums, config, stack.enter_context(kernels.load(device_name, workers)), size)
        if dry_run:
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
        elif quality and not (quiet and path == "-"):
            rows = {name: f"{value:.4f}" for name, value in metrics.items()}
            print_table(f"{quality.users:,} users with held-out items", rows, sys.stderr if path == "-" else sys.stdout)


def _format(path: str | None, asked: str | None) -> str:
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


def _say_what_was_read(console: Console, model: Factors, wanted: Users) -> None:
    unknown = int((wanted.nums < 0).sum())
    fallback = f"; users that are not in the model get the most popular items: {unknown:,}" if unknown else ""
    counts = {"users": len(wanted.nums), "unknown_users": unknown, "items": len(model.item_ids)}
    console.note(
        f"{len(wanted.nums):,} users, {len(model.item_ids):,} items, rank {model.P.shape[1]}{fallback}", fields=counts
    )
