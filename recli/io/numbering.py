"""Ids that come in pieces of a column, numbered as they come, so that no whole column of text is ever in memory."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.compiled import nb
from recli.ids import Ids
from recli.io.id_columns import from_series, numbers_or_text

FEWEST = 1 << 12  # ids that there is room for at first


class CollisionError(Exception):
    """Two texts have one hash: to be read again with another seed."""


class Numbering:
    """Numbers ids by first appearance (codes), and when all have come, by ascending id.

    A hash table knows integers by themselves and text by 64 bits, which is compared with the text that has the code.
    The seed is anybody's: no result depends on it, and nobody can choose ids whose hashes collide.
    """

    def __init__(self) -> None:
        self._seed = np.uint64(secrets.randbits(64))
        self._count = 0
        self._keys = np.zeros(FEWEST, np.uint64)
        self._slots = np.full(2 * FEWEST, -1, np.int32)
        self._text = pl.Series([], dtype=pl.String)
        self._integer: np.dtype[Any] | None = None

    def add(self, column: pl.Series) -> NDArray[np.int32]:
        """The codes of integers, or of text: int32[n]. There are no nulls. Raises CollisionError."""
        if column.dtype.is_integer():
            values = column.to_numpy()
            self._integer = values.dtype
            return self._find(values.astype(np.int64 if values.dtype.kind == "i" else np.uint64).view(np.uint64))[0]
        codes, fresh = self._find(column.hash(int(self._seed)).to_numpy())
        if len(fresh):
            # an empty text added makes bytes of their own, rather than views that keep all bytes of the piece
            self._text = pl.concat([self._text, column.gather(fresh) + ""], rechunk=True)
        if not (self._text.gather(codes) == column).all():
            raise CollisionError
        return codes

    def _find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Codes, and where those stand that are new."""
        codes, fresh = np.empty(len(keys), np.int32), np.empty(len(keys), np.int32)
        before, done = self._count, 0
        while True:
            done, self._count = find_or_add(
                keys, done, self._seed, self._slots, self._keys, self._count, codes, fresh, before
            )
            if done == len(keys):
                return codes, fresh[: self._count - before]
            self._grow()

    def _grow(self) -> None:
        known = self._keys[: self._count]
        self._keys, self._slots = np.zeros(2 * len(known), np.uint64), np.full(4 * len(known), -1, np.int32)
        codes, fresh = np.empty((2, len(known)), np.int32)
        find_or_add(known, 0, self._seed, self._slots, self._keys, 0, codes, fresh, 0)

    def ranked(self, *, typed: bool) -> tuple[NDArray[np.int32], Ids]:
        """The number of each code, int32, and the ids by number: in ascending order.

        typed: the file said that the ids are text. Otherwise (CSV) text that holds nothing but whole numbers becomes
        int64 ids, if that holds them.
        """
        column = self._text if self._integer is None else pl.Series(self._integers())
        if self._integer is None and not typed:
            column = numbers_or_text(column)
        order = column.arg_sort()
        rank = np.empty(len(order), np.int32)
        rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
        return rank, from_series(column.gather(order))

    def _integers(self) -> NDArray[Any]:
        assert self._integer is not None
        return (
            self._keys[: self._count].view(np.int64 if self._integer.kind == "i" else np.uint64).astype(self._integer)
        )


@nb.njit(nogil=True, cache=True)
def find_or_add(
    keys: Any, start: Any, seed: Any, slots: Any, known: Any, count: Any, codes: Any, fresh: Any, before: Any
) -> Any:
    """The codes of keys uint64[n] from position start on, int32[n] (OUT), as far as there is room for new ones: where
    it ended, and how many are known.

    known uint64[m]: keys by code, `count` of them (IN/OUT). slots int32[2 m], a power of two: codes by hash, -1 where
    there is none (IN/OUT; linear probing). fresh int32[n]: where the codes from `before` on were first seen (OUT).
    """
    mask = np.uint64(len(slots) - 1)
    for at in range(start, len(keys)):
        key = keys[at]
        hashed = key ^ seed  # then MurmurHash3's finaliser, since integers are no hashes
        hashed = (hashed ^ (hashed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        hashed = (hashed ^ (hashed >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        slot = (hashed ^ (hashed >> np.uint64(33))) & mask
        while True:
            code = slots[slot]
            if code < 0:
                if count == len(known):
                    return at, count
                slots[slot] = code = count
                known[count] = key
                fresh[count - before] = at
                count += 1
                break
            if known[code] == key:
                break
            slot = (slot + np.uint64(1)) & mask
        codes[at] = code
    return len(keys), count
