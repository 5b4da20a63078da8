"""recli finetune: the model that is adapted, with the adapters that come before."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from recli.cli import options as o
from recli.cli.adapted import Adapted, fingerprint_of_tables, read_adapted
from recli.cli.console import size_text
from recli.cli.finetune_job import Job
from recli.config import PROCESS_BYTES
from recli.errors import BusyError

if TYPE_CHECKING:
    from recli.artifacts import Factors


def read_base(job: Job, stack: ExitStack) -> Adapted:
    return with_adapters(job, *read_model(job, stack))


def with_adapters(job: Job, factors: Factors, fingerprint: str) -> Adapted:
    return read_adapted(factors, fingerprint, job.adapters, "--adapter-file")


def read_model(job: Job, stack: ExitStack) -> tuple[Factors, str]:
    """The model without adapters, and its fingerprint."""
    from recli import io

    flags = job.flags
    if job.model is None:
        factors = io.read_embeddings(
            flags["base_users"], flags["base_items"], user_ids=flags["base_user_ids"], item_ids=flags["base_item_ids"]
        )
        return factors, fingerprint_of_tables(factors.provenance.inputs)
    found = stack.enter_context(io.source([job.model]))
    return io.read_model(found), io.fingerprint(found)


def refuse_bytes(job: Job, what: str, needed: int, advice: str = "") -> None:
    """Raises BusyError where --memory-limit does not allow so many."""
    if job.limit is not None and needed > job.limit:
        raise BusyError(
            f"{what} needs about {size_text(needed)}, --memory-limit is {job.flags['memory_limit']}: give "
            f"--memory-limit {o.limit_text(max(PROCESS_BYTES, needed))}{advice}"
        )
