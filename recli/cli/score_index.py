"""recli score: the model with its adapters, and, where --index asks for it, with what was prepared of it, read only as
far as its users need.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from recli.cli.adapted import Adapted, read_adapted, with_features
from recli.cli.console import size_text
from recli.cli.score_job import Job
from recli.errors import DataError

if TYPE_CHECKING:
    from recli.io import Source
    from recli.kernels.spec import Kernels
    from recli.score import Prepared


def read_model(job: Job, found: Source) -> tuple[Adapted, Prepared | None]:
    """The model, and its index where --index names one that is there. Raises DataError for that of another model."""
    from recli import io
    from recli.score import Prepared

    path = job.flags["index"]
    if path is None:
        return read_scored(job, found), None
    if not os.path.exists(path):
        with io.output(path):  # may it be made later?
            return read_scored(job, found), None
    with io.source([path]) as index:
        prepared = io.read_artifact(index, Prepared, checked=False)
    if prepared.provenance.inputs[:1] != [io.fingerprint(found)]:
        raise DataError(
            f"it is the index of another model than {found.name}: remove it (a new one will be made), or give another "
            "--index",
            file=path,
        )
    adapted = read_scored(job, found, checked=False)  # that was done when the index was made
    if prepared.provenance.inputs != list(adapted.chain):
        raise DataError(
            "it is the index of the model with other adapters: remove it (a new one will be made), or give another "
            "--index",
            file=path,
        )
    model = adapted.factors
    if prepared.sizes != (len(model.user_ids), len(model.item_ids)):
        raise DataError("a damaged index: remove it, and it will be made again", file=path)
    ids = dataclasses.replace(model.user_ids, order=prepared.users_by_id)
    job.console.note(f"index {path}", detail=True, fields={"index": path})
    model = dataclasses.replace(model, user_ids=ids, checked=False)
    return dataclasses.replace(adapted, factors=model), prepared


def read_scored(job: Job, found: Source, *, checked: bool = True) -> Adapted:
    """The model of FACTORS with --adapter and --features."""
    from recli import io
    from recli.artifacts import Factors

    factors = io.read_artifact(found, Factors, checked=checked)
    adapters = job.flags["adapter"] or []
    adapted = read_adapted(factors, io.fingerprint(found), adapters, "--adapter", checked=checked)
    if job.flags["features"] is not None:
        adapted = with_features(adapted, job.flags["features"], job.console)
    if adapters:
        names = ", ".join(delta.adapter for delta in adapted.deltas)
        job.console.note(f"adapters: {names}", fields={"adapters": [delta.adapter for delta in adapted.deltas]})
    return adapted


def make_index(job: Job, adapted: Adapted, kernels: Kernels) -> Prepared:
    """Prepares the model, and writes that to --index."""
    from recli import io
    from recli.score import prepare

    path = job.flags["index"]
    with io.output(path) as out:
        prepared = prepare(adapted.factors, kernels, io.id_order(adapted.factors.user_ids), adapted.chain)
        out.write(lambda file: io.write_npz(prepared, file))
    size = os.path.getsize(path)
    job.console.note(f"made the index {path}: {size_text(size)}", fields={"index": path, "made_index": True})
    return prepared
