"""What steps hand to each other: arrays that validate themselves and know no file.

Each artifact turns itself into named arrays (`arrays`) and back (`from_arrays`); io/ stores them with a header. An
array that is missing or wrong is a DataError that names the field, what was expected and what was found.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recli.checks import Arrays, check_array, check_csr, check_ids
from recli.encoded import Rows, from_named, named
from recli.errors import DataError
from recli.ids import Csr, Ids


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where an artifact comes from: no path and no clock, so the same job writes the same bytes.

    columns: the names of the user and item columns in the input, used again in outputs. inputs: sha256 of each input
    file.
    """

    command: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    inputs: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=lambda: {"user": "user", "item": "item"})


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Users' ratings or counts of items. matrix: CSR [users, items], values finite; weighted: the values are confidence
    weights.
    """

    kind: ClassVar[str] = "interactions"
    version: ClassVar[int] = 1

    matrix: Csr
    user_ids: Ids
    item_ids: Ids
    weighted: bool = False
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        check_ids("user_ids", self.user_ids)
        check_ids("item_ids", self.item_ids)
        check_csr("", self.matrix.indptr, self.matrix.indices, len(self.user_ids), len(self.item_ids))
        check_array("data", self.matrix.values, np.float32, (len(self.matrix.indices),), finite=True)

    def arrays(self) -> Arrays:
        named: Arrays = {"indptr": self.matrix.indptr, "indices": self.matrix.indices, "data": self.matrix.values}
        named["weighted"] = np.array(self.weighted)
        return {**named, **id_arrays("user_ids", self.user_ids), **id_arrays("item_ids", self.item_ids)}

    @classmethod
    def from_arrays(cls, arrays: Arrays, provenance: Provenance) -> Interactions:
        take = Taker(arrays)
        check_array("weighted", take["weighted"], np.bool_, ())
        return cls(
            matrix=Csr(take["indptr"], take["indices"], take["data"]),
            user_ids=take.ids("user_ids"),
            item_ids=take.ids("item_ids"),
            weighted=bool(take["weighted"]),
            provenance=provenance,
        )


@dataclass(frozen=True, kw_only=True)
class Factors:
    """A low-rank model: r(u, v) = p_u . q_v + b_u + b_v + b.

    P: float32[U, r]; Q: float32[I, r], r >= 0, or encoded (encoded.py), with Q_rows float32[I, r] where the exact rows
    are kept beside the codes, or None; b_u: float32[U]; b_v: float32[I]; b: float32 scalar array. item_counts:
    int64[I], the popularity of each item. seen_indptr int64[U + 1], seen_indices int32: item numbers that each user
    has, or both None. seen_values: float32[nnz], what the solver took them for (confidence weights, ratings), or None:
    all ones. checked: False takes what the arrays hold on trust (of a model that was read whole before).
    """

    kind: ClassVar[str] = "factors"
    version: ClassVar[int] = 1

    P: Rows
    Q: Rows
    b_u: NDArray[np.float32]
    b_v: NDArray[np.float32]
    b: NDArray[np.float32]
    user_ids: Ids
    item_ids: Ids
    item_counts: NDArray[np.int64]
    seen_indptr: NDArray[np.int64] | None = None
    seen_indices: NDArray[np.int32] | None = None
    seen_values: NDArray[np.float32] | None = None
    Q_rows: NDArray[np.float32] | None = None
    provenance: Provenance = field(default_factory=Provenance)
    checked: InitVar[bool] = True

    def __post_init__(self, checked: bool) -> None:
        check_ids("user_ids", self.user_ids, checked)
        check_ids("item_ids", self.item_ids, checked)
        users, items = len(self.user_ids), len(self.item_ids)
        rank = self.P.shape[1] if len(self.P.shape) == 2 else -1
        _rows("P", self.P, (users, rank), checked)
        _rows("Q", self.Q, (items, rank), checked)
        if self.Q_rows is not None:
            check_array("Q_rows", self.Q_rows, np.float32, (items, rank), finite=checked)
        check_array("b_u", self.b_u, np.float32, (users,), finite=checked)
        check_array("b_v", self.b_v, np.float32, (items,), finite=checked)
        check_array("b", self.b, np.float32, (), finite=checked)
        check_array("item_counts", self.item_counts, np.int64, (items,))
        if checked and items and int(self.item_counts.min()) < 0:
            raise DataError("array item_counts: expected counts, found a negative number")
        if (self.seen_indptr is None) != (self.seen_indices is None):
            raise DataError("arrays seen_indptr and seen_indices: expected both or neither")
        if self.seen_indptr is not None and self.seen_indices is not None:
            check_csr("seen_", self.seen_indptr, self.seen_indices, users, items, checked)
        if self.seen_values is not None:
            pairs = 0 if self.seen_indices is None else len(self.seen_indices)
            check_array("seen_values", self.seen_values, np.float32, (pairs,), finite=checked)

    def user_rows(self, nums: NDArray[Any] | slice) -> NDArray[np.float32]:
        """Rows whose dot products with `item_rows` are the predictions, biases included: float32[n, r + 2 at most]."""
        return self.laid_out(self.P[nums], self.b_u[nums])

    def laid_out(self, P: NDArray[np.float32], b_u: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same of users who are not in the model, from their rows float32[n, r] and biases float32[n]."""
        extra = [(b_u + self.b)[:, None]] if self._has_level else []
        extra += [np.ones((len(P), 1), np.float32)] if self._has_item_bias else []
        return np.ascontiguousarray(np.hstack([P, *extra], dtype=np.float32))

    def item_rows(self, nums: NDArray[Any] | slice = slice(None)) -> NDArray[np.float32]:
        return self._with_biases(self.item_factors(nums), nums)

    def item_factors(self, nums: NDArray[Any] | slice = slice(None)) -> NDArray[np.float32]:
        """The rows of Q that decide: exact where they are kept, else decoded."""
        return (self.Q if self.Q_rows is None else self.Q_rows)[nums]

    def nominating_rows(self, nums: NDArray[Any] | slice = slice(None)) -> NDArray[np.float32]:
        """The same, decoded, also where the exact rows are kept."""
        return self._with_biases(self.Q[nums], nums)

    def _with_biases(self, rows: NDArray[np.float32], nums: NDArray[Any] | slice) -> NDArray[np.float32]:
        extra = [np.ones((len(rows), 1), np.float32)] if self._has_level else []
        extra += [self.b_v[nums][:, None]] if self._has_item_bias else []
        return np.ascontiguousarray(np.hstack([rows, *extra], dtype=np.float32))

    @cached_property
    def _has_level(self) -> bool:
        return bool(self.b_u.any() or self.b)

    @cached_property
    def _has_item_bias(self) -> bool:
        return bool(self.b_v.any())

    @property
    def seen(self) -> Csr | None:
        """The seen lists as a matrix [users, items], values empty where seen_values is None (all ones); or None."""
        if self.seen_indptr is None or self.seen_indices is None:
            return None
        values = np.zeros(0, np.float32) if self.seen_values is None else self.seen_values
        return Csr(self.seen_indptr, self.seen_indices, values)

    def arrays(self) -> Arrays:
        names = ["b_u", "b_v", "b", "item_counts", "seen_indptr", "seen_indices", "seen_values", "Q_rows"]
        arrays = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {
            **named(self.P, "P"),
            **named(self.Q, "Q"),
            **arrays,
            **id_arrays("user_ids", self.user_ids),
            **id_arrays("item_ids", self.item_ids),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, provenance: Provenance, *, checked: bool = True) -> Factors:
        take = Taker(arrays)
        user_ids, item_ids = take.ids("user_ids"), take.ids("item_ids")
        check_ids("user_ids", user_ids, checked)
        check_ids("item_ids", item_ids, checked)
        P, Q = from_named(arrays, "P", len(user_ids)), from_named(arrays, "Q", len(item_ids))
        return cls(
            P=take["P"] if P is None else P,
            Q=take["Q"] if Q is None else Q,
            **{name: take[name] for name in ("b_u", "b_v", "b", "item_counts")},
            user_ids=user_ids,
            item_ids=item_ids,
            seen_indptr=arrays.get("seen_indptr"),
            seen_indices=arrays.get("seen_indices"),
            seen_values=arrays.get("seen_values"),
            Q_rows=arrays.get("Q_rows"),
            provenance=provenance,
            checked=checked,
        )


@dataclass(frozen=True, kw_only=True)
class Features:
    """What is known of users or of items, a row for each number: [sparse | dense].

    sparse: CSR [n, s] with sparse_names; dense: float32[n, d] with dense_names. All values are finite, and names occur
    once among all. ids: those of the interactions first, then others that have attributes. has_row: bool[n], does an id
    have attributes, or do its values stand for missing ones.
    """

    kind: ClassVar[str] = "features"
    version: ClassVar[int] = 1

    ids: Ids
    sparse: Csr
    dense: NDArray[np.float32]
    sparse_names: tuple[str, ...]
    dense_names: tuple[str, ...]
    has_row: NDArray[np.bool_]
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        check_ids("ids", self.ids)
        rows = len(self.ids)
        check_csr("", self.sparse.indptr, self.sparse.indices, rows, len(self.sparse_names))
        check_array("data", self.sparse.values, np.float32, (len(self.sparse.indices),), finite=True)
        check_array("dense", self.dense, np.float32, (rows, len(self.dense_names)), finite=True)
        check_array("has_row", self.has_row, np.bool_, (rows,))
        if len({*self.sparse_names, *self.dense_names}) < len(self.sparse_names) + len(self.dense_names):
            raise DataError("arrays sparse_names, dense_names: expected names that occur once, found some again")

    def arrays(self) -> Arrays:
        matrix = self.sparse
        return {
            "indptr": matrix.indptr,
            "indices": matrix.indices,
            "data": matrix.values,
            "dense": self.dense,
            "has_row": self.has_row,
            **id_arrays("sparse_names", text_ids(self.sparse_names)),
            **id_arrays("dense_names", text_ids(self.dense_names)),
            **id_arrays("ids", self.ids),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, provenance: Provenance) -> Features:
        take = Taker(arrays)
        return cls(
            ids=take.ids("ids"),
            sparse=Csr(take["indptr"], take["indices"], take["data"]),
            dense=take["dense"],
            sparse_names=texts("sparse_names", take.ids("sparse_names")),
            dense_names=texts("dense_names", take.ids("dense_names")),
            has_row=take["has_row"],
            provenance=provenance,
        )


REASONS = ("model", "history", "popular")
MODEL, HISTORY, POPULAR = range(len(REASONS))
# Of the predictions of given pairs: 1 is added for a user that the model does not know, 2 for an item.
PAIR_REASONS = ("model", "unknown user", "unknown item", "unknown user and item")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Top-K lists of the requested users from position `start` on, best first.

    items: int32[n, k], -1 where a list ends early (nothing else may be recommended). scores: float32[n, k]. reasons:
    uint8[n], numbers of REASONS: the model's user, one folded in from a history, or one that is not known at all, whose
    list is the most popular items with their numbers of users for scores. because: int32[n, k, N] items of the user's
    past that contribute most to each score, -1 where there are fewer, and because_scores float32[n, k, N], their parts
    of it; or both None.
    """

    start: int
    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    reasons: NDArray[np.uint8]
    because: NDArray[np.int32] | None = None
    because_scores: NDArray[np.float32] | None = None


class Taker:
    """Arrays by name, with an error that names what is missing."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            raise DataError(f"array {name} is missing; found {', '.join(sorted(self._arrays))}")
        return self._arrays[name]

    def ids(self, name: str) -> Ids:
        if f"{name}_utf8" in self._arrays:
            return Ids(self[f"{name}_utf8"], self[f"{name}_offsets"])
        return Ids(self[name])


def id_arrays(name: str, ids: Ids) -> Arrays:
    return {name: ids.values} if ids.offsets is None else {f"{name}_utf8": ids.values, f"{name}_offsets": ids.offsets}


def text_ids(names: Sequence[str]) -> Ids:
    encoded = [name.encode() for name in names]
    offsets = np.zeros(len(names) + 1, np.int64)
    np.cumsum([len(name) for name in encoded], out=offsets[1:])
    return Ids(np.frombuffer(b"".join(encoded), np.uint8), offsets)


def texts(name: str, text: Ids) -> tuple[str, ...]:
    check_ids(name, text)
    if text.offsets is None:
        raise DataError(f"array {name}: expected text, found numbers")
    data = text.values.tobytes()
    try:
        return tuple(data[a:b].decode() for a, b in itertools.pairwise(text.offsets.tolist()))
    except UnicodeDecodeError as error:
        raise DataError(f"array {name}: expected UTF-8 text, found {error}") from error


def _rows(name: str, rows: Rows, shape: tuple[int, int], finite: bool) -> None:
    """An encoded table has checked its own arrays."""
    if isinstance(rows, np.ndarray):
        check_array(name, rows, np.float32, shape, finite=finite)
    elif rows.shape != shape:
        raise DataError(f"array {name}: expected rows {list(shape)}, found {list(rows.shape)}")
