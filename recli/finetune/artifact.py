"""A delta: what an adapter has learned, for one base alone. It knows no file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Provenance, Taker, id_arrays, text_ids, texts
from recli.checks import Arrays, check_array, check_csr, check_ids
from recli.errors import DataError
from recli.ids import Csr, Ids

PART = "part_"
NAMES = ("bias", "rows", "scale", "bilinear", "lora", "features", "head", "full")
LONGEST_CHAIN = 1000


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """adapter: one of NAMES. parts: its parameters by name, of its own layout. chain: fingerprints of the base and of
    the adapters that come before this one, in order.

    new_user_ids, new_item_ids: ids that the base has not, numbered behind its own, with their rows P float32[u, r],
    Q float32[i, r] and biases b_u float32[u], b_v float32[i] before the adapter changes them. seen: CSR [users, items]
    with the new ones, the pairs of its data; seen_values: what the base's solver takes them for. names: of the columns
    of features, user -> names, item -> names, where the parts map them.
    """

    kind: ClassVar[str] = "adapter"
    version: ClassVar[int] = 1

    adapter: str
    chain: tuple[str, ...]
    parts: Arrays
    new_user_ids: Ids
    new_item_ids: Ids
    P: NDArray[np.float32]
    Q: NDArray[np.float32]
    b_u: NDArray[np.float32]
    b_v: NDArray[np.float32]
    seen: Csr
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if self.adapter not in NAMES:
            raise DataError(f"header: adapter: expected one of {', '.join(NAMES)}, found {self.adapter!r:.40}")
        check_ids("new_user_ids", self.new_user_ids)
        check_ids("new_item_ids", self.new_item_ids)
        users, items = len(self.new_user_ids), len(self.new_item_ids)
        rank = self.P.shape[1] if self.P.ndim == 2 else -1
        check_array("P", self.P, np.float32, (users, rank), finite=True)
        check_array("Q", self.Q, np.float32, (items, rank), finite=True)
        check_array("b_u", self.b_u, np.float32, (users,), finite=True)
        check_array("b_v", self.b_v, np.float32, (items,), finite=True)
        if self.seen.indptr.dtype != np.int64 or self.seen.indptr.ndim != 1:
            raise DataError(f"array seen_indptr: expected int64[users + 1], found {self.seen.indptr.dtype}")
        check_csr("seen_", self.seen.indptr, self.seen.indices, len(self.seen.indptr) - 1, 2**31 - 1)
        check_array("seen_values", self.seen.values, np.float32, (len(self.seen.indices),), finite=True)
        if not 1 <= len(self.chain) <= LONGEST_CHAIN:
            raise DataError(f"header: chain: expected 1 to {LONGEST_CHAIN} fingerprints, found {len(self.chain)}")

    @property
    def nbytes(self) -> int:
        """Of what was learned and of new rows."""
        return sum(array.nbytes for array in (*self.parts.values(), self.P, self.Q, self.b_u, self.b_v))

    def arrays(self) -> Arrays:
        named: Arrays = {PART + name: array for name, array in self.parts.items()}
        named |= {name: getattr(self, name) for name in ("P", "Q", "b_u", "b_v")}
        named |= {"seen_indptr": self.seen.indptr, "seen_indices": self.seen.indices, "seen_values": self.seen.values}
        for name, ids in (
            ("new_user_ids", self.new_user_ids),
            ("new_item_ids", self.new_item_ids),
            ("adapter", text_ids([self.adapter])),
            ("chain", text_ids(self.chain)),
            *((f"{role}_names", text_ids(names)) for role, names in self.names.items()),
        ):
            named |= id_arrays(name, ids)
        return named

    @classmethod
    def from_arrays(cls, arrays: Arrays, provenance: Provenance) -> Adapter:
        take = Taker(arrays)
        names: dict[str, Any] = {
            role: texts(f"{role}_names", take.ids(f"{role}_names"))
            for role in ("user", "item")
            if f"{role}_names_utf8" in arrays
        }
        kind = texts("adapter", take.ids("adapter"))
        return cls(
            adapter=kind[0] if len(kind) == 1 else "",
            chain=texts("chain", take.ids("chain")),
            parts={name.removeprefix(PART): array for name, array in arrays.items() if name.startswith(PART)},
            new_user_ids=take.ids("new_user_ids"),
            new_item_ids=take.ids("new_item_ids"),
            **{name: take[name] for name in ("P", "Q", "b_u", "b_v")},
            seen=Csr(take["seen_indptr"], take["seen_indices"], take["seen_values"]),
            names=names,
            provenance=provenance,
        )


class Parts(dict[str, NDArray[Any]]):
    """Parameters by name, with an error that names what is missing."""

    def __missing__(self, name: str) -> NDArray[Any]:
        raise DataError(f"array {PART}{name} is missing")
