"""A base with its adapters, as recli score and finetune read it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from recli.errors import DataError, UsageError, about

if TYPE_CHECKING:
    from recli.artifacts import Factors
    from recli.cli.console import Console
    from recli.finetune import Adapter


ROLES = {"user": "users.npz", "item": "items.npz"}  # role -> its attributes in a folder of featurize


def feature_files(folder: str | None) -> list[str]:
    """What is read of --features."""
    if not folder:
        return [] if folder is None else [folder]
    return [os.path.join(folder, name) for name in ROLES.values()]


@dataclass(frozen=True)
class Adapted:
    """factors: with all adapters in them but a head, which comes last; chain: fingerprints of base and adapters;
    deltas: the adapters.
    """

    factors: Factors
    chain: tuple[str, ...]
    deltas: tuple[Adapter, ...] = ()
    head: Adapter | None = None


def read_adapted(
    factors: Factors, fingerprint: str, adapters: Sequence[str], flag: str, *, checked: bool = True
) -> Adapted:
    """The adapters in these files, in order, on a base. flag: that names them; checked: False takes on trust that new
    ids are new. Raises DataError for one that is not for what comes before it.
    """
    from recli import io
    from recli.finetune import Adapter, apply, chain_problem

    chain: tuple[str, ...] = (fingerprint,)
    deltas: list[Adapter] = []
    head: Adapter | None = None
    for path in adapters:
        if head is not None:
            raise UsageError(f"{flag} {path}: nothing can come behind a head: give it last, and one alone")
        with io.source([path], "npz" if path == "-" else None) as found:  # an empty pipe is not looked at as a table
            delta, name = io.read_artifact(found, Adapter), found.name
            fingerprint = io.fingerprint(found)
        problem = chain_problem(delta, chain)
        if problem:
            raise DataError(problem, file=name)
        with about(name):
            if checked:
                io.check_new(delta.new_user_ids, factors.user_ids, "new_user_ids")
                io.check_new(delta.new_item_ids, factors.item_ids, "new_item_ids")
            factors = apply(factors, delta)
        chain = (*chain, fingerprint)
        deltas.append(delta)
        head = delta if delta.adapter == "head" else None
    return Adapted(factors, chain, tuple(deltas), head)


def fingerprint_of_tables(inputs: Sequence[str]) -> str:
    """Of a base that is made of several files, by their sha256."""
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()


def with_features(adapted: Adapted, folder: str, console: Console) -> Adapted:
    """With rows for the folder's ids that the model does not know, from their attributes, by the last adapter of
    features. Raises UsageError where there is none, DataError for features of another spec.
    """
    from recli import io
    from recli.artifacts import Features
    from recli.finetune import with_attributes

    at = next((at for at, delta in reversed(list(enumerate(adapted.deltas))) if delta.names), None)
    if at is None:
        raise UsageError("--features: none of the adapters maps attributes to rows: give one of --adapter features")
    mapping, later = adapted.deltas[at], adapted.deltas[at + 1 :]
    factors, hashes = adapted.factors, []
    for role, name in ROLES.items():
        if role not in mapping.names:
            continue
        path = os.path.join(folder, name)
        with io.source([path]) as found:
            features = io.read_artifact(found, Features)
            hashes.append(io.fingerprint(found))
        known = factors.user_ids if role == "user" else factors.item_ids
        nums, ids = io.continued(features.ids, known, role, path)
        with about(path):
            factors = with_attributes(factors, mapping, role, features, nums, ids, later)
        count = len(ids) - len(known)
        console.note(f"{count:,} {role}s get rows from their attributes", fields={f"mapped_{role}s": count})
    return replace(adapted, factors=factors, chain=(*adapted.chain, *hashes))
