"""recli score: nearest items or users by cosine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from recli.cli import options as o
from recli.cli.console import print_json
from recli.cli.score_index import read_scored
from recli.cli.score_job import Job
from recli.cli.score_request import read_catalogue
from recli.errors import DataError, about

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from recli.artifacts import Factors

ALL = "all"


def run(job: Job) -> None:
    from recli import io, kernels  # heavy: numpy, scipy and polars
    from recli.score import block_similar, similar

    o.let_ctrl_c_through()
    console, config, role = job.console, job.config, "item" if job.mode == "similar" else "user"
    device, why = kernels.choose(job.flags["device"])
    with ExitStack() as stack:
        out, write_stats = job.outputs(stack)
        assert out, "only measuring needs no output, and here is nothing to measure"
        found = stack.enter_context(io.source([job.flags["factors"]]))
        model = read_scored(job, found).factors
        vectors = model.item_factors() if role == "item" else model.P[:]
        asked = _asked(job, model, role, stack)
        candidates = read_catalogue(job, model, stack).items if role == "item" else None
        console.note_device(job.flags["device"], device, why, job.workers)
        size = block_similar(vectors.shape, config, job.limit)
        with about(found.name):
            backend = stack.enter_context(kernels.load(device, job.workers, job.limit))
            blocks = similar(vectors, asked, candidates, config, backend, size)
        if job.flags["dry_run"]:
            console.note(
                f"plan: {config.k} neighbours of {len(asked):,} {role}s to {job.path}, {size:,} at a time; "
                "nothing written"
            )
            if job.flags["json_"]:
                print_json({**console.finish(), "output": job.path, f"block_{role}s": size, "k": config.k})
            return
        table, short = io.SimilarTable(asked, model, role), 0

        def frames(advance: Callable[[int, str], None]) -> Iterator[pl.DataFrame]:
            nonlocal short
            for block in blocks:
                short += int((block.nums[:, -1] < 0).sum())
                yield table.frame(*block)
                advance(block.start + len(block.nums), "")

        with console.progress(f"{role}s", len(asked)) as advance:
            out.write(lambda file: io.write_scores(frames(advance), table.schema, job.format, file))
        console.note(
            f"wrote {o.shown(job.path)}: neighbours of {len(asked):,} {role}s; {console.seconds():.1f} s",
            fields={"output": job.path},
        )
        if short:
            console.note(f"{short:,} {role}s have fewer than {config.k} neighbours", fields={"short_lists": short})
        result = {**console.finish(), "k": config.k}
        write_stats(result)
        if job.flags["json_"]:
            print_json(result)


def _asked(job: Job, model: Factors, role: str, stack: ExitStack) -> NDArray[np.int64]:
    """The numbers of those whose neighbours are wanted. Raises DataError where the model knows none of them."""
    import numpy as np

    from recli import io

    path, every = job.flags[job.mode], model.item_ids if role == "item" else model.user_ids
    if path == ALL and not os.path.exists(ALL):
        nums = np.arange(len(every))
    else:
        found = stack.enter_context(io.source([path]))
        nums = io.read_ids(found, model, role, job.reading).nums
        if not (nums >= 0).any():
            raise DataError(f"none of its {len(nums):,} {role}s is in the model", file=found.name)
    known = nums[nums >= 0]
    unknown = len(nums) - len(known)
    left_out = f"; left out, since the model does not know them: {unknown:,}" if unknown else ""
    job.console.note(
        f"{len(known):,} of {len(every):,} {role}s, rank {model.P.shape[1]}{left_out}",
        fields={f"{role}s": len(known), f"unknown_{role}s": unknown},
    )
    return known
