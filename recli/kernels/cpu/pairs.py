"""Exact scores of row pairs (numba): rows are gathered where they lie, without a copy of either table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.compiled import nb
from recli.kernels.cpu.simd import dot_exact
from recli.kernels.spec import Floats

F = np.float32
LANES = 8  # dot_exact's
CHUNK = 1 << 14  # pairs a task


@nb.njit(nogil=True, error_model="numpy", cache=True)
def score_chunk(users: Any, items: Any, user_nums: Any, item_nums: Any, padded: Any, scores: Any) -> None:
    """scores float32[n] (OUT) of users[user_nums] and items[item_nums]; no fastmath: + 0 must turn -0 into +0.

    padded float32[2, width]: zeros, width the rank rounded up to a multiple of 8; rows are copied there where they have
    another width.
    """
    rank, width = users.shape[1], padded.shape[1]
    stride = np.uint64(4 * rank)
    users_at, items_at = np.uint64(users.ctypes.data), np.uint64(items.ctypes.data)
    x_at, y_at = np.uint64(padded[0].ctypes.data), np.uint64(padded[1].ctypes.data)
    for n in range(len(scores)):
        if rank == width:
            x_at = users_at + np.uint64(user_nums[n]) * stride
            y_at = items_at + np.uint64(item_nums[n]) * stride
        else:
            padded[0, :rank] = users[user_nums[n]]
            padded[1, :rank] = items[item_nums[n]]
        scores[n] = F(dot_exact(x_at, y_at, width)) + F(0)


def score_pairs(
    run: Callable[[Callable[[int], None], Iterable[int]], object],
    users: Floats,
    items: Floats,
    user_nums: NDArray[np.int64],
    item_nums: NDArray[np.int64],
) -> Floats:
    """`spec.Kernels.score_pairs` in chunks. run: a backend's way to call a function for each of some numbers."""
    scores = np.empty(len(user_nums), np.float32)
    width = -(-users.shape[1] // LANES) * LANES

    def chunk(start: int) -> None:
        part = slice(start, start + CHUNK)
        padded = np.zeros((2, width), np.float32)
        score_chunk(users, items, user_nums[part], item_nums[part], padded, scores[part])

    run(chunk, range(0, len(scores), CHUNK))
    return scores
