"""What scoring makes of a model, made once: later runs map it, and read as much of it as their users need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors, Provenance
from recli.checks import Arrays
from recli.errors import DataError
from recli.ids import Csr
from recli.kernels.spec import Floats, Kernels, Nums


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A search index over all item rows, biases included, as Kernels.index_arrays gives it: rows float32[I, width],
    norms float64[I], order int32[I]. by_popularity: int32[I], item numbers. users_by_id: int64[U], user numbers in the
    order of their ids. Of a model with the fingerprint in provenance.inputs.

    Contents are not looked at until they are used: that takes as long as scoring without.
    """

    kind: ClassVar[str] = "index"
    version: ClassVar[int] = 1

    rows: NDArray[np.float32]
    norms: NDArray[np.float64]
    order: Nums
    by_popularity: Nums
    users_by_id: NDArray[np.int64]
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if self.rows.dtype != np.float32 or self.rows.ndim != 2:
            found = f"{self.rows.dtype}{list(self.rows.shape)}"
            raise DataError(f"array rows: expected float32 in 2 dimensions, found {found}")
        items, users = len(self.rows), self.users_by_id.size
        for name, kind, length in (
            ("norms", np.float64, items),
            ("order", np.int32, items),
            ("by_popularity", np.int32, items),
            ("users_by_id", np.int64, users),
        ):
            array = getattr(self, name)
            if array.dtype != kind or array.shape != (length,):
                expected = f"{np.dtype(kind)} of length {length}"
                raise DataError(f"array {name}: expected {expected}, found {array.dtype}{list(array.shape)}")

    @property
    def sizes(self) -> tuple[int, int]:
        """Of users and items."""
        return len(self.users_by_id), len(self.rows)

    def arrays(self) -> Arrays:
        return {name: getattr(self, name) for name in ARRAYS}

    @classmethod
    def from_arrays(cls, arrays: Arrays, provenance: Provenance, *, checked: bool = True) -> Prepared:
        del checked  # the shapes always are, contents never
        missing = sorted(set(ARRAYS) - arrays.keys())
        if missing:
            raise DataError(f"array {missing[0]} is missing; found {', '.join(sorted(arrays))}")
        return cls(**{name: arrays[name] for name in ARRAYS}, provenance=provenance)


DAMAGED = "the --index is damaged: remove it, and it will be made again"
ARRAYS = ("rows", "norms", "order", "by_popularity", "users_by_id")


def prepare(
    factors: Factors, kernels: Kernels, users_by_id: NDArray[np.int64], fingerprints: Sequence[str]
) -> Prepared:
    """users_by_id: int64[U], as above; fingerprints: what tells the model's file and its adapters from any
    others."""
    return Prepared(
        **kernels.index_arrays(kernels.index_items(factors.item_rows())),
        by_popularity=popularity(factors),
        users_by_id=users_by_id,
        provenance=Provenance(command="score", inputs=list(fingerprints), device=kernels.name),
    )


def popularity(factors: Factors) -> Nums:
    """Item numbers, those with the most users first; ties, of counts as float32, by number: int32[I]."""
    return np.argsort(-factors.item_counts.astype(np.float32), kind="stable").astype(np.int32)


class PreparedRanking:
    """A prepared index, searched as Ranking is."""

    def __init__(self, kernels: Kernels, prepared: Prepared) -> None:
        self._kernels, self._count = kernels, len(prepared.rows)
        self._index: Any = kernels.index_from({name: getattr(prepared, name) for name in ("rows", "norms", "order")})

    def top(self, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        items, scores = self._kernels.topk(self._index, users, k, excluded)
        if len(items) and not -1 <= int(items.min()) <= int(items.max()) < self._count:
            raise DataError(DAMAGED)
        return items, scores
