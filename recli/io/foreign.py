"""Finished models: what other programs saved, as `Factors`; recli's own come back as they are.

implicit (0.6 and newer, any of its matrix factorisations, from CPU or GPU) saves `user_factors` and `item_factors`,
whose dot products are its scores. BPR and logistic MF keep biases in columns whose partners are all ones; they become
biases here, so that what needs factors alone (similar items) has them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors, Interactions, Provenance
from recli.errors import DataError, UsageError, about
from recli.ids import Ids
from recli.io.alignment import continue_ids
from recli.io.archives import array_names, read_arrays
from recli.io.id_columns import to_series
from recli.io.npz import read_npz
from recli.io.sources import Source

EXPECTED = "expected a model that implicit or recli saved (NPZ)"
# a setting that only one of implicit's models saves -> the model, and its columns for biases
MODELS = {"use_cg": ("ALS", 0), "verify_negative_samples": ("BPR", 1), "neg_prop": ("LMF", 2)}


def read_model(found: Source) -> Factors:
    """The model in one NPZ file: recli's factors, or another program's user_factors [users, k] and item_factors
    [items, k], float16 to float64.

    The latter's ids are its row numbers; it has no seen lists (see `with_seen`), and counts of zero. Raises DataError.
    """
    if found.format != "npz" or len(found.files) != 1 or found.remote:
        raise DataError(f"{EXPECTED}, found {len(found.files)} {found.format}", file=found.name)
    with open(found.files[0], "rb") as file:
        names = array_names(file, found.name)
        if "header" in names:
            return read_npz(file, Factors, found.name)
        if not {"user_factors", "item_factors"} <= set(names):
            there = ", ".join(sorted(names)[:8]) or "none"
            raise DataError(f"{EXPECTED}, with arrays user_factors and item_factors; found {there}", file=found.name)
        arrays = read_arrays(file, ("user_factors", "item_factors"), found.name)
    with about(found.name):
        P, Q = (as_factors(name, array) for name, array in arrays.items())
        if P.shape[1] != Q.shape[1]:
            raise DataError(
                f"user_factors and item_factors: expected rows of one length, found {P.shape[1]} and {Q.shape[1]}"
            )
        kind, biases = next((MODELS[name] for name in names if name in MODELS), ("", 0))
        P, Q, b_u, b_v = _split(P, Q, biases)
        return imported(P, Q, f"implicit {kind}".strip(), found.sha256(), b_u=b_u, b_v=b_v)


def imported(
    P: NDArray[np.float32],
    Q: NDArray[np.float32],
    origin: str,
    inputs: list[str],
    *,
    b_u: NDArray[np.float32] | None = None,
    b_v: NDArray[np.float32] | None = None,
    user_ids: Ids | None = None,
    item_ids: Ids | None = None,
    columns: dict[str, str] | None = None,
) -> Factors:
    """The model of rows P [users, r] and Q [items, r] from another program, with counts of zero and no seen lists.

    origin: which program; inputs: sha256 of its files. b_u [users], b_v [items]: biases, None: zeros. user_ids,
    item_ids: None: row numbers. columns: role -> name of the ids, None: user and item.
    """
    provenance = Provenance(command="factorize", config={"solver": "imported", "imported_from": origin}, inputs=inputs)
    return Factors(
        P=P,
        Q=Q,
        b_u=np.zeros(len(P), np.float32) if b_u is None else b_u,
        b_v=np.zeros(len(Q), np.float32) if b_v is None else b_v,
        b=np.array(0, np.float32),
        user_ids=Ids(np.arange(len(P))) if user_ids is None else user_ids,
        item_ids=Ids(np.arange(len(Q))) if item_ids is None else item_ids,
        item_counts=np.zeros(len(Q), np.int64),
        provenance=dataclasses.replace(provenance, columns=columns) if columns else provenance,
    )


def as_factors(name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """float32 in C order; those that are so already stay memory-mapped."""
    if array.ndim != 2 or not array.size or array.dtype.kind != "f":
        raise DataError(
            f"array {name}: expected a table of float16, float32 or float64, found {array.dtype}{list(array.shape)}"
        )
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(narrow).all():
        raise DataError(f"array {name}: expected numbers that float32 holds, found NaN, infinity or larger ones")
    return narrow


def _split(
    P: NDArray[np.float32], Q: NDArray[np.float32], biases: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """P, Q, b_u, b_v of rows that end in biases: users' in 1 (BPR) or 1, b_u (logistic MF), items' in b_v or b_v, 1.

    Where the ones are something else, all columns stay factors: the scores are the same.
    """
    rank = P.shape[1] - biases
    zeros = np.zeros(len(P), np.float32), np.zeros(len(Q), np.float32)
    if not biases or rank < 0 or not ((P[:, rank] == 1).all() and (Q[:, rank + 1 :] == 1).all()):
        return P, Q, *zeros
    b_u = P[:, rank + 1].copy() if biases == 2 else zeros[0]
    return np.ascontiguousarray(P[:, :rank]), np.ascontiguousarray(Q[:, :rank]), b_u, Q[:, rank].copy()


def with_seen(model: Factors, interactions: Interactions, name: str, *, seen: bool = True) -> Factors:
    """An imported model with the users' own items and the items' counts, from interactions with its ids, which are its
    row numbers unless it came with others.

    name: their file, for errors. seen: False takes the counts only. Raises DataError for ids that it has not,
    UsageError for a model of recli's own, whose seen lists belong to what it was trained on.
    """
    if model.provenance.config.get("solver") != "imported":
        raise UsageError(
            "the imported model is recli's own, with ids and seen lists of its own: leave it out", file=name
        )
    aligned = continue_ids(interactions, model, name)
    for role, ids, known in (
        ("user", aligned.user_ids, model.user_ids),
        ("item", aligned.item_ids, model.item_ids),
    ):
        if len(ids) > len(known):
            column = interactions.provenance.columns[role]
            first = to_series(ids, role)[len(known)]
            raise DataError(f"column {column!r}: expected {_known(known)}, found {first!r}", file=name)
    matrix, theirs = aligned.matrix, interactions.provenance
    return dataclasses.replace(
        model,
        item_counts=np.bincount(matrix.indices, minlength=len(model.item_ids)).astype(np.int64),
        seen_indptr=matrix.indptr if seen else None,
        seen_indices=matrix.indices if seen else None,
        provenance=dataclasses.replace(
            model.provenance,
            config={**model.provenance.config, **theirs.config},
            inputs=[*model.provenance.inputs, *theirs.inputs],
            columns=theirs.columns,
        ),
    )


def _known(ids: Ids) -> str:
    """What ids of an imported model are, for errors."""
    if ids.offsets is None and np.array_equal(ids.values, np.arange(len(ids))):
        return f"row numbers of the imported model, 0 to {len(ids) - 1}"
    return "ids of the imported model"
