"""recli finetune --merge: a base and its adapters to a model of its own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from recli.cli import options as o
from recli.cli.console import print_json
from recli.cli.finetune_base import read_model, refuse_bytes, with_adapters
from recli.cli.finetune_job import Job
from recli.process import held_bytes

if TYPE_CHECKING:
    from recli.artifacts import Factors

PAIR_BYTES = 48  # of seen lists while those of a delta join them


def run(job: Job) -> None:
    from recli import io, kernels
    from recli.finetune import check_mergeable

    o.let_ctrl_c_through()
    console = job.console
    kernels.choose(job.flags["device"])  # refuses one that there is not
    with ExitStack() as stack:
        out = stack.enter_context(io.output(job.path, inputs=job.inputs, no_clobber=job.flags["no_clobber"]))
        write_stats = stack.enter_context(io.json_output(job.flags["stats"]))
        model, fingerprint = read_model(job, stack)
        refuse_bytes(job, "merging", held_bytes() + _copied_bytes(model) * bool(job.adapters))
        adapted = with_adapters(job, model, fingerprint)
        for path, delta in zip(job.adapters, adapted.deltas, strict=True):
            check_mergeable(delta, path)
        factors = adapted.factors
        counts = {"users": len(factors.user_ids), "items": len(factors.item_ids), "rank": factors.P.shape[1]}
        sizes = f"{counts['users']:,} users, {counts['items']:,} items, rank {counts['rank']}"
        adapters = ", ".join(delta.adapter for delta in adapted.deltas) or "none"
        if job.flags["dry_run"]:
            console.note(f"plan: {sizes}, adapters {adapters}, to {job.path}; nothing written", fields=counts)
        else:
            out.write(lambda file: io.write_npz(factors, file))
            console.note(
                f"wrote {o.shown(job.path)}: {sizes}; adapters: {adapters}; {console.seconds():.1f} s", fields=counts
            )
        result = {**console.finish(), "output": job.path, "adapters": [delta.adapter for delta in adapted.deltas]}
        write_stats(result)
        if job.flags["json_"]:
            print_json(result)


def _copied_bytes(model: Factors) -> int:
    """A rough bound: a delta makes tables with its new rows, and others of them with its changes."""
    rank, rows = int(model.P.shape[1]), len(model.user_ids) + len(model.item_ids)
    pairs = 0 if model.seen is None else len(model.seen.indices)
    return 2 * 4 * (rank + 1) * rows + PAIR_BYTES * pairs
