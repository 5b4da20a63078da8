"""Embedding tables of other programs as `Factors`: what a network in PyTorch or TensorFlow learnt of users and items,
whose dot products are its scores.

A table is an .npy file, or an array in an .npz or .safetensors file, FILE:NAME where that has several. Nothing that is
pickled is ever loaded, and nothing allocated that a file only claims to hold.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.errors import DataError, UsageError, about
from recli.io.archives import array_names, read_arrays
from recli.io.foreign import as_factors, imported
from recli.io.npz import npz_errors, parse_npy
from recli.io.row_ids import RowIds, read_row_ids
from recli.io.sources import STDIN, Source, is_pipe, source
from recli.io.tensors import SHOWN, read_tensor, tensor_specs

EXPECTED = "expected a table of embeddings (.npy, .npz, .safetensors)"
ADVICE = "save its tables as .safetensors or .npy"
# checkpoints, by their names' ends: pickled (PyTorch), HDF5 (Keras), and TensorFlow's own
CHECKPOINT = re.compile(
    r"\.(pt|pth|pkl|pickle|joblib|h5|hdf5|keras|ckpt)$|\.ckpt(-\d+)?(\.(index|meta|data-[-\w]+))?$", re.IGNORECASE
)
CHECKPOINT_STARTS = re.compile(rb"\x89HDF\r\n\x1a\n|\x80[\x02-\x05]")  # HDF5, pickle
WHOLE = "of the file"  # the array of an .npy file, which has no name
NAMES = {"user": "user_factors", "item": "item_factors"}  # what implicit calls them


class _Table(NamedTuple):
    file: str
    array: str
    rows: NDArray[np.float32]


def read_embeddings(users: str, items: str, *, user_ids: str | None = None, item_ids: str | None = None) -> Factors:
    """The model whose scores are the dot products of two tables, float16 to float64 [users, r] and [items, r] (and of
    safetensors bfloat16), as float32; those that are float32 already stay memory-mapped.

    users, items: FILE or FILE:NAME, both of one file or not; the name may be left out where a file has one array, or
    user_factors and item_factors, as implicit's have (columns of biases stay factors; `read_model` splits them).
    user_ids, item_ids: files of ids in the order of the rows; None: row numbers. It has no seen lists (see
    `with_seen`), and counts and biases of zero.

    Raises DataError (65) for other shapes and dtypes, damage, numbers that float32 has not, and ids that do not fit,
    MissingInputError (66), UsageError (2: safetensors is not installed; a name for what has none).
    """
    addresses = {"user": _address(users), "item": _address(items)}
    tables: dict[str, _Table] = {}
    inputs: list[str] = []
    for path in dict.fromkeys(path for path, _ in addresses.values()):  # a pipe can be read once only
        if CHECKPOINT.search(os.path.basename(path)):
            raise DataError(f"{EXPECTED}, found a checkpoint: {ADVICE}", file=path)
        with source([path]) as found:
            for role, (file, name) in addresses.items():
                if file == path:
                    tables[role] = _read(found, name, role)
            inputs += found.sha256()
    P, Q = tables["user"], tables["item"]
    if P.rows.shape[1] != Q.rows.shape[1]:
        raise DataError(
            f"array {Q.array}: expected rows of {P.rows.shape[1]} numbers, as array {P.array} of {P.file} has, found "
            f"{Q.rows.shape[1]}",
            file=Q.file,
        )
    ids: dict[str, RowIds] = {}
    for role, path_of_ids in (("user", user_ids), ("item", item_ids)):
        if path_of_ids is not None:
            ids[role] = read_row_ids(path_of_ids, role, len(tables[role].rows), tables[role].file)
            inputs += ids[role].inputs
    return imported(
        P.rows,
        Q.rows,
        "embeddings",
        inputs,
        user_ids=ids["user"].ids if "user" in ids else None,
        item_ids=ids["item"].ids if "item" in ids else None,
        columns=_columns(ids),
    )


def table_file(text: str) -> str:
    """The file of FILE or FILE:NAME."""
    return _address(text)[0]


def _address(text: str) -> tuple[str, str | None]:
    """FILE or FILE:NAME. A file's name may have colons, and TensorFlow's arrays have them: the longest FILE that is
    there counts.
    """
    if os.path.exists(text):
        return text, None
    for at in reversed([at for at, mark in enumerate(text) if mark == ":"]):
        path = text[:at]
        if path == STDIN or os.path.isfile(path) or is_pipe(path):
            return path, text[at + 1 :]
    return text, None


def _read(found: Source, name: str | None, role: str) -> _Table:
    if found.remote or len(found.files) != 1 or found.format not in ("npy", "npz", "safetensors"):
        raise DataError(_other(found), file=found.name)
    path = found.files[0]
    if found.format == "npy":
        if name is not None:
            raise UsageError(f"its array has no name: leave out :{name}", file=found.name)
        array = WHOLE
        with npz_errors(found.name):
            values = parse_npy(array, np.asarray(np.memmap(path, np.uint8, "r")), fortran=True)
    elif found.format == "npz":
        with open(path, "rb") as file:
            array = _chosen(array_names(file, found.name), name, role, found.name)
            values = read_arrays(file, (array,), found.name)[array]
    else:
        specs = tensor_specs(path, found.name)
        array = _chosen(specs, name, role, found.name)
        with about(found.name):
            values = read_tensor(path, array, specs[array])
    with about(found.name):
        return _Table(found.name, array, as_factors(array, values))


def _other(found: Source) -> str:
    """What is wrong with a source that is no file of arrays."""
    if not found.remote and len(found.files) == 1:
        with open(found.files[0], "rb") as file:
            if CHECKPOINT_STARTS.match(file.read(8)):
                return f"{EXPECTED}, found a checkpoint (pickled, or HDF5), which is never loaded: {ADVICE}"
    where = "remote files of " if found.remote else ""
    return f"{EXPECTED} on this machine, found {len(found.files)} {where}{found.format}"


def _chosen(names: Collection[str], wanted: str | None, role: str, file: str) -> str:
    """The name of the array that is meant."""
    if any(os.path.basename(name) == "data.pkl" for name in names):
        raise DataError(f"{EXPECTED}, found a checkpoint of PyTorch, which is never loaded: {ADVICE}", file=file)
    there = ", ".join(sorted(names)[:SHOWN]) or "none"
    if wanted is not None:
        if wanted not in names:
            raise DataError(f"array {wanted}: no such array; found {there}", file=file)
        return wanted
    if set(NAMES.values()) <= set(names):
        return NAMES[role]
    if len(names) != 1:
        raise DataError(f"expected one array, or FILE:NAME that says which; found {there}", file=file)
    return next(iter(names))


def _columns(ids: dict[str, RowIds]) -> dict[str, str] | None:
    """role -> column, as the ids' files call them, unless both are called the same."""
    columns = {role: ids[role].column if role in ids else role for role in NAMES}
    return columns if columns["user"] != columns["item"] else None
