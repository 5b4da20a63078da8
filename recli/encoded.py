"""Tables of factors in fewer bytes than float32. Each is indexed like an array, by numbers or a slice, and decodes only
the rows asked for; its decoded rows are the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recli.checks import Arrays, check_array
from recli.errors import DataError

Floats: TypeAlias = NDArray[np.float32]
Index: TypeAlias = NDArray[Any] | slice
Layout: TypeAlias = dict[str, tuple[Any, tuple[int, ...]]]  # array: dtype, shape
MOST_HASHES = 8
STEPS_PER_OCTAVE = 16  # of a gain: neighbouring ones differ by 4.4%; 255 of them span a factor of 60,000


@dataclass(frozen=True)
class _Codes:
    """A table whose fields are the arrays that are stored. codes: a row a row of the table, unless said otherwise."""

    name: ClassVar[str]
    codes: NDArray[Any]

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays().values())

    def __len__(self) -> int:
        return self.shape[0]

    def arrays(self) -> Arrays:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def layout(self) -> Layout:
        """What each array must be, given the others."""
        raise NotImplementedError

    def check(self, prefix: str) -> None:
        """Raises DataError, with this before an array's name, where arrays do not fit each other or are not finite."""
        for name, (dtype, shape) in self.layout().items():
            finite = np.issubdtype(dtype, np.floating)
            check_array(prefix + name, getattr(self, name), dtype, shape, finite=finite)


@dataclass(frozen=True)
class Half(_Codes):
    """float16[n, rank]."""

    name: ClassVar[str] = "f16"

    def __getitem__(self, nums: Index) -> Floats:
        return self.codes[nums].astype(np.float32)

    def layout(self) -> Layout:
        return {"codes": (np.float16, _sides(self.codes))}


@dataclass(frozen=True)
class Int8(_Codes):
    """codes int8[n, rank] times scales float32[n], one a row."""

    name: ClassVar[str] = "int8"
    scales: Floats

    def __getitem__(self, nums: Index) -> Floats:
        return np.asarray(self.codes[nums] * self.scales[nums][:, None], np.float32)

    def layout(self) -> Layout:
        n, rank = _sides(self.codes)
        return {"codes": (np.int8, (n, rank)), "scales": (np.float32, (n,))}


@dataclass(frozen=True)
class ProductQuantised(_Codes):
    """Most rows by direction and length, a few with one byte a number.

    head: int32[h], ascending, the numbers of the rows that are head_codes int8[h, rank] times head_scales float32[h].
    The others, in order, have codes uint8[n - h, s], for each of s groups of columns one of 256 centroids, which are
    rows of books int8[256, rank] times book_scales float32[rank]; groups: uint16[rank], the group of each column.
    gains: uint8[n - h]; a row is its centroids times top 2^(-gain / STEPS_PER_OCTAVE), top float32[1].
    """

    name: ClassVar[str] = "pq"
    gains: NDArray[np.uint8]
    top: Floats
    books: NDArray[np.int8]
    book_scales: Floats
    groups: NDArray[np.uint16]
    head: NDArray[np.int32]
    head_codes: NDArray[np.int8]
    head_scales: Floats

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.codes) + len(self.head), self.books.shape[1]

    def __getitem__(self, nums: Index) -> Floats:
        count, rank = self.shape
        nums = _numbers(nums, count)
        before = np.searchsorted(self.head, nums)  # how many of the head have smaller numbers
        is_head = np.zeros(len(nums), bool)
        is_head[before < len(self.head)] = self.head[before[before < len(self.head)]] == nums[before < len(self.head)]
        rows = np.empty((len(nums), rank), np.float32)
        at = before[is_head]
        rows[is_head] = self.head_codes[at] * self.head_scales[at][:, None]
        at = (nums - before)[~is_head]
        gains = self.top * np.exp2(self.gains[at].astype(np.float32) / np.float32(-STEPS_PER_OCTAVE))
        centroids = self.books[self.codes[at][:, self.groups], np.arange(rank)] * self.book_scales
        rows[~is_head] = centroids * gains[:, None]
        return rows

    def layout(self) -> Layout:
        n, width = _sides(self.codes)
        rank, h = _sides(self.books)[1], self.head.size
        return {
            "codes": (np.uint8, (n, width)),
            "gains": (np.uint8, (n,)),
            "top": (np.float32, (1,)),
            "books": (np.int8, (256, rank)),
            "book_scales": (np.float32, (rank,)),
            "groups": (np.uint16, (rank,)),
            "head": (np.int32, (h,)),
            "head_codes": (np.int8, (h, rank)),
            "head_scales": (np.float32, (h,)),
        }

    def check(self, prefix: str) -> None:
        super().check(prefix)
        groups, head, width = self.groups, self.head, self.codes.shape[1]
        if groups.size and groups.max() >= width:
            raise DataError(f"array {prefix}groups: expected numbers below {width}, found {groups.max()}")
        if len(head) and not (head[0] >= 0 and head[-1] < len(self) and (head[1:] > head[:-1]).all()):
            raise DataError(f"array {prefix}head: expected rising numbers below {len(self)}, found otherwise")


@dataclass(frozen=True)
class Hashed:
    """count rows that share those of a smaller table: row u is the sum of sign_h(u) table[place_h(u)] over `hashes`
    hash functions h of the number u, so that nothing is stored for a row (Weinberger et al. 2009, "Feature Hashing for
    Large Scale Multitask Learning"; several hashes: Svenstrup et al. 2017, "Hash Embeddings").
    """

    table: Rows
    count: int
    hashes: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.count, self.table.shape[1]

    @property
    def nbytes(self) -> int:
        return self.table.nbytes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, nums: Index) -> Floats:
        places, signs = hashed_places(_numbers(nums, self.count), len(self.table), self.hashes)
        total = np.zeros((len(places), self.shape[1]), np.float32)
        for place, sign in zip(places.T, signs.T, strict=True):
            total += sign[:, None] * self.table[place]
        return total


def _numbers(nums: Index, count: int) -> NDArray[Any]:
    return np.arange(*nums.indices(count)) if isinstance(nums, slice) else np.asarray(nums)


def _sides(array: NDArray[Any]) -> tuple[int, int]:
    """The shape that a matrix of this one's shape has; of anything else, one that nothing has."""
    return (array.shape[0], array.shape[1]) if array.ndim == 2 else (-1, -1)


Encoded: TypeAlias = Half | Int8 | ProductQuantised | Hashed
Rows: TypeAlias = Floats | Encoded


def hashed_places(nums: NDArray[Any], size: int, hashes: int) -> tuple[NDArray[np.int64], Floats]:
    """Where row numbers go in a table of `size` rows, and with which signs: int64[n, hashes], float32[n, hashes].

    SplitMix64 (Steele, Lea, Flood 2014) of number and hash: the same on every machine and in every version.
    """
    mixed: Any = nums.astype(np.uint64)[:, None] * np.uint64(hashes) + np.arange(hashes, dtype=np.uint64)
    mixed = (mixed + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    signs = np.where(mixed >> np.uint64(63), np.float32(-1), np.float32(1))
    return (mixed % np.uint64(1 << 62) % np.uint64(size)).astype(np.int64), signs


def named(rows: Rows, name: str) -> Arrays:
    """Arrays to store under this name: `from_named` makes the table of them again."""
    if isinstance(rows, np.ndarray):
        return {name: rows}
    if isinstance(rows, Hashed):
        return {**named(rows.table, f"{name}_table"), f"{name}_hashes": np.array(rows.hashes, np.uint8)}
    return {f"{name}_{rows.name}_{part}": array for part, array in rows.arrays().items()}


def from_named(arrays: Mapping[str, NDArray[Any]], name: str, count: int | None) -> Rows | None:
    """The table of `count` rows (None: of any number) stored under this name, or None: there is none. Raises DataError
    where encoded arrays do not fit each other or are not finite; those of a plain array are for the caller to check.
    """
    if name in arrays:
        return arrays[name]
    if f"{name}_hashes" in arrays:
        table = from_named(arrays, f"{name}_table", None)
        if isinstance(table, np.ndarray):
            check_array(f"{name}_table", table, np.float32, _sides(table), finite=True)
        hashes = arrays[f"{name}_hashes"]
        check_array(f"{name}_hashes", hashes, np.uint8, ())
        if table is None or count is None or not len(table) or not 1 <= int(hashes) <= MOST_HASHES:
            raise DataError(
                f"array {name}_hashes: expected 1 to {MOST_HASHES} and a table {name}_table, found {hashes}"
            )
        return Hashed(table, count, int(hashes))
    for kind in (Half, Int8, ProductQuantised):
        prefix = f"{name}_{kind.name}_"
        parts = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        if parts:
            return _checked(kind, parts, prefix, count)
    return None


def _checked(kind: type[Half | Int8 | ProductQuantised], parts: Arrays, prefix: str, count: int | None) -> Rows:
    names = [field.name for field in dataclasses.fields(kind)]
    if sorted(parts) != sorted(names):
        raise DataError(f"arrays {prefix}*: expected {', '.join(names)}, found {', '.join(sorted(parts))}")
    table = kind(**parts)
    table.check(prefix)
    if count is not None and len(table) != count:
        raise DataError(f"array {prefix}codes: expected {count} rows, found {len(table)}")
    return table
