"""recli score: predictions of given pairs, and how far they are from held-out ratings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from recli.cli import options as o
from recli.cli.console import print_json, print_table
from recli.cli.score_head import head_of
from recli.cli.score_index import read_scored
from recli.cli.score_job import Job
from recli.errors import DataError, about

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from recli.artifacts import Factors
    from recli.io import PairTable, Ratings
    from recli.kernels.spec import Kernels
    from recli.score.rescored import Head

RANKERS = ("ials", "pop")  # solvers whose scores are not in the unit of ratings


def run(job: Job) -> None:
    from recli import io, kernels  # heavy: numpy, scipy and polars
    from recli.score import block_pairs

    o.let_ctrl_c_through()
    console, flags = job.console, job.flags
    device, why = kernels.choose(flags["device"])
    with ExitStack() as stack:
        out, write_stats = job.outputs(stack)
        found = stack.enter_context(io.source([flags["factors"]]))
        adapted = read_scored(job, found)
        model, head = adapted.factors, head_of(job, adapted)
        table = io.PairTable(stack.enter_context(io.source([flags["pairs"]])), model, job.reading)
        truth = None
        if flags["truth"]:
            truth = io.Ratings(stack.enter_context(io.source([flags["truth"]])), model, job.reading)
        _say_what_was_read(job, model, table, truth)
        size = block_pairs(model, job.limit, beside=table.stream_bytes + (truth.nbytes if truth else 0))
        console.note_device(flags["device"], device, why, job.workers)
        if flags["dry_run"]:
            _say_plan(job, table.rows, size)
            return
        backend = stack.enter_context(kernels.load(device, job.workers, job.limit))
        tally = Tally()
        with console.progress("pairs", table.rows) as advance:
            frames = _predictions(job, model, head, table, truth, backend, size, tally, advance)
            if out:
                out.write(lambda file: io.write_scores(frames, table.schema, job.format, file))
            else:
                for _ in frames:
                    pass
        if out:
            console.note(
                f"wrote {o.shown(job.path)}: {table.rows:,} predictions; {console.seconds():.1f} s",
                fields={"output": job.path},
            )
        tally.say_unknown(job)
        result = {**console.finish(), **(tally.errors() if truth else {})}
        write_stats(result)
        if flags["json_"]:
            print_json(result)
        elif truth and not (flags["quiet"] and job.path == "-"):
            tally.print_errors(sys.stderr if job.path == "-" else sys.stdout)


def _say_what_was_read(job: Job, model: Factors, table: PairTable, truth: Ratings | None) -> None:
    guessed = ", ".join(f"{role}={table.columns[role]}" for role in table.guessed)
    columns = f"; columns {guessed} (guessed; --columns sets them)" if guessed else ""
    job.console.note(f"{table.rows:,} pairs, rank {model.P.shape[1]}{columns}", fields={"pairs": table.rows})
    if truth:
        job.console.note(
            f"ratings of {len(truth):,} pairs from column {truth.column} of --truth", fields={"ratings": len(truth)}
        )
        solver = model.provenance.config.get("solver")
        if solver in RANKERS:
            job.console.note(
                f"the scores of {solver} are for ranking and no ratings; factorize --solver als predicts those"
            )


def _say_plan(job: Job, rows: int, size: int) -> None:
    job.console.note(
        f"plan: {rows:,} predictions to {job.path or 'nowhere (errors only)'}, {size:,} at a time; nothing written"
    )
    if job.flags["json_"]:
        print_json({**job.console.finish(), "output": job.path, "block_pairs": size})


def _predictions(
    job: Job,
    model: Factors,
    head: Head | None,
    table: PairTable,
    truth: Ratings | None,
    kernels: Kernels,
    size: int,
    tally: Tally,
    advance: Callable[[int, str], None],
) -> Iterator[pl.DataFrame]:
    from recli.score import predict

    done = 0
    for pairs in table.blocks(size):
        with about(job.flags["factors"]):
            scores, reasons = predict(model, pairs.users, pairs.items, kernels, head)
        tally.count(reasons)
        if truth:
            rated, ratings = truth.of(pairs)
            tally.judge(scores[rated], ratings, reasons[rated] == 0)
        yield table.frame(pairs, scores, reasons)
        done += len(scores)
        advance(done, "")
    if truth and not tally.judged.pairs:  # before the old output is replaced
        raise DataError(f"none of its {len(truth):,} ratings is of a pair in --pairs", file=job.flags["truth"])


class Tally:
    """What there is to say of predictions: of how many the user or item is unknown, and how far off they are."""

    def __init__(self) -> None:
        from recli.artifacts import PAIR_REASONS
        from recli.metrics import RatingErrors

        self.reasons = dict.fromkeys(PAIR_REASONS, 0)
        self.judged, self.known = RatingErrors(), RatingErrors()

    def count(self, reasons: NDArray[np.uint8]) -> None:
        for number, reason in enumerate(self.reasons):
            self.reasons[reason] += int((reasons == number).sum())

    def judge(self, scores: NDArray[np.float32], ratings: NDArray[np.float32], known: NDArray[np.bool_]) -> None:
        self.judged.add(scores, ratings)
        self.known.add(scores[known], ratings[known])

    def say_unknown(self, job: Job) -> None:
        unknown = {reason: count for reason, count in self.reasons.items() if reason != "model"}
        fields = {f"{reason.replace(' ', '_')}_pairs": count for reason, count in unknown.items()}
        job.console.stats.update(fields)
        if any(unknown.values()):
            counts = ", ".join(f"{reason} {count:,}" for reason, count in unknown.items() if count)
            job.console.note(f"{sum(unknown.values()):,} predictions are from biases alone: {counts}", fields=fields)

    def errors(self) -> dict[str, Any]:
        """rmse and mae over all judged pairs, and over those whose user and item the model knows (None: no pair)."""
        known = self.known.result() if self.known.pairs else {"rmse": None, "mae": None}
        return {
            "judged_pairs": self.judged.pairs,
            **self.judged.result(),
            "judged_known_pairs": self.known.pairs,
            **{f"{name}_known": value for name, value in known.items()},
        }

    def print_errors(self, stream: Any) -> None:
        rows = {name: f"{value:.4f}" for name, value in self.judged.result().items()}
        title = f"{self.judged.pairs:,} pairs with ratings"
        if self.known.pairs < self.judged.pairs:
            title += f", of which the model knows {self.known.pairs:,}"
            if self.known.pairs:
                rows |= {f"{name} (known)": f"{value:.4f}" for name, value in self.known.result().items()}
        print_table(title, rows, stream)
