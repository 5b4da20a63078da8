"""recli finetune: the model that is adapted, with the adapters that come before."""

from __future__ import annotations

from contextlib import ExitStack

from recli.cli.adapted import Adapted, fingerprint_of_tables, read_adapted
from recli.cli.finetune_job import Job


def read_base(job: Job, stack: ExitStack) -> Adapted:
    from recli import io

    flags = job.flags
    if job.model is None:
        factors = io.read_embeddings(
            flags["base_users"], flags["base_items"], user_ids=flags["base_user_ids"], item_ids=flags["base_item_ids"]
        )
        fingerprint = fingerprint_of_tables(factors.provenance.inputs)
    else:
        found = stack.enter_context(io.source([job.model]))
        factors = io.read_model(found)
        fingerprint = io.fingerprint(found)
    return read_adapted(factors, fingerprint, job.adapters)
