"""recli factorize: its flags; a model by training (training.py), from a matrix, or from another program; then what is
done with every model: compress, write, export.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recli.cli import options as o
from recli.cli.console import Console, print_json, size_text
from recli.cli.training import ITERATIVE, Model, Training, svd_progress, valid_share
from recli.config import FactorizeConfig
from recli.errors import UsageError, about

if TYPE_CHECKING:
    from recli.io import Source
    from recli.kernels.spec import Kernels

D = FactorizeConfig()
EXAMPLES = """Examples:

\b
  recli factorize ratings.parquet --rank 100
  recli factorize ratings.csv --where "rating >= 4" --rank 256 --reg 0.002
  recli factorize ratings.parquet --solver als --valid 10% --iterations 30
  recli factorize 'logs/*.csv.gz' --columns user=uid,item=sku -o model.npz
  recli factorize table.npy --solver svd --energy 0.95 -o table.factors.npz
  recli factorize plays.parquet --weight minutes --loss hu --dry-run
"""
# Flags that some solvers alone know. Given on the command line for another, they would silently do nothing.
SOLVERS_WITH = {
    "rank": ("ials", "als", "svd"),
    "loss": ("ials",),
    "reg": ("ials", "als"),
    "nu": ("ials", "als"),
    "alpha": ("ials",),
    "alpha0": ("ials",),
    "weight": ("ials", "svd"),
    "normalize": ("svd",),
    "energy": ("svd",),
    "iterations": ITERATIVE,
    "tol": ITERATIVE,
    "patience": ITERATIVE,
    "checkpoint_every": ITERATIVE,
    "init": ITERATIVE,
}
TRAINING_ONLY = ("solver", *SOLVERS_WITH)
app = o.app()


@app.command(cls=o.Command, epilog=EXAMPLES + o.EPILOG)
def factorize(
    ctx: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Ratings tables: files, folders, globs, s3:// addresses, or - (stdin); for svd also a matrix "
            "(sparse .npz, dense .npy).",
        ),
    ] = None,
    output: o.OutputPath = None,
    solver: Annotated[
        str,
        o.option("--solver", help="ials; als (explicit ratings, with biases); svd; or pop (the popularity baseline)."),
    ] = D.solver,
    rank: Annotated[int, o.option("--rank", help="Factors of each user and item.")] = D.rank,
    loss: Annotated[str, o.option("--loss", help="ials: rendle (2022), or hu (Hu, Koren, Volinsky 2008).")] = D.loss,
    reg: Annotated[
        float | None, o.option("--reg", help="Regularisation; larger is smoother [default: ials 0.01, als 0.7].")
    ] = None,
    nu: Annotated[
        float | None,
        o.option("--nu", help="How regularisation grows with activity, 0 (not) to 1 [default: ials 1, als 0.6]."),
    ] = None,
    alpha: Annotated[
        float | None, o.option("--alpha", help="ials: weigh each pair alpha times its rating [default: 1 a pair].")
    ] = None,
    alpha0: Annotated[
        float | None,
        o.option("--alpha0", help="ials: weight of unobserved pairs [default: 8 times the density of the data]."),
    ] = None,
    weight: o.Weight = None,
    normalize: Annotated[
        str,
        o.option("--normalize", help="svd: take off biases (bias), divide by activity (degree), none, or auto."),
    ] = D.normalize,
    energy: Annotated[
        float | None,
        o.option("--energy", help="svd: the smallest rank that keeps this share of the squared values, as 0.95."),
    ] = None,
    iterations: Annotated[
        int | None, o.option("--iterations", help="Sweeps over users and items [default: ials 5, als 8].")
    ] = None,
    tol: Annotated[float, o.option("--tol", help="Stop once the objective falls by less than this share.")] = D.tol,
    valid: Annotated[
        str | None,
        o.option(
            "--valid", help="Measure on held-out pairs, a file or a share such as 10%, and keep the best iteration."
        ),
    ] = None,
    metric: Annotated[
        str,
        o.option(
            "--metric", help="What --valid measures: rmse, ndcg@10, recall@20, ... [auto: als rmse, else ndcg@10]."
        ),
    ] = D.metric,
    patience: Annotated[
        int, o.option("--patience", help="Stop after so many iterations without a better validation.")
    ] = D.patience,
    init: Annotated[
        str | None,
        o.option("--init", help="Start from this model: ids keep their numbers, new ones are appended."),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        o.option(
            "--checkpoint-every",
            help="Keep the state every so many iterations; the same command goes on where it was stopped.",
        ),
    ] = None,
    seed: o.Seed = D.seed,
    import_: Annotated[
        str | None,
        o.option(
            "--import", metavar="MODEL", help="A finished model instead of training: saved by implicit, or recli."
        ),
    ] = None,
    store: Annotated[
        str,
        o.option("--store", help="How factors are stored: f32, f16, int8, or pq (product quantisation, 1/16)."),
    ] = D.store,
    keep_rows: Annotated[
        bool,
        o.option("--keep-rows", help="int8, pq: keep the items' exact rows as well, to rescore candidates with."),
    ] = False,
    hash_users: Annotated[
        int | None, o.option("--hash-users", help="Share so many rows among all users, two for each by hash.")
    ] = None,
    hash_items: Annotated[int | None, o.option("--hash-items", help="The same for items.")] = None,
    no_seen: Annotated[bool, o.option("--no-seen", help="Leave the users' own items out of the model file.")] = False,
    export_vectors: Annotated[
        str | None,
        o.option(
            "--export-vectors",
            metavar="DIR",
            help="Folder for the vectors of users and items: Parquet, and faiss and usearch indexes where installed.",
        ),
    ] = None,
    where: o.Where = None,
    duplicates: o.Duplicates = "last",
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
    inputs = inputs or []
    _check_flags(ctx, inputs)
    workers, limit = o.limit_threads(threads), o.parse_size(memory_limit)
    given = [
        path for path in (*inputs, import_, init, valid if valid_share(valid) is None else None) if path is not None
    ]
    o.check_paths(given, output, stats, json_)
    path = output or o.default_output(inputs or [str(import_)], ".factors.npz")
    if path.lower().endswith(o.TABLES):
        raise UsageError(f"-o {path}: a model is an NPZ file: give it a name that ends in .npz")
    reading = o.read_config(ctx.params)

    from recli import io, kernels  # heavy: numpy, scipy and polars

    o.let_ctrl_c_through()
    training = Training(ctx.params, console, config, reading, workers, path, *kernels.choose(device))
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(io.output(path, inputs=tuple(given), no_clobber=no_clobber))
        export = stack.enter_context(io.vectors_folder(export_vectors, inputs=tuple(given), no_clobber=no_clobber))
        write_stats = stack.enter_context(io.json_output(stats))
        backend = stack.enter_context(kernels.load(training.device, workers, limit))
        if import_ is not None:
            model = _imported(import_, inputs, training, backend)
        else:
            with io.source(inputs, reading.format) as found:
                out.refuse(found.files)
                is_matrix = io.is_matrix(found)
                model = _from_matrix(ctx, found, training, backend) if is_matrix else training.run(found, backend)
        if model is None:  # a dry run
            return
        model = _compressed(model, training)
        out.write(lambda file: io.write_npz(model.factors, file))
        if checkpoint_every:
            io.remove_checkpoint(path)
        factors, written = model.factors, export(model.factors)
        numbers: dict[str, Any] = {"output": path, "rank": factors.P.shape[1], **model.numbers}
        console.stats.update(numbers)
        console.note(
            f"wrote {o.shown(path)}: {len(factors.user_ids):,} users, {len(factors.item_ids):,} items, "
            f"rank {factors.P.shape[1]}; {console.seconds():.1f} s"
        )
        if written:
            console.note(f"wrote {export_vectors}: {written.summary}", fields={"vectors": written.files})
        result = console.finish()
        write_stats(result)
        if json_:
            print_json(result)


def _check_flags(ctx: typer.Context, inputs: list[str]) -> None:
    """Refuses flags of the command line that would do nothing."""
    params, given = ctx.params, o.given_flags(ctx)
    solver = params["solver"]
    if params["import_"] is not None:
        for name in TRAINING_ONLY:
            if name in given:
                raise UsageError(f"{o.flag(name)}: a finished model is imported: it is not trained")
    elif not inputs:
        raise UsageError("nothing to do: give INPUT to train on, or --import MODEL")
    for name, solvers in SOLVERS_WITH.items():
        if name in given and solver not in solvers:
            raise UsageError(f"{o.flag(name)}: not for --solver {solver}, but for {', '.join(solvers)}")
    if params["alpha"] is not None and params["weight"]:
        raise UsageError("--alpha and --weight exclude each other")
    for name in ("metric", "patience"):
        if name in given and params["valid"] is None:
            raise UsageError(f"{o.flag(name)}: there is no --valid for it")
    if params["keep_rows"] and params["store"] not in ("int8", "pq"):
        raise UsageError(f"--keep-rows: for --store int8 and pq: {params['store']} needs no rescoring")
    if params["checkpoint_every"] and params["output"] == "-":
        raise UsageError(
            "--checkpoint-every: a checkpoint lies beside the output, and stdout has no place: give -o FILE"
        )
    if params["checkpoint_every"] is not None and params["checkpoint_every"] < 1:
        raise UsageError(f"--checkpoint-every {params['checkpoint_every']}: expected a value from 1 up")


def _compressed(model: Model, training: Training) -> Model:
    """The model as --store and --hash-users, --hash-items ask, and what that costs."""
    from recli.factorize import compress

    config, console = training.config, training.console
    if config.store == "f32" and config.hash_users is None and config.hash_items is None:
        return model
    factors, report = compress(model.factors, config)
    share = report["bytes_after"] / report["bytes"]
    console.note(
        f"{config.store}: factors of {size_text(report['bytes'])} in {size_text(report['bytes_after'])} ({share:.1%}), "
        f"relative error {report['error_users']:.2g} of users, {report['error_items']:.2g} of items"
    )
    numbers = {**model.numbers, **{f"factor_{name}": value for name, value in report.items()}}
    if model.validation:
        numbers |= training.say_loss(model.validation, model.factors, factors)
    return Model(factors, numbers, model.validation)


def _imported(path: str, inputs: list[str], training: Training, kernels: Kernels) -> Model | None:
    from recli import io

    with io.source([path]) as found:
        factors = io.read_model(found)
    if inputs:
        with io.source(inputs, training.reading.format) as found:
            interactions, _ = io.read_interactions(found, training.reading)
            factors = io.with_seen(factors, interactions, found.name, seen=training.config.seen)
    numbers = {"solver": "imported", "users": len(factors.user_ids), "items": len(factors.item_ids)}
    training.say_device()
    validation = training.validation(factors, kernels)
    if training.flags["dry_run"]:
        training.say_plan(f"the imported model of {numbers['users']:,} users and {numbers['items']:,} items")
        return None
    return Model(factors, numbers, validation)


def _from_matrix(ctx: typer.Context, found: Source, training: Training, kernels: Kernels) -> Model | None:
    """A matrix that is no ratings table, compressed. Without --rank, --energy may take any rank."""
    from recli import io
    from recli.artifacts import Provenance
    from recli.factorize import factorize_matrix

    config, console = training.config, training.console
    if config.solver != "svd":
        raise UsageError(f"{found.name}: a matrix, not ratings: give --solver svd")
    for name in ("valid", "normalize", "weight", "where", "duplicates", "columns", "no_seen"):
        if name in o.given_flags(ctx):
            raise UsageError(f"{o.flag(name)}: {found.name} is a matrix, not a table of ratings")
    matrix, columns = io.read_matrix(found)
    is_dense = not isinstance(matrix, tuple)
    rows = len(matrix) if is_dense else len(matrix[0]) - 1
    entries = rows * columns if is_dense else len(matrix[1])
    console.note(f"read a matrix of {rows:,} x {columns:,}, {entries:,} entries")
    training.say_device()
    most = min(rows, columns)
    rank = most if config.energy is not None and "rank" not in o.given_flags(ctx) else min(config.rank, most)
    if training.flags["dry_run"]:
        training.say_plan(f"svd of rank {rank} at most")
        return None
    with about(found.name), console.progress("svd", 1) as advance:
        provenance, on_progress = Provenance(inputs=found.sha256()), svd_progress(advance)
        factors, report = factorize_matrix(matrix, columns, rank, config, kernels, provenance, on_progress)
    console.note(
        f"rank {report['rank']}: {report['parameters_after']:,} parameters of {report['parameters']:,}, "
        f"{size_text(report['bytes_after'])} of {size_text(report['bytes'])}, "
        f"relative error {report['relative_error']:.4g}"
    )
    return Model(factors, {"solver": "svd", "users": rows, "items": columns, **report})
