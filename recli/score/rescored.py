"""Models that keep their items' exact rows beside the codes: codes nominate, exact rows decide. Only the rows of
candidates are read from the file.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from recli.artifacts import Factors
from recli.ids import Csr
from recli.kernels.spec import Floats, Kernels, Nums

NOMINATED, AT_LEAST = 4, 50  # candidates: so many times k, and so many more


class Nominating(Protocol):
    def top(self, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]: ...


class RescoredRanking:
    """The exact scores of what codes nominate. An item that they rank below all candidates is missed."""

    def __init__(self, kernels: Kernels, factors: Factors, nominating: Nominating) -> None:
        self._kernels, self._factors, self._nominating = kernels, factors, nominating

    def top(self, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        """As `Kernels.topk`, in the model's item numbers."""
        wide = min(NOMINATED * k + AT_LEAST, len(self._factors.item_ids))
        items, _ = self._nominating.top(users, wide, excluded)
        there = items >= 0
        numbers, at = np.unique(items[there], return_inverse=True)
        scores = np.full(items.shape, -np.inf, np.float32)
        rows, who = self._factors.item_rows(numbers), np.nonzero(there)[0]
        scores[there] = self._kernels.score_pairs(users, rows, who.astype(np.int64), at.astype(np.int64))
        order = np.lexsort((np.where(there, items, np.iinfo(np.int32).max), -scores), axis=1)[:, :k]
        return np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)
