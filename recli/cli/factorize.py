"""recli factorize: config -> read -> kernels -> solver -> write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recli.cli import options as o
from recli.cli.console import Console, print_json, size_text
from recli.config import FactorizeConfig
from recli.errors import BusyError, UsageError

if TYPE_CHECKING:
    from recli.io import ReadReport

D = FactorizeConfig()
EXAMPLES = """Examples:

\b
  recli factorize ratings.parquet --rank 100
  recli factorize ratings.csv --where "rating >= 4" --rank 256 --reg 0.002
  recli factorize 'logs/*.csv.gz' --columns user=uid,item=sku -o model.npz
  recli factorize plays.parquet --weight minutes --loss hu --dry-run
"""
app = o.app()


@app.command(cls=o.Command, epilog=EXAMPLES + o.EPILOG)
def factorize(
    ctx: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Ratings tables: files, folders, globs, s3:// addresses, or - (stdin)."),
    ],
    output: o.OutputPath = None,
    solver: Annotated[str, o.option("--solver", help="ials, or pop (the popularity baseline).")] = D.solver,
    rank: Annotated[int, o.option("--rank", help="Factors of each user and item.")] = D.rank,
    loss: Annotated[str, o.option("--loss", help="ials: rendle (2022), or hu (Hu, Koren, Volinsky 2008).")] = D.loss,
    reg: Annotated[
        float | None,
        o.option("--reg", help="ials, als: regularisation; larger is smoother [default: 0.01; als: 0.05]."),
    ] = None,
    nu: Annotated[float, o.option("--nu", help="ials: how regularisation grows with activity, 0 (not) to 1.")] = D.nu,
    alpha: Annotated[
        float | None, o.option("--alpha", help="ials: weigh each pair alpha times its rating [default: 1 a pair].")
    ] = None,
    alpha0: Annotated[
        float | None,
        o.option("--alpha0", help="ials: weight of unobserved pairs [default: 8 times the density of the data]."),
    ] = None,
    weight: Annotated[
        str | None, o.option("--weight", help="Column of confidence weights, instead of --alpha.")
    ] = None,
    iterations: Annotated[int, o.option("--iterations", help="ials: sweeps over users and items.")] = D.iterations,
    tol: Annotated[
        float, o.option("--tol", help="ials: stop once the objective falls by less than this share.")
    ] = D.tol,
    seed: Annotated[int, o.option("--seed", help="Seed of the initial factors.")] = D.seed,
    no_seen: Annotated[bool, o.option("--no-seen", help="Leave the users' own items out of the model file.")] = False,
    where: Annotated[str | None, o.option("--where", help='SQL condition on rows, such as "rating >= 3".')] = None,
    duplicates: Annotated[
        str,
        o.option(
            "--duplicates",
            help="Rows that repeat a user and item: last (by timestamp), first, sum, mean, max or error.",
        ),
    ] = "last",
    columns: o.Columns = None,
    no_header: o.NoHeader = False,
    input_format: o.InputFormat = None,
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
    """Ratings to a low-rank model: learns factors of users and items, and writes them to one NPZ file."""
    console = Console.of("factorize", ctx.params)
    config = o.pick(FactorizeConfig, ctx.params, seen=not no_seen)
    reading = o.read_config(ctx.params)
    limit = o.parse_size(memory_limit)
    workers = o.limit_threads(threads)
    o.check_paths(inputs, output, stats, json_)
    path = output or o.default_output(inputs, ".factors.npz")
    if path.lower().endswith(o.TABLES):
        raise UsageError(f"-o {path}: a model is an NPZ file: give it a name that ends in .npz")
    if alpha is not None and weight:
        raise UsageError("--alpha and --weight exclude each other")

    from recli import io, kernels  # heavy: numpy, scipy and polars
    from recli.factorize import Progress, Watch, estimate
    from recli.factorize import factorize as run

    o.let_ctrl_c_through()
    device_name, reason = kernels.choose(device)
    with io.output(path, inputs=tuple(inputs), no_clobber=no_clobber) as out, io.json_output(stats) as write_stats:
        with io.source(inputs, reading.format) as found:
            out.refuse(found.files)
            interactions, report = io.read_interactions(found, reading)
        _say_what_was_read(console, report)
        console.note_device(device, device_name, reason, workers)
        plan = estimate(config, report.users, report.items, report.pairs, workers)
        if limit is not None and plan.bytes > limit:
            raise BusyError(
                f"rank {config.rank} needs about {size_text(plan.bytes)}, --memory-limit is {memory_limit}: "
                f"give --memory-limit {o.limit_text(plan.bytes)} or a smaller --rank"
            )
        if dry_run:
            work = f", rank {config.rank}, {config.iterations} iterations" if config.solver == "ials" else ""
            console.note(
                f"plan: {config.solver}{work}; about {plan.seconds:.1f} s, {size_text(plan.bytes)} of memory, "
                f"{size_text(plan.output_bytes)} to {path}; nothing written",
                fields={"plan": plan._asdict()},
            )
            if json_:
                print_json({**console.finish(), "output": path, "config": config.semantic()})
            return
        total = config.iterations if config.solver == "ials" else 1
        with (
            o.about(found.name),
            kernels.load(device_name, workers) as backend,
            console.progress("iteration", total) as advance,
        ):

            def on_progress(progress: Progress) -> None:
                advance(progress.done, f"objective {progress.objective:.6g}")

            factors, fit = run(interactions, config, backend, Watch(on_progress=on_progress))
        out.write(lambda file: io.write_npz(factors, file))
        result: dict[str, Any] = {
            "output": path,
            "users": report.users,
            "items": report.items,
            "pairs": report.pairs,
            "solver": config.solver,
            "rank": factors.P.shape[1],
            "iterations": len(fit.objectives),
            "objective": fit.objectives[-1] if fit.objectives else None,
            **fit.settings,
        }
        console.stats.update(result)
        console.note(
            f"wrote {o.shown(path)}: {report.users:,} users, {report.items:,} items, rank {factors.P.shape[1]}; "
            f"{console.seconds():.1f} s"
        )
        numbers = console.finish()
        write_stats(numbers)
        if json_:
            print_json(numbers)


def _say_what_was_read(console: Console, report: ReadReport) -> None:
    guessed = ", ".join(f"{role}={report.columns[role]}" for role in report.guessed)
    columns = f"; columns {guessed} (guessed; --columns sets them)" if guessed else ""
    counts = {
        "rows": report.rows,
        "users": report.users,
        "items": report.items,
        "pairs": report.pairs,
        "repeated": report.repeated,
    }
    console.note(
        f"read {report.rows:,} rows: {report.users:,} users, {report.items:,} items, {report.pairs:,} pairs{columns}",
        fields=counts,
    )
    if report.repeated:
        console.note(f"{report.repeated:,} rows repeated a user and item; --duplicates says what they mean")
