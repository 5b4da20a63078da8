"""Tables of factors in fewer bytes than float32. Each is indexed like an array, by numbers or a slice, and decodes only
the rows asked for; its decoded rows are the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Index: TypeAlias = NDArray[Any] | slice
Arrays: TypeAlias = dict[str, NDArray[Any]]
STEPS_PER_OCTAVE = 16  # of a gain: neighbouring ones differ by 4.4%; 255 of them span a factor of 60,000


@dataclass(frozen=True)
class Half:
    """float16[n, rank]."""

    name: ClassVar[str] = "f16"
    codes: NDArray[np.float16]

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, nums: Index) -> Floats:
        return self.codes[nums].astype(np.float32)

    def arrays(self) -> Arrays:
        return {"codes": self.codes}


@dataclass(frozen=True)
class Int8:
    """codes int8[n, rank] times scales float32[n], one a row."""

    name: ClassVar[str] = "int8"
    codes: NDArray[np.int8]
    scales: Floats

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, nums: Index) -> Floats:
        return np.asarray(self.codes[nums] * self.scales[nums][:, None], np.float32)

    def arrays(self) -> Arrays:
        return {"codes": self.codes, "scales": self.scales}


@dataclass(frozen=True)
class ProductQuantised:
    """Rows by direction and length. codes: uint8[n, s], for each of s groups of columns one of 256 centroids, which are
    rows of books int8[256, rank] times book_scales float32[rank]; groups: uint8 or uint16[rank], the group of each
    column. gains: uint8[n]; a row is the centroids' times top 2^(-gain / 16).
    """

    name: ClassVar[str] = "pq"
    codes: NDArray[np.uint8]
    gains: NDArray[np.uint8]
    top: Floats
    books: NDArray[np.int8]
    book_scales: Floats
    groups: NDArray[np.uint16]

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.books.shape[1]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, nums: Index) -> Floats:
        codes = self.codes[nums]
        rows = self.books[codes[:, self.groups], np.arange(self.books.shape[1])] * self.book_scales
        gains = self.top * np.exp2(self.gains[nums].astype(np.float32) / np.float32(-STEPS_PER_OCTAVE))
        return np.asarray(rows * gains[:, None], np.float32)

    def arrays(self) -> Arrays:
        names = ("codes", "gains", "top", "books", "book_scales", "groups")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Hashed:
    """count rows that share those of a smaller table: row u is the sum of sign_h(u) table[place_h(u)] over `hashes`
    hash functions h of the number u, so that nothing is stored for a row (Weinberger et al. 2009, "Feature Hashing for
    Large Scale Multitask Learning"; several hashes: Svenstrup et al. 2017, "Hash Embeddings").
    """

    name: ClassVar[str] = "hashed"
    table: Rows
    count: int
    hashes: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.count, self.table.shape[1]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, nums: Index) -> Floats:
        if isinstance(nums, slice):
            nums = np.arange(*nums.indices(self.count))
        places, signs = hashed_places(np.asarray(nums), len(self.table), self.hashes)
        total = np.zeros((len(places), self.shape[1]), np.float32)
        for place, sign in zip(places.T, signs.T, strict=True):
            total += sign[:, None] * self.table[place]
        return total


Encoded: TypeAlias = Half | Int8 | ProductQuantised | Hashed
Rows: TypeAlias = Floats | Encoded


def hashed_places(nums: NDArray[Any], size: int, hashes: int) -> tuple[NDArray[np.int64], Floats]:
    """Where row numbers go in a table of `size` rows, and with which signs: int64[n, hashes], float32[n, hashes].

    SplitMix64 (Steele, Lea, Flood 2014) of number and hash: the same on every machine and in every version.
    """
    mixed = nums.astype(np.uint64)[:, None] * np.uint64(hashes) + np.arange(hashes, dtype=np.uint64)
    mixed = (mixed + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    signs = np.where(mixed >> np.uint64(63), np.float32(-1), np.float32(1))
    return (mixed % np.uint64(1 << 62) % np.uint64(size)).astype(np.int64), signs


def nbytes(rows: Rows) -> int:
    """Of what is stored."""
    if isinstance(rows, np.ndarray):
        return rows.nbytes
    if isinstance(rows, Hashed):
        return nbytes(rows.table)
    return sum(array.nbytes for array in rows.arrays().values())


def named(rows: Rows, name: str) -> Arrays:
    """Arrays to store under this name: `from_named` makes the table of them again."""
    if isinstance(rows, np.ndarray):
        return {name: rows}
    if isinstance(rows, Hashed):
        return {**named(rows.table, f"{name}_table"), f"{name}_hashes": np.array(rows.hashes, np.uint8)}
    return {f"{name}_{rows.name}_{part}": array for part, array in rows.arrays().items()}


def from_named(arrays: Mapping[str, NDArray[Any]], name: str, count: int) -> Rows | None:
    """The table of `count` rows stored under this name, or None; not validated."""
    if f"{name}_hashes" in arrays:
        table = from_named(arrays, f"{name}_table", -1)
        return None if table is None else Hashed(table, count, int(arrays[f"{name}_hashes"]))
    for kind in (Half, Int8, ProductQuantised):
        prefix = f"{name}_{kind.name}_"
        parts = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        if parts:
            return kind(**parts)
    return arrays.get(name)
