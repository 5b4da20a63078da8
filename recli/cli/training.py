"""recli factorize: a model by training: read, hold out, start, fit."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recli.cli import options as o
from recli.cli.console import Console, print_json, size_text
from recli.config import PROCESS_BYTES, FactorizeConfig, ReadConfig
from recli.errors import BusyError, UsageError, about
from recli.process import held_bytes, peak_bytes

if TYPE_CHECKING:
    from recli.artifacts import Factors, Interactions
    from recli.factorize import Fit, Progress, Validation
    from recli.ids import Csr
    from recli.io import ReadReport, Source
    from recli.kernels.spec import Kernels


ITERATIVE = ("ials", "als")
RELEASED = 0.2  # seconds until polars has given back the memory of reading (options.limit_threads)
SLACK = 1.05  # between what is foretold and the limit that an error advises


@dataclass(frozen=True)
class Model:
    """A model to be stored, what there is to say of it, and how to measure it, if that was asked for."""

    factors: Factors
    numbers: dict[str, Any]
    validation: Validation | None = None


@dataclass(frozen=True)
class Training:
    """One training run, as its flags describe it. path: of the output; device, reason: what computes, and why."""

    flags: Mapping[str, Any]
    console: Console
    config: FactorizeConfig
    reading: ReadConfig
    workers: int
    path: str
    device: str
    reason: str

    def say_device(self) -> None:
        self.console.note_device(self.flags["device"], self.device, self.reason, self.workers)

    def run(self, found: Source, kernels: Kernels) -> Model | None:
        """The trained model; None for a dry run, whose plan it has said."""
        from recli import factorize, io
        from recli.artifacts import Factors

        self._check_limit(f"reading {found.name}", held_bytes() + io.least_bytes(found, self.reading), PROCESS_BYTES)
        interactions, report = io.read_interactions(found, self.reading)
        say_what_was_read(self.console, report)
        self.say_device()
        start, inputs = None, list(interactions.provenance.inputs)
        if self.flags["init"]:
            with io.source([self.flags["init"]]) as initial:
                start = io.read_artifact(initial, Factors)
                inputs += initial.sha256()
            self._check_start(start)
            interactions = io.continue_ids(interactions, start, self.flags["init"])
        train, held = self._split(interactions, inputs)
        interactions = dataclasses.replace(
            interactions, provenance=dataclasses.replace(interactions.provenance, inputs=inputs)
        )
        if self._is_planned(train or interactions.matrix, interactions, kernels):
            return None
        validation = (
            factorize.Validation(
                train or interactions.matrix, held, factorize.metric_of(self.config), self.config.seed, kernels
            )
            if held
            else None
        )
        with about(found.name):
            factors, fit = self._fit(interactions, train, start, validation, kernels)
        numbers: dict[str, Any] = {
            "solver": self.config.solver,
            "users": len(factors.user_ids),
            "items": len(factors.item_ids),
            "pairs": report.pairs,
            "iterations": len(fit.objectives),
            "objective": fit.objectives[-1] if fit.objectives else None,
            **fit.settings,
        }
        if validation:
            numbers |= self._say_validated(validation, fit)
        return Model(factors, numbers, validation)

    def _check_start(self, start: Factors) -> None:
        rank = start.P.shape[1]
        if rank != self.config.rank:
            raise UsageError(
                f"--rank {self.config.rank}: the model of --init has rank {rank}: give --rank {rank}",
            )

    def _split(self, interactions: Interactions, inputs: list[str]) -> tuple[Csr | None, Csr | None]:
        """What to train on, if not all, and what is held out, if anything. Hashes of files read join `inputs`."""
        from recli.splits import hold_out

        asked = self.flags["valid"]
        if asked is None:
            return None, None
        share = valid_share(asked)
        if share is not None:
            train, held = hold_out(interactions.matrix, share, self.config.seed)
            if not len(held.indices):
                raise UsageError(f"--valid {asked}: no pair is held out of {len(interactions.matrix.indices)}")
            self.console.note(f"held out {len(held.indices):,} pairs for validation")
            return train, held
        held, hashes = self._read_held_out(asked, interactions)
        inputs += hashes
        return None, held

    def _read_held_out(self, path: str, data: Interactions | Factors) -> tuple[Csr, list[str]]:
        """The pairs of a validation file in the data's numbers, and the file's hash."""
        from recli import io

        with io.source([path]) as found:
            others, _ = io.read_interactions(found, self.reading)
            held, dropped = io.held_out(others, data, found.name)
            hashes = found.sha256()
        note = f"; {dropped:,} others have a user or item that is not known" if dropped else ""
        self.console.note(f"{len(held.indices):,} pairs for validation{note}")
        return held, hashes

    def validation(self, model: Factors, kernels: Kernels) -> Validation | None:
        """What measures a finished model, on the file of --valid."""
        from recli.factorize import Validation, metric_of, no_pairs

        asked = self.flags["valid"]
        if asked is None:
            return None
        if valid_share(asked) is not None:
            raise UsageError(f"--valid {asked}: the model of --import is not trained: give a file")
        held, _ = self._read_held_out(asked, model)
        seen = model.seen or no_pairs(len(model.user_ids))
        return Validation(seen, held, metric_of(self.config), self.config.seed, kernels)

    def _check_limit(self, what: str, needed: int, advised: int = 0) -> None:
        """advised: what an error advises at least."""
        limit = o.parse_size(self.flags["memory_limit"])
        if limit is not None and needed > limit:
            raise BusyError(
                f"{what} needs about {size_text(needed)}, --memory-limit is {self.flags['memory_limit']}: give "
                f"--memory-limit {o.limit_text(max(advised, SLACK * needed))} or a smaller --rank"
            )

    def _is_planned(self, matrix: Csr, data: Interactions, kernels: Kernels) -> bool:
        """Refuses what the memory limit does not allow; says the plan of a dry run."""
        from recli.factorize import stored_bytes, train_bytes, train_seconds

        if not (self.flags["dry_run"] or self.flags["memory_limit"]):
            return False
        config, sizes = self.config, (len(data.user_ids), len(data.item_ids))
        time.sleep(RELEASED)
        pairs, held = len(matrix.indices), held_bytes()
        memory = max(peak_bytes(), held + train_bytes(config, *sizes, pairs, weighted=data.weighted))
        self._check_limit("pop" if config.solver == "pop" else f"rank {config.rank}", memory)
        if not self.flags["dry_run"]:
            return False
        size, elapsed = stored_bytes(config, *sizes, len(data.matrix.indices)), self.console.seconds()
        seconds = elapsed + train_seconds(config, matrix, sizes[1], size, kernels)
        work = "" if config.solver == "pop" else f", rank {config.rank}"
        work += f", {config.sweeps} iterations" if config.solver in ITERATIVE else ""
        self.say_plan(
            f"{config.solver}{work}; about {seconds:.1f} s, {size_text(memory)} of memory, {size_text(size)}",
            {"plan": {"seconds": round(seconds, 3), "bytes": memory, "output_bytes": size}},
        )
        return True

    def say_plan(self, plan: str, fields: Mapping[str, Any] | None = None) -> None:
        """What a dry run says."""
        self.console.note(f"plan: {plan} to {self.path}; nothing written", fields=fields)
        if self.flags["json_"]:
            print_json({**self.console.finish(), "output": self.path, "config": self.config.semantic()})

    def _fit(
        self,
        interactions: Interactions,
        train: Csr | None,
        start: Factors | None,
        validation: Validation | None,
        kernels: Kernels,
    ) -> tuple[Factors, Fit]:
        from recli import __version__, factorize, io

        every = self.flags["checkpoint_every"]
        key = {
            "recli": __version__,
            "inputs": interactions.provenance.inputs,
            "settings": {**self.config.semantic(), **self.reading.semantic()},
            "valid": self.flags["valid"] if valid_share(self.flags["valid"]) is not None else None,
            "device": kernels.name,
        }
        total = self.config.sweeps
        with contextlib.ExitStack() as stack:
            kept = stack.enter_context(io.checkpoints(self.path, key)) if every else None
            resume, unusable = kept.load() if kept else (None, None)
            if unusable:
                self.console.note(f"the checkpoint is ignored: {unusable}")
            if resume is not None:
                self.console.note(f"going on from the checkpoint of iteration {len(resume['objectives'])}")
            advance = stack.enter_context(
                self.console.progress("svd" if self.config.solver == "svd" else "iteration", total)
            )

            def on_progress(progress: Progress) -> None:
                score = "" if progress.score is None else f", {_score_text(validation, progress.score)}"
                advance(progress.done, f"objective {progress.objective:.6g}{score}")

            watch = factorize.Watch(
                on_progress=svd_progress(advance) if self.config.solver == "svd" else on_progress,
                validate=validation.of_fit if validation else None,
                checkpoint_every=every or 0,
                save=kept.save if kept else (lambda state: None),
                resume=resume,
            )
            return factorize.factorize(interactions, self.config, kernels, watch, train=train, start=start)

    def _say_validated(self, validation: Validation, fit: Fit) -> dict[str, Any]:
        best = fit.scores[max(fit.best - 1, 0)]
        kept = f"; iteration {fit.best} of {len(fit.scores)} is kept" if fit.best else ""
        self.console.note(f"validation: {_score_text(validation, best)}{kept}")
        name = validation.metric
        return {f"valid_{name}": abs(best), **({"best_iteration": fit.best} if fit.best else {})}

    def say_loss(self, validation: Validation, before: Factors, after: Factors) -> dict[str, Any]:
        """What compression costs on the validation pairs."""
        scores = [validation.of_factors(before), validation.of_factors(after)]
        change = (scores[1] - scores[0]) / abs(scores[0]) if scores[0] else 0.0
        name = validation.metric
        self.console.note(f"validation: {name} {abs(scores[0]):.4f} before, {abs(scores[1]):.4f} after ({change:+.2%})")
        return {f"uncompressed_{name}": abs(scores[0]), f"compressed_{name}": abs(scores[1])}


def svd_progress(advance: Callable[[int, str], None]) -> Callable[[Progress], None]:
    """What svd reports, of ratings as of any matrix."""

    def on_progress(progress: Progress) -> None:
        what = "of the squares kept" if progress.done else "converged"
        advance(progress.done, f"{progress.objective:.1%} {what}")

    return on_progress


def valid_share(text: str | None) -> float | None:
    """The share in --valid 10%, or 0.1; None for a file's name."""
    if text is None:
        return None
    is_percentage = text.endswith("%")
    try:
        share = float(text.removesuffix("%")) / (100 if is_percentage else 1)
    except ValueError:
        share = 0
    if 0 < share < 1 and (is_percentage or not os.path.exists(text)):
        return share
    if is_percentage:
        raise UsageError(f"--valid {text}: expected a file, or a share such as 10%")
    return None


def _score_text(validation: Validation | None, score: float) -> str:
    return f"{validation.metric} {abs(score):.4f}" if validation else ""


def say_what_was_read(console: Console, report: ReadReport) -> None:
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
