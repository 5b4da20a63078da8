"""A base and its deltas as one model: what `recli score --adapter` scores, and `--merge` writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors, Features
from recli.checks import Arrays, check_array, check_csr
from recli.errors import DataError, UsageError
from recli.finetune.artifact import Adapter, Parts
from recli.finetune.bilinear import apply_bilinear
from recli.finetune.features import Attributes, apply_features
from recli.finetune.head import check_head, logits
from recli.finetune.lora import apply_lora
from recli.finetune.losses import sigmoid
from recli.finetune.rows import apply_rows
from recli.finetune.tables import Tables
from recli.ids import Csr, Ids, row_numbers, to_csr
from recli.kernels.spec import Floats


def apply_nothing(arrays: Arrays, tables: Tables) -> Tables:
    """Of a head: the model below it stays."""
    check_head(arrays, tables.P.shape[1])
    return tables


APPLY: dict[str, Callable[[Arrays, Tables], Tables]] = {
    "bias": apply_rows,
    "rows": apply_rows,
    "full": apply_rows,
    "scale": apply_bilinear,
    "bilinear": apply_bilinear,
    "lora": apply_lora,
    "features": apply_features,
    "head": apply_nothing,
}


def apply(factors: Factors, delta: Adapter) -> Factors:
    """The model with the delta in it. Whether it is that of the delta's chain is for the caller to check.

    Raises DataError where the delta does not fit.
    """
    rank = factors.P.shape[1]
    if delta.P.shape[1] != rank:
        raise DataError(f"array P: expected rows of {rank} numbers, as the model has, found {delta.P.shape[1]}")
    users, items = len(factors.user_ids) + len(delta.new_user_ids), len(factors.item_ids) + len(delta.new_item_ids)
    if len(delta.seen.indptr) != users + 1:
        raise DataError(f"array seen_indptr: expected {users + 1} numbers, found {len(delta.seen.indptr)}")
    check_csr("seen_", delta.seen.indptr, delta.seen.indices, users, items)
    tables = tables_of(factors, delta)
    if scores_overflow(tables) and not scores_overflow(tables_of(factors, delta, applied=False)):
        raise DataError(
            "the scores of the model with this adapter overflow float32: train it again, with a smaller "
            "--learning-rate or a larger --stay"
        )
    seen, values, counts = _seen(factors, delta.seen, users, items)
    return Factors(
        P=np.ascontiguousarray(tables.P),
        Q=np.ascontiguousarray(tables.Q),
        b_u=tables.b_u,
        b_v=tables.b_v,
        b=np.array(tables.b, np.float32),
        user_ids=joined(factors.user_ids, delta.new_user_ids),
        item_ids=joined(factors.item_ids, delta.new_item_ids),
        item_counts=counts,
        seen_indptr=None if seen is None else seen.indptr,
        seen_indices=None if seen is None else seen.indices,
        seen_values=values,
        provenance=dataclasses.replace(
            factors.provenance,
            config={
                **factors.provenance.config,
                "adapters": [*factors.provenance.config.get("adapters", []), delta.adapter],
            },
            inputs=[*factors.provenance.inputs, *delta.provenance.inputs],
        ),
    )


def tables_of(factors: Factors, delta: Adapter, *, applied: bool = True) -> Tables:
    """The model's tables with rows for the delta's new ids: what the adapter makes of them, or, not applied, as they
    were before, zero for new ids.
    """
    new = [delta.P, delta.Q, delta.b_u, delta.b_v]
    if not applied:
        new = [np.zeros_like(one) for one in new]
    tables = Tables(
        P=_behind(factors.P[:], new[0]),
        Q=_behind(factors.item_factors(), new[1]),
        b_u=_behind(factors.b_u, new[2]),
        b_v=_behind(factors.b_v, new[3]),
        b=np.float32(factors.b),
    )
    if not applied:
        return tables
    with np.errstate(over="ignore", invalid="ignore"):
        tables = APPLY[delta.adapter](Parts(delta.parts), tables)
    if not all(np.isfinite(one).all() for one in (tables.P, tables.Q, tables.b_u, tables.b_v, tables.b)):
        raise DataError("the model with the adapter overflows float32")
    return tables


def scores_overflow(tables: Tables) -> bool:
    """Could some? By |p . q| <= |p| |q|, biases included, as `score` bounds them."""
    users, items = _longest(tables.P, tables.b_u + tables.b), _longest(tables.Q, tables.b_v)
    return not users * items <= float(np.finfo(np.float32).max) / 4


def _longest(rows: Floats, biases: Floats) -> float:
    squares = np.einsum("nr,nr->n", rows, rows, dtype=np.float64) + np.square(biases, dtype=np.float64)
    return float(np.sqrt(1 + squares.max(initial=0)))


def head_probabilities(factors: Factors, head: Adapter, users: NDArray[np.int64], items: NDArray[np.int64]) -> Floats:
    """Of pairs of numbers, -1 for ids that the model, with the head's new ones, does not know: float32[n]."""
    at = [(nums >= 0, np.maximum(nums, 0)) for nums in (users, items)]
    p, q = factors.P[at[0][1]], factors.item_factors(at[1][1])
    b_u, b_v = factors.b_u[at[0][1]], factors.b_v[at[1][1]]
    for (known, _), rows, biases in zip(at, (p, q), (b_u, b_v), strict=True):
        rows[~known], biases[~known] = 0, 0
    found = logits(p, q, np.asarray(b_u + b_v + factors.b, np.float32), head.parts)
    return sigmoid(found.astype(np.float64)).astype(np.float32)


def head_logits(factors: Factors, head: Adapter, users: NDArray[np.int64], items: NDArray[np.int64]) -> Floats:
    """What a head says of pairs of numbers, before the sigmoid: float32[n]. factors: without or with its new ids."""
    tables = tables_of(factors, head) if len(head.new_user_ids) + len(head.new_item_ids) else None
    P, Q = (tables.P, tables.Q) if tables else (factors.P, factors.item_factors())
    b_u, b_v = (tables.b_u, tables.b_v) if tables else (factors.b_u, factors.b_v)
    biases = np.asarray(b_u[users] + b_v[items] + factors.b, np.float32)
    return logits(P[users], Q[items], biases, head.parts)


def with_attributes(
    factors: Factors,
    delta: Adapter,
    role: str,
    features: Features,
    nums: NDArray[np.int64],
    ids: Ids,
    later: Sequence[Adapter] = (),
) -> Factors:
    """The model with rows for users or items that it does not know, from their attributes. ids: the model's, then the
    features' others; nums: the number in these of each row of features; later: adapters behind delta in the model, of
    which those change the rows that change all.

    Raises DataError for features that the delta does not map.
    """
    rows_of = np.full(len(ids), -1, np.int64)
    rows_of[nums] = np.arange(len(nums))
    known = len(factors.user_ids if role == "user" else factors.item_ids)
    attributes = Attributes.of(features, rows_of[known:])
    if attributes.names != delta.names[role]:
        raise DataError(
            "its columns are not those that the adapter was trained on: expected what featurize --apply makes by the "
            "same spec"
        )
    W = Parts(delta.parts)[f"W_{role}"]
    rank = factors.P.shape[1]
    check_array(f"part_W_{role}", W, np.float32, (attributes.columns, rank + 1), finite=True)
    mapped = attributes.times(W)
    rows, biases = np.ascontiguousarray(mapped[:, :rank]), np.ascontiguousarray(mapped[:, rank])
    if f"D_{role}" in delta.parts:  # trained by gradient, on top of W
        check_array(f"part_D_{role}", delta.parts[f"D_{role}"], np.float32, (attributes.columns, rank), finite=True)
        rows += attributes.times(delta.parts[f"D_{role}"])
    if role == "item":
        for one in later:
            if one.adapter in ("scale", "bilinear"):
                alone = Tables(factors.P[:0], rows, factors.b_u[:0], biases, np.float32(0))
                rows = np.ascontiguousarray(APPLY[one.adapter](Parts(one.parts), alone).Q)
        counts = np.concatenate([factors.item_counts, np.zeros(len(rows), np.int64)])
        Q, b_v = _behind(factors.item_factors(), rows), _behind(factors.b_v, biases)
        return dataclasses.replace(factors, Q=Q, Q_rows=None, b_v=b_v, item_ids=ids, item_counts=counts)
    indptr = factors.seen_indptr
    if indptr is not None:
        indptr = np.append(indptr, np.full(len(rows), indptr[-1]))
    P, b_u = _behind(factors.P[:], rows), _behind(factors.b_u, biases)
    return dataclasses.replace(factors, P=P, b_u=b_u, user_ids=ids, seen_indptr=indptr)


def _behind(known: NDArray[np.float32], added: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([known, added]) if len(added) else known


def joined(known: Ids, new: Ids) -> Ids:
    """Known ids, then new ones of the same type."""
    if not len(new):
        return known
    if known.offsets is None or new.offsets is None:
        wide = np.result_type(known.values.dtype, new.values.dtype)
        if known.offsets is not None or new.offsets is not None or not np.issubdtype(wide, np.integer):
            raise DataError("arrays new_user_ids, new_item_ids: expected ids of the model's type")
        return Ids(np.concatenate([known.values, new.values], dtype=wide))
    offsets = np.concatenate([known.offsets, known.offsets[-1] + new.offsets[1:]])
    return Ids(np.concatenate([known.values, new.values]), offsets)


def _seen(
    factors: Factors, new: Csr, users: int, items: int
) -> tuple[Csr | None, NDArray[np.float32] | None, NDArray[np.int64]]:
    """What users have now, what the solver takes it for, and how many users have each item."""
    counts = np.zeros(items, np.int64)
    counts[: len(factors.item_ids)] = factors.item_counts
    old = factors.seen
    if old is None:  # the model leaves them out, and a few would be taken for all
        return None, None, counts + np.bincount(new.indices, minlength=items)
    has_values = factors.seen_values is not None
    old_values = old.values if has_values else np.ones(len(old.indices), np.float32)
    rows = np.concatenate([row_numbers(old.indptr), row_numbers(new.indptr)]).astype(np.int32)
    columns = np.concatenate([old.indices, new.indices])
    reading = factors.provenance.config.get("reading")
    policy = reading.get("duplicates") if isinstance(reading, dict) else None
    policy = policy if policy in ("first", "sum", "max") else "last"  # a mean would need to know of how many
    merged, _ = to_csr(rows, columns, np.concatenate([old_values, new.values]), users, items, policy)
    counts += np.bincount(merged.indices, minlength=items) - np.bincount(old.indices, minlength=items)
    values = None if not has_values and (merged.values == 1).all() else merged.values
    return merged, values, counts


def chain_problem(delta: Adapter, chain: tuple[str, ...]) -> str | None:
    """Why the delta is not for the base and the adapters before it, of these fingerprints."""
    if delta.chain == chain:
        return None
    if delta.chain[0] != chain[0]:
        return "it is an adapter for another base: apply it to the model that it was trained on"
    expected, found = len(delta.chain) - 1, len(chain) - 1
    if expected != found:
        adapters = f"{expected} adapter{'' if expected == 1 else 's'}"
        return f"it was trained on the base and {adapters} before it, found {found}: give them in order"
    return "it was trained on other adapters before it, or on these in another order"


def check_mergeable(delta: Adapter, file: str) -> None:
    if delta.adapter == "head":
        raise UsageError(
            f"--merge: {file} is a head, which is no low-rank model and cannot be merged: give it to recli "
            "score --adapter"
        )
