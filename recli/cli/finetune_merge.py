"""recli finetune --merge: a base and its adapters to a model of its own."""

from __future__ import annotations

from contextlib import ExitStack

from recli.cli import options as o
from recli.cli.console import print_json
from recli.cli.finetune_base import read_base
from recli.cli.finetune_job import Job


def run(job: Job) -> None:
    from recli import io, kernels
    from recli.finetune import check_mergeable

    o.let_ctrl_c_through()
    console = job.console
    kernels.choose(job.flags["device"])  # refuses one that there is not
    with ExitStack() as stack:
        out = stack.enter_context(io.output(job.path, inputs=job.inputs, no_clobber=job.flags["no_clobber"]))
        write_stats = stack.enter_context(io.json_output(job.flags["stats"]))
        adapted = read_base(job, stack)
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
