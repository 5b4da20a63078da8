"""recli score --index: a model with what was prepared of it, read only as far as its users need."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from recli.cli.console import size_text
from recli.cli.score_job import Job
from recli.errors import DataError

if TYPE_CHECKING:
    from recli.artifacts import Factors
    from recli.io import Source
    from recli.kernels.spec import Kernels
    from recli.score import Prepared


def read_model(job: Job, found: Source) -> tuple[Factors, Prepared | None]:
    """The model, and its index where --index names one that is there. Raises DataError for that of another model."""
    from recli import io
    from recli.artifacts import Factors
    from recli.score import Prepared

    path = job.flags["index"]
    if path is None:
        return io.read_artifact(found, Factors), None
    if not os.path.exists(path):
        with io.output(path):  # may it be made later?
            return io.read_artifact(found, Factors), None
    with io.source([path]) as index:
        prepared = io.read_artifact(index, Prepared, checked=False)
    if prepared.provenance.inputs != [io.fingerprint(found)]:
        raise DataError(
            f"it is the index of another model than {found.name}: remove it (a new one will be made), or give another "
            "--index",
            file=path,
        )
    model = io.read_artifact(found, Factors, checked=False)  # that was done when the index was made
    if prepared.sizes != (len(model.user_ids), len(model.item_ids)):
        raise DataError("a damaged index: remove it, and it will be made again", file=path)
    ids = dataclasses.replace(model.user_ids, order=prepared.users_by_id)
    job.console.note(f"index {path}", detail=True, fields={"index": path})
    return dataclasses.replace(model, user_ids=ids, checked=False), prepared


def make_index(job: Job, found: Source, model: Factors, kernels: Kernels) -> Prepared:
    """Prepares the model, and writes that to --index."""
    from recli import io
    from recli.score import prepare

    path = job.flags["index"]
    with io.output(path) as out:
        prepared = prepare(model, kernels, io.id_order(model.user_ids), io.fingerprint(found))
        out.write(lambda file: io.write_npz(prepared, file))
    size = os.path.getsize(path)
    job.console.note(f"made the index {path}: {size_text(size)}", fields={"index": path, "made_index": True})
    return prepared
