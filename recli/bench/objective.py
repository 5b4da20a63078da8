"""The objective that `recli` and implicit race to: implicit's own (Hu, Koren, Volinsky 2008), evaluated by one function
for both, in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.ids import Csr, row_numbers

Floats = NDArray[np.float32]
BLOCK_NUMBERS = 1 << 22  # of gathered rows at a time


def initial(shape: tuple[int, int], rank: int, seed: int) -> tuple[Floats, Floats]:
    """Where both start: uniform in [0, 0.01), as implicit does."""
    rng = np.random.default_rng(seed)
    users, items = shape
    return tuple(rng.random((count, rank), np.float32) * np.float32(0.01) for count in (users, items))  # type: ignore[return-value]


def objective_value(matrix: Csr, P: Floats, Q: Floats, alpha: float, reg: float) -> float:
    """sum_stored (1 + alpha w)(1 - s)^2 + sum_unobserved s^2 + reg (|P|^2 + |Q|^2), s = p . q, w the values."""
    total = float(np.sum(_gram(P) * _gram(Q)))
    users = row_numbers(matrix.indptr)
    step = max(1, BLOCK_NUMBERS // P.shape[1])
    for start in range(0, len(users), step):
        at = slice(start, start + step)
        s = np.einsum("er,er->e", P[users[at]], Q[matrix.indices[at]], dtype=np.float64)
        weights = 1 + alpha * matrix.values[at].astype(np.float64)
        total += float(np.sum(weights * (1 - s) ** 2 - s**2))
    return total + reg * float(sum(np.sum(np.square(rows, dtype=np.float64)) for rows in (P, Q)))


def _gram(rows: Floats) -> NDArray[np.float64]:
    rank = rows.shape[1]
    total, step = np.zeros((rank, rank)), max(1, BLOCK_NUMBERS // rank)
    for start in range(0, len(rows), step):
        block = rows[start : start + step].astype(np.float64)
        total += block.T @ block
    return total


def report(done: NDArray[np.float64], trace: list[float]) -> dict[str, Any]:
    """What a contestant answers: seconds on the clock at the end of each iteration, and the objectives where they were
    evaluated.
    """
    each = np.diff(done, prepend=0.0)
    return {
        "iterations": len(done),
        "seconds_per_iteration": float(np.median(each[1:] if len(each) > 1 else each)),
        "done": [float(seconds) for seconds in done],
        "objectives": trace,
    }
