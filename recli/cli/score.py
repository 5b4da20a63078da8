"""recli score: its flags, and which of the modes they ask for (score_lists.py, score_parts.py,
score_pairs.py, score_similar.py)."""

from __future__ import annotations

from typing import Annotated

import typer

from recli.cli import options as o
from recli.cli.score_job import Job
from recli.config import ScoreConfig

D = ScoreConfig()
EXAMPLES = """Examples:

\b
  recli score ratings.factors.npz -k 10 -o recs.parquet
  recli score ratings.factors.npz --users todays_users.csv -o recs.csv
  recli score ratings.factors.npz --truth test.parquet -k 20
  recli score ratings.factors.npz --history new.csv --explain 3 -o recs.csv
  recli score ratings.factors.npz --pairs test.parquet --truth test.parquet
  recli score ratings.factors.npz --similar all -k 5 -o similar.csv
  recli factorize ratings.csv -o - | recli score - -o - --output-format ndjson
  recli score ratings.factors.npz -o recs.csv --expect "churn < 0.6"
  recli score ratings.factors.npz --parts 8 -o recs/
  recli score ratings.factors.npz --adapter delta.npz -o recs.parquet
"""
app = o.app()


@app.command(cls=o.Command, epilog=EXAMPLES + o.EPILOG)
def score(
    ctx: typer.Context,
    factors: Annotated[str, typer.Argument(metavar="FACTORS", help="A model that factorize wrote, or - (stdin).")],
    output: o.OutputPath = None,
    k: Annotated[int, o.option("--k", "-k", help="Items a user.")] = D.k,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="<file>",
            help="A delta that recli finetune trained on this model. Can be given again, for one on top of the others; "
            "a head comes last, for --pairs or to rerank lists.",
        ),
    ] = None,
    features: Annotated[
        str | None,
        o.option(
            "--features",
            help="Folder of featurize --apply: its users and items that have no interactions get rows from their "
            "attributes, by an --adapter of features.",
        ),
    ] = None,
    users: Annotated[
        str | None,
        o.option("--users", help="Score these users only: a table, or ids one a line; - is stdin [default: all]."),
    ] = None,
    history: Annotated[
        str | None,
        o.option("--history", help="Interactions of users that the model has never seen: they get lists from these."),
    ] = None,
    pairs: Annotated[
        str | None, o.option("--pairs", help="Predict the user-item pairs of this table, instead of lists.")
    ] = None,
    similar: Annotated[
        str | None,
        o.option("--similar", help="Nearest items by cosine of these items (a table, ids, or all), instead of lists."),
    ] = None,
    similar_users: Annotated[
        str | None, o.option("--similar-users", help="Nearest users by cosine of these users, instead of lists.")
    ] = None,
    truth: Annotated[
        str | None,
        o.option(
            "--truth",
            help="Held-out interactions: score their users and print recall, ndcg, ...; -o writes the lists too. "
            "With --pairs: their ratings, for rmse and mae.",
        ),
    ] = None,
    truth_where: Annotated[str | None, o.option("--truth-where", help="SQL condition on rows of --truth.")] = None,
    keep_seen: Annotated[bool, o.option("--keep-seen", help="Recommend also what a user has already.")] = False,
    allow: Annotated[
        str | None, o.option("--allow", help="Recommend these items only: a table, or ids one a line.")
    ] = None,
    deny: Annotated[str | None, o.option("--deny", help="Never recommend these items: a table, or ids.")] = None,
    deny_pairs: Annotated[
        str | None, o.option("--deny-pairs", help="Table of users and items that they must not get.")
    ] = None,
    items: Annotated[
        str | None, o.option("--items", help="Item table, for --where and --max-per: ids and attributes.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where", help='Recommend items that meet an SQL condition on --items: "in_stock and price < 50".'
        ),
    ] = None,
    max_per: Annotated[
        str | None,
        o.option(
            "--max-per",
            help="At most so many items of one value in a list, as category=3 or category=3,brand=2; those without a "
            "value are not capped.",
        ),
    ] = None,
    min_score: Annotated[float | None, o.option("--min-score", help="End lists where scores fall below this.")] = None,
    explain: Annotated[
        int, o.option("--explain", help="Name so many items of the user's past that contribute most to each score.")
    ] = D.explain,
    shard: Annotated[
        str | None, o.option("--shard", help="Score the i-th of n parts of the users only, as 3/8 (from 1/8 to 8/8).")
    ] = None,
    parts: Annotated[
        int | None,
        o.option("--parts", help="Write a folder of so many files; the same command goes on where it was stopped."),
    ] = None,
    index: Annotated[
        str | None,
        o.option(
            "--index",
            help="File (NPZ) of what scoring prepares of the model, for quick starts: made if it is not there, else "
            "mapped.",
        ),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="<gate>",
            help='Publish only if this holds, as "users >= 0.9 * previous", "coverage > 0.2" or "churn < 0.6"; else '
            "exit with 3. Of rows, users, items, coverage, popular, short, churn, and metrics such as recall@10 with "
            "--truth. Can be given again.",
        ),
    ] = None,
    previous: Annotated[
        str | None, o.option("--previous", help="The lists that --expect compares with [default: the old output].")
    ] = None,
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

    Rows are user, item, rank (from 1), score and reason: model, history for a user folded in from --history, or popular
    for a user that is not known at all. With --explain also because and because_score: past items, most important
    first, and their parts of the score (lists; in CSV with | between them).
    """
    job = Job.of(ctx)
    if job.mode == "pairs":
        from recli.cli.score_pairs import run
    elif job.mode in ("similar", "similar_users"):
        from recli.cli.score_similar import run
    elif job.folder:
        from recli.cli.score_parts import run
    else:
        from recli.cli.score_lists import run
    run(job)
