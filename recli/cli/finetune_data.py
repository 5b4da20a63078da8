"""recli finetune: the tables of new interactions, of validation and of attributes, in the numbers of the base."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recli.cli.adapted import ROLES, feature_files
from recli.cli.console import counted
from recli.cli.finetune_job import Job, valid_file
from recli.cli.training import say_what_was_read, valid_share
from recli.errors import DataError, UsageError, about

if TYPE_CHECKING:
    from recli.artifacts import Factors, Interactions
    from recli.finetune import Attributes, NewData
    from recli.ids import Csr, Ids


@dataclass(frozen=True)
class NewTables:
    """user_ids, item_ids: the base's, then new ones. held: of validation, or None; old: of forgetting, or None: the
    base's own pairs. inputs: sha256 of the files; reading: how NEW was read in the end.
    """

    data: NewData
    user_ids: Ids
    item_ids: Ids
    held: Csr | None
    old: Csr | None
    features: dict[str, Attributes]
    inputs: list[str]
    reading: dict[str, Any]


def read_new(job: Job, factors: Factors) -> NewTables:
    from recli import io
    from recli.finetune import NewData
    from recli.ids import widen

    inputs: list[str] = []
    ids, interactions, every = {"user": factors.user_ids, "item": factors.item_ids}, None, _no_pairs()
    if job.new:
        interactions, every = _read_interactions(job, factors, inputs)
        ids = {"user": interactions.user_ids, "item": interactions.item_ids}
    features: dict[str, Attributes] = {}
    if job.flags["features"] is not None:
        features, ids = _read_features(job, ids, inputs)
    users, items = len(ids["user"]), len(ids["item"])
    train, held, ratings = every, None, None
    if interactions is not None:
        train, held = _split(job, factors, interactions, inputs)
        ratings = train.values
        train = _learned(factors, train, weighted=interactions.weighted)
    data = NewData(widen(train, users), widen(every, users), users, items, ratings)
    if job.flags["old"]:
        with io.source([job.flags["old"]]) as found:
            pairs, _ = io.read_interactions(found, _as_the_base(job, factors, found.format))
            old, _ = io.held_out(pairs, factors, found.name)
            inputs += found.sha256()
    else:
        old = None
    wide = None if held is None else widen(held, users)
    reading = {} if interactions is None else interactions.provenance.config.get("reading", {})
    return NewTables(
        data, ids["user"], ids["item"], wide, None if old is None else widen(old, users), features, inputs, reading
    )


def _learned(factors: Factors, matrix: Csr, *, weighted: bool) -> Csr:
    from recli.finetune import learned_values

    return matrix._replace(values=learned_values(factors, matrix, weighted=weighted))


def _read_interactions(job: Job, factors: Factors, inputs: list[str]) -> tuple[Interactions, Csr]:
    """The new pairs in the base's numbers, as the table has them, and with values as the base's solver takes them."""
    from recli import io

    with io.source(job.new, job.reading.format) as found:
        reading = _as_the_base(job, factors, found.format)
        interactions, report = io.read_interactions(found, reading)
        say_what_was_read(job.console, report)
        inputs += found.sha256()
        joined = io.continue_ids(interactions, factors, found.name)
        with about(found.name):
            learned = _learned(factors, joined.matrix, weighted=joined.weighted)
        new = len(joined.user_ids) - len(factors.user_ids), len(joined.item_ids) - len(factors.item_ids)
        if new == (len(interactions.user_ids), len(interactions.item_ids)):
            raise DataError(
                f"none of its {counted(new[0], 'user')} and {counted(new[1], 'item')} is in the model: are these the "
                "same kind of ids?",
                file=found.name,
            )
    job.console.note(
        f"{counted(new[0], 'user')} and {counted(new[1], 'item')} are new to the model",
        fields={"new_users": new[0], "new_items": new[1]},
    )
    return joined, learned


def _as_the_base(job: Job, factors: Factors, format: str) -> Any:
    """Weights and repeated rows as the base's data was read, unless flags say otherwise."""
    said = factors.provenance.config.get("reading")
    if not isinstance(said, dict) or format == "npz":
        return job.reading
    changes: dict[str, Any] = {}
    if job.flags["weight"] is None and isinstance(said.get("weight"), str):
        changes["weight"] = said["weight"]
    if "duplicates" not in job.given and said.get("duplicates") in ("first", "sum", "mean", "max"):
        changes["duplicates"] = said["duplicates"]
    return dataclasses.replace(job.reading, **changes)


def _no_pairs() -> Csr:
    import numpy as np

    from recli.ids import Csr

    return Csr(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))


def _split(job: Job, factors: Factors, interactions: Interactions, inputs: list[str]) -> tuple[Csr, Csr | None]:
    """What to learn from, and what is held out."""
    from recli import io
    from recli.splits import hold_out

    asked, matrix = job.flags["valid"], interactions.matrix
    if asked == "none":
        return matrix, None
    if valid_file(asked):
        with io.source([asked]) as found:
            others, _ = io.read_interactions(found, _as_the_base(job, factors, found.format))
            held, dropped = io.held_out(others, interactions, found.name)
            inputs += found.sha256()
        note = f"; {dropped:,} others have a user or item that is not known" if dropped else ""
        job.console.note(f"{len(held.indices):,} pairs for validation{note}")
        return matrix, held
    train, held = hold_out(matrix, valid_share(asked) or 0, job.config.seed, len(factors.item_ids))
    if not len(held.indices):
        if "valid" in job.given:
            raise UsageError(f"--valid {asked}: no pair is held out of {len(matrix.indices)}")
        job.console.note(f"no pair of {len(matrix.indices)} is held out for validation: too few")
        return matrix, None
    job.console.note(f"held out {len(held.indices):,} pairs for validation")
    return train, held


def _read_features(job: Job, ids: dict[str, Ids], inputs: list[str]) -> tuple[dict[str, Attributes], dict[str, Ids]]:
    """The attributes of all ids, to which those that have attributes alone are added."""
    import numpy as np

    from recli import io
    from recli.artifacts import Features
    from recli.finetune import Attributes

    folder, found_any, ids = job.flags["features"], {}, dict(ids)
    for role, path in zip(ROLES, feature_files(folder), strict=True):
        with io.source([path]) as found:
            features = io.read_artifact(found, Features)
            inputs += found.sha256()
        if not len(features.ids) or not (features.sparse_names or features.dense_names):
            continue
        nums, every = io.continued(features.ids, ids[role], role, path)
        rows = np.full(len(every), -1, np.int64)
        rows[nums] = np.arange(len(nums))
        with about(path):
            attributes = Attributes.of(features, rows)
        if not attributes.names or not attributes.there.any():
            continue
        columns = counted(len(attributes.names), "column")
        job.console.note(
            f"{columns} of attributes for {counted(int(attributes.there.sum()), role)}, of which "
            f"{len(every) - len(ids[role]):,} without anything else"
        )
        found_any[role], ids[role] = attributes, every
    if not found_any:
        raise DataError("no attributes of users or items in it", file=folder)
    return found_any, ids
