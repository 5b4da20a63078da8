"""recli finetune: its flags, and which of its modes they ask for: to train a delta, or to merge some into a model."""

from __future__ import annotations

from typing import Annotated

import typer

from recli.cli import options as o
from recli.cli.finetune_job import Job
from recli.config import FinetuneConfig

D = FinetuneConfig()
EXAMPLES = """Examples:

\b
  recli finetune m.factors.npz new.parquet -o delta.npz
  recli finetune m.factors.npz new.csv --adapter lora --trainable 5% -o d.npz
  recli finetune m.factors.npz more.csv --adapter-file d.npz -o d2.npz
  recli finetune m.factors.npz clicks.csv --adapter head -o clicks.npz
  recli finetune m.factors.npz --adapter features --features f/ -o cold.npz
  recli finetune m.factors.npz --adapter-file d.npz --merge -o merged.npz
  recli finetune --base-users u.npy --base-items i.npy --merge -o net.npz
  recli score m.factors.npz --adapter delta.npz -o recs.parquet
"""
app = o.app()


@app.command(cls=o.Command, epilog=EXAMPLES + o.EPILOG)
def finetune(
    ctx: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [NEW]",
            help="A model that factorize wrote (or that implicit saved), and tables of new interactions: files, "
            "folders, globs, or - (stdin).",
        ),
    ] = None,
    output: o.OutputPath = None,
    adapter: Annotated[
        str,
        o.own(
            "--adapter",
            help="What is trained: bias, rows (that the new data touches), scale, bilinear, lora, features, head "
            "(click probability), or full.",
        ),
    ] = D.adapter,
    fit: Annotated[
        str,
        o.option(
            "--fit",
            help="closed (least squares: bias, rows, lora, features), gradient, or auto: closed where it can be.",
        ),
    ] = D.fit,
    rank: Annotated[int, o.own("--rank", help="lora, bilinear: rank of the change.")] = D.rank,
    hidden: Annotated[int, o.option("--hidden", help="head: hidden units.")] = D.hidden,
    trainable: Annotated[
        str | None,
        o.option("--trainable", help="Choose ranks, rows or widths to train at most this share of the model, as 5%."),
    ] = None,
    adapter_file: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter-file",
            metavar="<file>",
            help="Adapters that come before this one, in order; with --merge, those to merge. Can be given again.",
        ),
    ] = None,
    merge: Annotated[
        bool, o.option("--merge", help="Write the model with its adapters as a model of its own.")
    ] = False,
    base_users: Annotated[
        str | None,
        o.option(
            "--base-users",
            help="A table of user rows from elsewhere, instead of MODEL: .npy, .npz or .safetensors, FILE:NAME where "
            "it has several.",
        ),
    ] = None,
    base_items: Annotated[str | None, o.option("--base-items", help="The same of items.")] = None,
    base_user_ids: Annotated[
        str | None,
        o.option("--base-user-ids", help="The ids of those rows, a table or one a line [default: 0, 1, ...]."),
    ] = None,
    base_item_ids: Annotated[str | None, o.option("--base-item-ids", help="The same of items.")] = None,
    features: Annotated[
        str | None,
        o.own("--features", help="--adapter features: a folder that featurize wrote, with attributes of users, items."),
    ] = None,
    loss: Annotated[
        str,
        o.own(
            "--loss",
            help="squared, logistic, bpr or softmax [auto: softmax; squared for als; logistic for head].",
        ),
    ] = D.loss,
    negatives: Annotated[
        int | None,
        o.option(
            "--negatives",
            help="Items drawn for each pair; 0 with squared and logistic takes ratings and labels as given [default: "
            "softmax 16, bpr and logistic 4, squared 4 or, for als, 0].",
        ),
    ] = None,
    sampling: Annotated[
        str,
        o.option("--sampling", help="Negatives: uniform, or by popularity [auto: popularity for softmax]."),
    ] = D.sampling,
    optimizer: Annotated[
        str, o.option("--optimizer", help="adam, adamw, adagrad or sgd; lazily, on the rows of a batch.")
    ] = D.optimizer,
    learning_rate: Annotated[
        float | None,
        o.option("--learning-rate", help="Its highest [default: adam, adamw 0.003, adagrad 0.05, sgd 0.1]."),
    ] = None,
    momentum: Annotated[float, o.option("--momentum", help="sgd: momentum.")] = D.momentum,
    schedule: Annotated[
        str, o.option("--schedule", help="Of the learning rate after the warm-up: linear, cosine or constant.")
    ] = D.schedule,
    warm_up: Annotated[float, o.option("--warm-up", help="Share of the steps in which it rises.")] = D.warm_up,
    clip: Annotated[
        float | None, o.option("--clip", help="Shorten gradients of a batch that are longer than this.")
    ] = None,
    batch: Annotated[
        int | None, o.option("--batch", help="Pairs a step [default: 8192, or a 64th of the pairs if that is less].")
    ] = None,
    epochs: Annotated[
        int | None, o.option("--epochs", help="Passes over the pairs [default: 5]; closed: rounds [default: 1].")
    ] = None,
    patience: Annotated[
        int, o.own("--patience", help="Stop after so many epochs without a better validation.")
    ] = D.patience,
    valid: Annotated[
        str,
        o.own(
            "--valid",
            help="What to measure on, and to stop by: a share of the new pairs as 10%, a file, or none.",
        ),
    ] = "10%",
    metric: Annotated[
        str,
        o.own("--metric", help="Of validation: ndcg@10, recall@20, rmse, logloss, ... [auto: by model and adapter]."),
    ] = D.metric,
    old: Annotated[
        str | None,
        o.option("--old", help="Pairs to measure forgetting on [default: some that the model was trained on]."),
    ] = None,
    l1: Annotated[float, o.option("--l1", help="L1 penalty on what is trained (proximal).")] = D.l1,
    l2: Annotated[float, o.option("--l2", help="L2 penalty on what is trained.")] = D.l2,
    decay: Annotated[float, o.option("--decay", help="Decoupled weight decay; 0 is 0.01 for adamw.")] = D.decay,
    dropout: Annotated[float, o.option("--dropout", help="Share of factors dropped in each batch.")] = D.dropout,
    stay: Annotated[
        float | None,
        o.option(
            "--stay",
            help="How much rows are pulled to the model's; closed: how much its old pairs still count, 1 as much as "
            "new ones [default: gradient 0, closed 0.05].",
        ),
    ] = None,
    reg: Annotated[
        float | None, o.own("--reg", help="features: of the ridge [default: chosen on ids taken to be cold].")
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        o.own(
            "--checkpoint-every",
            help="Keep the state every so many epochs; the same command goes on where it was stopped.",
        ),
    ] = None,
    seed: o.Seed = D.seed,
    where: o.Where = None,
    duplicates: o.Duplicates = "last",
    weight: o.Weight = None,
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
    """New interactions to a small delta of a model: trains a few percent of its parameters, in seconds.

    The delta is for this model alone: recli score MODEL --adapter DELTA scores both together, and without it everything
    is as before. Users and items that the model does not know get rows.
    """
    job = Job.of(ctx)
    if merge:
        from recli.cli.finetune_merge import run
    else:
        from recli.cli.finetune_train import run
    run(job)
