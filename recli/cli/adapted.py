"""A base with its adapters, as recli score and finetune read it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recli.errors import DataError, UsageError, about

if TYPE_CHECKING:
    from recli.artifacts import Factors
    from recli.finetune import Adapter


@dataclass(frozen=True)
class Adapted:
    """factors: with all adapters in them but a head, which comes last; chain: fingerprints of base and adapters;
    deltas: the adapters.
    """

    factors: Factors
    chain: tuple[str, ...]
    deltas: tuple[Adapter, ...] = ()
    head: Adapter | None = None


def read_adapted(factors: Factors, fingerprint: str, adapters: Sequence[str]) -> Adapted:
    """The adapters in these files, in order, on a base. Raises DataError for one that is not for what comes
    before it.
    """
    from recli import io
    from recli.finetune import Adapter, apply, chain_problem

    chain: tuple[str, ...] = (fingerprint,)
    deltas: list[Adapter] = []
    head: Adapter | None = None
    for path in adapters:
        if head is not None:
            raise UsageError(f"--adapter {path}: nothing can come behind a head: give it last, and one alone")
        with io.source([path]) as found:
            delta = io.read_artifact(found, Adapter)
            fingerprint = io.fingerprint(found)
        problem = chain_problem(delta, chain)
        if problem:
            raise DataError(problem, file=path)
        with about(path):
            factors = apply(factors, delta)
        chain = (*chain, fingerprint)
        deltas.append(delta)
        head = delta if delta.adapter == "head" else None
    return Adapted(factors, chain, tuple(deltas), head)


def fingerprint_of_tables(inputs: Sequence[str]) -> str:
    """Of a base that is made of several files, by their sha256."""
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()
