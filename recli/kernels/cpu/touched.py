"""A few rows of large tables, fetched, scored in pairs, and stepped (numba): what training by batches consists of.

Rows are divided among tasks, and each row's sum is taken in the order of its pairs, so the number of threads never
changes a bit. Inner loops run over `rank` neighbouring floats, which LLVM turns into vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.compiled import nb
from recli.kernels.cpu.half_sweep import FAST
from recli.kernels.cpu.simd import prefetch
from recli.kernels.cpu.workers import Workers
from recli.kernels.spec import Floats, Nums, Rule
from recli.sorting import group

F = np.float32
ROWS = 1 << 11  # a task
PAIRS = 1 << 12  # a task
AHEAD = 6  # rows: fetched so far ahead, since each lies on a page of its own
NONE = np.zeros(0, np.int64)
KINDS = ("sgd", "adagrad", "adam")


def take(
    run: Workers,
    rows: Floats,
    nums: NDArray[np.int64],
    changes: Floats | None,
    changed_at: NDArray[np.int64] | None,
    taken: Floats,
) -> None:
    """`spec.Kernels.take`; taken: float32[n, rank] (OUT)."""
    changes, changed_at = (rows[:0], NONE) if changes is None or changed_at is None else (changes, changed_at)
    run(
        lambda at: _take(rows, nums, changes, changed_at, at, min(at + ROWS, len(nums)), taken),
        range(0, len(nums), ROWS),
    )


@nb.njit(nogil=True, cache=True)
def _take(rows: Any, nums: Any, changes: Any, changed_at: Any, first: Any, behind: Any, taken: Any) -> None:
    rank = taken.shape[1]
    size = np.uint64(4 * rank)
    rows_at, changes_at = np.uint64(rows.ctypes.data), np.uint64(changes.ctypes.data)
    stride, change_stride = np.uint64(4 * rows.shape[1]), np.uint64(4 * changes.shape[1])
    for n in range(first, behind):
        ahead = n + AHEAD
        if ahead < behind and nums[ahead] >= 0:
            prefetch(rows_at + np.uint64(nums[ahead]) * stride, size)
        if ahead < behind and len(changed_at) and changed_at[ahead] >= 0:
            prefetch(changes_at + np.uint64(changed_at[ahead]) * change_stride, size)
        row = nums[n]
        if row >= 0:
            for k in range(rank):
                taken[n, k] = rows[row, k]
        else:
            for k in range(rank):
                taken[n, k] = F(0)
        if len(changed_at) and changed_at[n] >= 0:
            change = changed_at[n]
            for k in range(rank):
                taken[n, k] += changes[change, k]


def add_rows(run: Workers, table: Floats, rows: Floats, nums: NDArray[np.int64], scale: float, rank: int) -> None:
    run(lambda at: _add(table, rows, nums, F(scale), at, min(at + ROWS, len(nums)), rank), range(0, len(nums), ROWS))


@nb.njit(nogil=True, cache=True)
def _add(table: Any, rows: Any, nums: Any, scale: Any, first: Any, behind: Any, rank: Any) -> None:
    for n in range(first, behind):
        row = nums[n]
        if row >= 0:
            for k in range(rank):
                table[n, k] += scale * rows[row, k]


def add_product(run: Workers, table: Floats, left: Floats, coefficients: Floats) -> None:
    def block(at: int) -> None:
        table[at : at + ROWS] += left[at : at + ROWS] @ coefficients

    run(block, range(0, len(table), ROWS))


def pair_dots(run: Workers, users: Floats, items: Floats, user_at: Nums, item_at: Nums, rank: int) -> Floats:
    dots = np.empty(len(user_at), F)
    run(
        lambda at: _dots(users, items, user_at, item_at, at, min(at + PAIRS, len(dots)), rank, dots),
        range(0, len(dots), PAIRS),
    )
    return dots


@nb.njit(fastmath=FAST, nogil=True, cache=True)
def _dots(users: Any, items: Any, user_at: Any, item_at: Any, first: Any, behind: Any, rank: Any, dots: Any) -> None:
    for n in range(first, behind):
        u, v, total = user_at[n], item_at[n], F(0)
        for k in range(rank):
            total += users[u, k] * items[v, k]
        dots[n] = total


def pair_sums(run: Workers, at: Nums, other_at: Nums, slopes: Floats, others: Floats, sums: Floats) -> None:
    """The sum over each row's pairs, at int32[n], of slope times the other side's row: sums float32[rows, rank]
    (OUT).
    """
    count = len(sums)
    indptr, order = np.zeros(count + 1, np.int64), np.empty(len(at), np.int32)
    group(at, indptr, order)
    run(
        lambda first: _sums(indptr, order, other_at, slopes, others, first, min(first + ROWS, count), sums),
        range(0, count, ROWS),
    )


@nb.njit(nogil=True, cache=True)
def _sums(indptr: Any, order: Any, other_at: Any, slopes: Any, others: Any, first: Any, behind: Any, sums: Any) -> None:
    rank = sums.shape[1]
    for row in range(first, behind):
        for k in range(rank):
            sums[row, k] = F(0)
        for place in range(indptr[row], indptr[row + 1]):
            n = order[place]
            other, slope = other_at[n], slopes[n]
            for k in range(rank):
                sums[row, k] += slope * others[other, k]


def step(
    run: Workers,
    rule: Rule,
    parameter: Floats,
    moments: list[Floats],
    nums: NDArray[np.int64] | None,
    gradient: Floats,
    rank: int,
) -> None:
    rows = np.arange(len(parameter)) if nums is None else nums
    first, second = (moments + [parameter] * 2)[:2]  # not touched where the rule has none
    settings = rule.numbers
    kind = KINDS.index(rule.kind) if moments or rule.kind != "sgd" else -1
    run(
        lambda at: _step(kind, settings, parameter, first, second, rows, gradient, at, min(at + ROWS, len(rows)), rank),
        range(0, len(rows), ROWS),
    )


@nb.njit(nogil=True, error_model="numpy", fastmath=FAST, cache=True)
def _step(
    kind: Any,
    settings: Any,
    parameter: Any,
    first_moment: Any,
    second_moment: Any,
    nums: Any,
    gradient: Any,
    first: Any,
    behind: Any,
    rank: Any,
) -> None:
    """`spec.Rule`, row by row. kind: a place in KINDS, -1 for sgd without momentum; settings: its numbers."""
    rate, beta1, beta2, epsilon = settings[0], settings[1], settings[2], settings[3]
    kept, least, l2 = F(1) - settings[0] * settings[4], settings[5], settings[6]
    first_scale, second_scale, scale = settings[7], settings[8], settings[9]
    rest1, rest2 = F(1) - beta1, F(1) - beta2
    size, stride = np.uint64(4 * rank), np.uint64(4 * parameter.shape[1])
    table_at = np.uint64(parameter.ctypes.data)
    first_at, second_at = np.uint64(first_moment.ctypes.data), np.uint64(second_moment.ctypes.data)
    for n in range(first, behind):
        row = nums[n]
        if n + AHEAD < behind:
            away = np.uint64(nums[n + AHEAD]) * stride
            prefetch(table_at + away, size)
            if kind >= 0:
                prefetch(first_at + away, size)
            if kind == 2:
                prefetch(second_at + away, size)
        if kind == 2:
            for k in range(rank):
                p = parameter[row, k]
                g = scale * gradient[n, k] + l2 * p
                m1 = beta1 * first_moment[row, k] + rest1 * g
                m2 = beta2 * second_moment[row, k] + rest2 * g * g
                first_moment[row, k] = m1
                second_moment[row, k] = m2
                move = rate * (m1 * first_scale) / (np.sqrt(m2 * second_scale) + epsilon)
                parameter[row, k] = kept * p - move
        elif kind == 1:
            for k in range(rank):
                p = parameter[row, k]
                g = scale * gradient[n, k] + l2 * p
                m1 = first_moment[row, k] + g * g
                first_moment[row, k] = m1
                parameter[row, k] = kept * p - rate * g / (np.sqrt(m1) + epsilon)
        elif kind == 0:
            for k in range(rank):
                p = parameter[row, k]
                m1 = beta1 * first_moment[row, k] + scale * gradient[n, k] + l2 * p
                first_moment[row, k] = m1
                parameter[row, k] = kept * p - rate * m1
        else:
            for k in range(rank):
                p = parameter[row, k]
                parameter[row, k] = kept * p - rate * (scale * gradient[n, k] + l2 * p)
        if least > 0:
            for k in range(rank):
                p = parameter[row, k]
                parameter[row, k] = np.sign(p) * max(abs(p) - least, F(0))
