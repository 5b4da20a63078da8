"""recli finetune: trains a delta, and says what it is, what it is good for and what it cost."""

from __future__ import annotations

import dataclasses
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from recli.cli import options as o
from recli.cli.console import counted, print_json, size_text
from recli.cli.finetune_base import read_base, refuse_bytes
from recli.cli.finetune_data import NewTables, read_new
from recli.cli.finetune_job import GRADIENT_ONLY, Job, valid_file
from recli.cli.finetune_quality import Judges
from recli.errors import DivergedError, OutputError, UsageError, about
from recli.process import held_bytes

if TYPE_CHECKING:
    from recli.artifacts import Factors
    from recli.cli.adapted import Adapted
    from recli.config import FinetuneConfig
    from recli.finetune import Adapter, Outcome, Progress, Task, Watch
    from recli.finetune.base import Base
    from recli.io import Output
    from recli.kernels.spec import Kernels

READ_LATE = ("NEW", "--valid", "--old", "--features")


def run(job: Job) -> None:
    from recli import io, kernels  # heavy: numpy, scipy and polars

    o.let_ctrl_c_through()
    console, flags = job.console, job.flags
    device, why = kernels.choose(flags["device"])
    with ExitStack() as stack:
        out = stack.enter_context(io.output(job.path, inputs=job.inputs, no_clobber=flags["no_clobber"]))
        write_stats = stack.enter_context(io.json_output(flags["stats"]))
        _check_there(job, out)
        adapted = read_base(job, stack)
        if adapted.head is not None:
            raise UsageError("--adapter-file: a head can only be the last adapter: nothing is trained on top of it")
        factors = adapted.factors
        fit = _check(job, factors)
        tables = read_new(job, factors)
        _check_labels(job, factors, tables)
        console.note_device(flags["device"], device, why, job.workers)
        task = _task(job, adapted, tables)
        _check_memory(job, factors, tables, fit)
        backend = stack.enter_context(kernels.load(device, job.workers, job.limit))
        if flags["dry_run"]:
            _say_plan(job, task, fit)
            return
        judges = Judges(job, task, tables, backend)
        delta, outcome = _trained(job, task, tables, judges, fit, backend)
        out.write(lambda file: io.write_npz(delta, file))
        if flags["checkpoint_every"]:
            io.remove_checkpoint(job.path)
        result = _report(job, task, delta, outcome, judges)
        write_stats(result)
        if flags["json_"]:
            print_json(result)


def _check_there(job: Job, out: Output) -> None:
    """Refuses files that are missing, and outputs that would replace those of a folder, before anything is read."""
    from recli import io

    for name, path in job.sources:
        if name in READ_LATE and path != "-" and not io.is_pipe(path):
            with io.source([path], job.reading.format) as found:
                out.refuse(found.files)
                o.refuse_stats(found.files, job.flags["stats"])


def _check(job: Job, factors: Factors) -> str:
    """closed or gradient; refuses flags that would be ignored, and what the model cannot be adapted by."""
    from recli.finetune import check_rank, fit_of

    fit = fit_of(job.config, factors)
    with about(job.base_name):
        check_rank(factors.P.shape[1], job.config)
    if fit == "closed":
        for name in GRADIENT_ONLY:
            if name in job.given:
                raise UsageError(
                    f"{o.flag(name)}: --adapter {job.config.adapter} is solved in closed form here, which takes no "
                    "steps: leave it out, or give --fit gradient"
                )
    elif job.config.adapter == "bias" and "stay" in job.given:
        raise UsageError("--stay: --adapter bias by gradient moves no rows that could stay: leave it out")
    return fit


def _check_labels(job: Job, factors: Factors, tables: NewTables) -> None:
    """Refuses labels where every pair would count as a click, also in what is held out."""
    from recli.finetune import loss_of

    if loss_of(job.config, factors) != "logistic" or job.config.negatives is not None:
        return
    found = {job.new[0]: int((tables.data.given <= 0).sum())}
    if job.config.adapter == "head" and tables.held is not None:
        name = job.flags["valid"] if valid_file(job.flags["valid"]) else job.new[0]
        found[name] = found.get(name, 0) + int((tables.held.values <= 0).sum())
    for name, wrong in found.items():
        if wrong:
            raise UsageError(
                f"{name}: {counted(wrong, 'value')} of 0 or less, which looks like labels, but negatives are drawn: "
                "give --negatives 0 to learn labels, --negatives 4 to take all for clicks, or --where to leave some out"
            )


def _task(job: Job, adapted: Adapted, tables: NewTables) -> Task:
    from recli.artifacts import Provenance
    from recli.finetune import Task

    base = adapted.factors.provenance
    provenance = Provenance(config={"reading": tables.reading}, inputs=list(tables.inputs), columns=base.columns)
    return Task(
        adapted.factors, tables.data, tables.user_ids, tables.item_ids, adapted.chain, provenance, tables.features
    )


def _check_memory(job: Job, factors: Factors, tables: NewTables, fit: str) -> None:
    """A rough bound: tables of the base that are copied, and what a pair takes."""
    rank = max(1, factors.P.shape[1])
    rows = tables.data.users + tables.data.items
    copies = 2 if fit == "closed" else {"full": 3, "rows": 3}.get(job.config.adapter, 1)
    needed = held_bytes() + copies * 4 * rank * rows + 48 * len(tables.data.every.indices)
    refuse_bytes(job, "adapting", needed, ", or fewer new pairs")


def _say_plan(job: Job, task: Task, fit: str) -> None:
    from recli.finetune import planned

    trained, total, chosen = planned(task, job.config)
    new = len(task.user_ids) - task.known[0], len(task.item_ids) - task.known[1]
    fields = {"trained": trained, "parameters": total, "fit": fit}
    job.console.note(
        f"plan: {job.config.adapter} ({fit}){f', {chosen}' if chosen else ''}; {trained:,} numbers of {total:,} "
        f"({trained / max(1, total):.2%}) from {len(task.data.matrix.indices):,} pairs, rows of "
        f"{_new_text(*new)}, to {job.path}; nothing written",
        fields=fields,
    )
    if job.flags["json_"]:
        print_json({**job.console.finish(), "output": job.path, "config": job.config.semantic()})


def _new_text(users: int, items: int) -> str:
    return f"{counted(users, 'new user')} and {counted(items, 'new item')}"


def _trained(
    job: Job, task: Task, tables: NewTables, judges: Judges, fit: str, backend: Kernels
) -> tuple[Adapter, Outcome]:
    from recli import __version__, io
    from recli.finetune import LastGoodError, finetune

    every = job.flags["checkpoint_every"]
    key = {
        "recli": __version__,
        "inputs": [*task.chain, *tables.inputs],
        "settings": {**job.config.semantic(), **job.reading.semantic()},
        "valid": job.flags["valid"],
        "device": backend.name,
    }
    with ExitStack() as stack:
        kept = stack.enter_context(io.checkpoints(job.path, key)) if every else None
        resume, unusable = kept.load() if kept else (None, None)
        if unusable:
            job.console.note(f"the checkpoint is ignored: {unusable}")
        if resume is not None:
            job.console.note(f"going on from the checkpoint of epoch {len(resume['losses'])}")
        what, total = "round" if fit == "closed" else "epoch", _rounds(job.config, fit)
        advance = stack.enter_context(job.console.progress(what, total))

        def on_progress(progress: Progress) -> None:
            score = "" if progress.score is None else f", {judges.metric} {abs(progress.score):.4f}"
            advance(progress.done, f"loss {progress.loss:.6g}{score}")

        def watch(base: Base) -> Watch:
            from recli.finetune import Watch

            judges.look_at(base)
            return Watch(
                on_progress=on_progress,
                validate=judges.of_learner if judges.judges else None,
                checkpoint_every=every or 0,
                save=kept.save if kept else (lambda state: None),
                resume=resume,
            )

        try:
            with about(job.new[0] if job.new else job.flags["features"]):
                return finetune(task, job.config, backend, watch)
        except LastGoodError as error:
            raise DivergedError(_keep_last_good(job, error)) from error


def _rounds(config: FinetuneConfig, fit: str) -> int:
    from recli.finetune.loop import EPOCHS

    return config.epochs or (1 if fit == "closed" else EPOCHS)


def _keep_last_good(job: Job, error: Any) -> str:
    """What to say of numbers that overflowed, and of the delta of the epoch before, which lies beside the output."""
    from recli import io

    if error.delta is None or job.path == "-":
        return str(error)
    path = f"{job.path.removesuffix('.npz')}.last-good.npz"
    try:
        with io.output(path, inputs=job.inputs, no_clobber=job.flags["no_clobber"]) as out:
            out.write(lambda file: io.write_npz(error.delta, file))
    except OutputError as problem:
        return f"{error}; its last good state is not kept: {problem}"
    return f"{error}; the state after epoch {error.epochs} is in {path}"


def _report(job: Job, task: Task, delta: Adapter, outcome: Outcome, judges: Judges) -> dict[str, Any]:
    console = job.console
    share = outcome.trained / max(1, outcome.total)
    new = len(delta.new_user_ids), len(delta.new_item_ids)
    model_bytes = 4 * outcome.total
    written = os.path.getsize(job.path) if job.path != "-" else None
    numbers: dict[str, Any] = {
        "output": job.path,
        "adapter": delta.adapter,
        "fit": outcome.fit,
        "trained": outcome.trained,
        "parameters": outcome.total,
        "share": share,
        "delta_bytes": delta.nbytes,
        "model_bytes": model_bytes,
        "output_bytes": written,
        "new_users": new[0],
        "new_items": new[1],
        "loss": outcome.loss or None,
        "losses": outcome.run.losses,
        "best_epoch": outcome.run.best or None,
        "chosen": outcome.chosen or None,
    }
    chosen = f", {outcome.chosen}" if outcome.chosen else ""
    console.note(
        f"{delta.adapter} ({outcome.fit}){chosen}: trained {outcome.trained:,} numbers of {outcome.total:,} "
        f"({share:.2%}); {size_text(delta.nbytes)} beside a model of {size_text(model_bytes)}, with rows of "
        f"{_new_text(*new)}"
    )
    judges.say_epochs(outcome.run, _rounds(outcome.config, outcome.fit))
    numbers |= judges.say(delta)
    console.stats.update(numbers)
    console.note(f"wrote {o.shown(job.path)}: {console.seconds():.1f} s")
    return {**console.finish(), "config": dataclasses.asdict(outcome.config)}
