"""The kernel contract in slow, obvious NumPy at float64: the oracle of the tests, and `--device reference` to debug
with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recli.ids import Csr
from recli.kernels.spec import Floats, Nums, Rule, SweepStats

LANES = 8


@dataclass
class Table:
    rows: NDArray[np.float64]


class ReferenceKernels:
    """See `spec.Kernels`; exact solves instead of conjugate gradients, a full sort instead of a search."""

    name = "reference"

    def matrix(self, matrix: Csr | NDArray[Any]) -> Csr | NDArray[Any]:
        return matrix

    def table(self, rows: Floats) -> Table:
        return Table(rows.astype(np.float64))

    def view(self, rows: Floats) -> Table:
        return self.table(rows)

    @np.errstate(over="ignore")
    def host(self, table: Table) -> Floats:
        return table.rows.astype(np.float32)

    def product(self, matrix: Csr | NDArray[Any], table: Table) -> Table:
        if isinstance(matrix, np.ndarray):
            return Table(matrix.astype(np.float64) @ table.rows)
        values, shape = matrix.values.astype(np.float64), (len(matrix.indptr) - 1, len(table.rows))
        return Table(np.asarray(sp.csr_array((values, matrix.indices, matrix.indptr), shape=shape) @ table.rows))

    def gram(self, left: Sequence[Table], right: Table) -> NDArray[np.float64]:
        return np.vstack([table.rows.T @ right.rows for table in left])

    def combine(self, tables: Sequence[Table], coefficients: NDArray[np.float64]) -> Table:
        return Table(np.hstack([table.rows for table in tables]) @ coefficients)

    @np.errstate(over="ignore", invalid="ignore")  # as every backend: what overflows shows in the result
    def half_sweep(
        self,
        matrix: Csr,
        solve: Table,
        fixed: Table,
        *,
        targets: Floats,
        alpha0: float,
        regularization: Floats,
        steps: int,
        relaxation: float,
        tolerance: float = 0.0,
        frozen: tuple[int, ...] = (),
    ) -> SweepStats:
        del steps  # solved exactly
        X, Y, reg = solve.rows, fixed.rows, regularization.astype(np.float64)
        free = np.setdiff1d(np.arange(X.shape[1]), frozen)
        gram = alpha0 * Y.T @ Y
        data = float(np.einsum("ur,rs,us->", X, gram, X))
        before = float(reg @ np.sum(X[:, free] ** 2, axis=1))
        for u in range(len(X)):
            entries = slice(matrix.indptr[u], matrix.indptr[u + 1])
            y, w = Y[matrix.indices[entries]], matrix.values[entries].astype(np.float64)
            t = targets[entries].astype(np.float64)
            s = y @ X[u]
            data += float(np.sum(w * s**2 - 2 * t * s))
            if not len(w):
                X[u, free] = 0
                continue
            A = gram + (y * w[:, None]).T @ y
            gradient = (y.T @ t - A @ X[u])[free] - reg[u] * X[u, free]
            try:
                move = np.linalg.solve(A[np.ix_(free, free)] + reg[u] * np.eye(len(free)), gradient)
                X[u, free] += relaxation * move
            except np.linalg.LinAlgError:
                X[u] = np.nan
        return SweepStats(data, before, float(reg @ np.sum(X[:, free] ** 2, axis=1)))

    def index_items(self, items: Floats) -> Floats:
        return items

    def index_arrays(self, index: Floats) -> dict[str, NDArray[Any]]:
        norms = np.linalg.norm(index.astype(np.float64), axis=1)
        order = np.argsort(-norms, kind="stable").astype(np.int32)
        return {"rows": index[order], "norms": norms[order], "order": order}

    def index_from(self, arrays: Mapping[str, NDArray[Any]]) -> Floats:
        items = np.empty_like(arrays["rows"])
        items[arrays["order"]] = arrays["rows"]
        return items

    def topk(self, index: Floats, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        nums = np.full((len(users), k), -1, np.int32)
        best = np.full((len(users), k), -np.inf, np.float32)
        index = index[:, : users.shape[1]]  # one that another backend prepared has more columns
        for n, user in enumerate(users):
            scores = score(np.broadcast_to(user, index.shape), index)
            left_out = (
                excluded.indices[excluded.indptr[n] : excluded.indptr[n + 1]] if excluded else np.zeros(0, np.int32)
            )
            kept = np.setdiff1d(np.arange(len(index)), left_out)
            order = kept[np.lexsort((kept, -scores[kept]))][:k]
            nums[n, : len(order)], best[n, : len(order)] = order, scores[order]
        return nums, best

    def score_pairs(
        self, users: Floats, items: Floats, user_nums: NDArray[np.int64], item_nums: NDArray[np.int64]
    ) -> Floats:
        return score(users[user_nums], items[item_nums])

    def zeros(self, rows: int, rank: int) -> Table:
        return Table(np.zeros((rows, rank)))

    def take(
        self,
        rows: Floats | Table,
        nums: NDArray[np.int64],
        changes: Table | None = None,
        changed_at: NDArray[np.int64] | None = None,
    ) -> Table:
        source = rows.rows if isinstance(rows, Table) else rows
        taken = np.zeros((len(nums), source.shape[1]))
        taken[nums >= 0] = source[nums[nums >= 0]]
        if changes is not None and changed_at is not None:
            taken[changed_at >= 0] += changes.rows[changed_at[changed_at >= 0]]
        return Table(taken)

    def add_rows(self, table: Table, rows: Table, nums: NDArray[np.int64], scale: float = 1.0) -> None:
        table.rows += scale * self.take(rows, nums).rows

    def add_product(self, table: Table, left: Table, coefficients: NDArray[np.float64]) -> None:
        table.rows += left.rows @ coefficients

    def pair_dots(self, users: Table, items: Table, user_at: Nums, item_at: Nums) -> Floats:
        return np.asarray(self.exact_dots(users, items, user_at, item_at), np.float32)

    def exact_dots(self, users: Table, items: Table, user_at: Nums, item_at: Nums) -> NDArray[np.float64]:
        """`pair_dots` before they are rounded, for finite differences."""
        return np.asarray(np.sum(users.rows[user_at] * items.rows[item_at], axis=1), np.float64)

    def pair_gradients(
        self, users: Table, items: Table, user_at: Nums, item_at: Nums, slopes: Floats
    ) -> tuple[Table, Table]:
        gains = np.zeros_like(users.rows), np.zeros_like(items.rows)
        np.add.at(gains[0], user_at, slopes[:, None] * items.rows[item_at])
        np.add.at(gains[1], item_at, slopes[:, None] * users.rows[user_at])
        return Table(gains[0]), Table(gains[1])

    def step(
        self, rule: Rule, parameter: Table, moments: Sequence[Table], nums: NDArray[np.int64] | None, gradient: Table
    ) -> None:
        rows = np.arange(len(parameter.rows)) if nums is None else nums
        p = parameter.rows[rows]
        g = rule.scale * gradient.rows + rule.l2 * p
        p *= 1 - rule.rate * rule.decay
        m = [moment.rows[rows] for moment in moments]
        if rule.kind == "sgd":
            if m:
                g = m[0] = rule.beta1 * m[0] + g
            p -= rule.rate * g
        elif rule.kind == "adagrad":
            m[0] += g**2
            p -= rule.rate * g / (np.sqrt(m[0]) + rule.epsilon)
        else:
            m[0] = rule.beta1 * m[0] + (1 - rule.beta1) * g
            m[1] = rule.beta2 * m[1] + (1 - rule.beta2) * g**2
            first, second = m[0] / (1 - rule.beta1**rule.step), m[1] / (1 - rule.beta2**rule.step)
            p -= rule.rate * first / (np.sqrt(second) + rule.epsilon)
        p = np.sign(p) * np.maximum(np.abs(p) - rule.shrink, 0)
        parameter.rows[rows] = p
        for moment, rows_ in zip(moments, m, strict=True):
            moment.rows[rows] = rows_


@np.errstate(over="ignore")
def score(users: Floats, items: Floats) -> Floats:
    """The scores of row pairs, users and items float32[n, rank], in the order of summation that spec.py defines:
    float32[n].
    """
    rank = users.shape[1]
    products = np.zeros((len(users), -(-rank // LANES) * LANES))
    products[:, :rank] = users.astype(np.float64) * items.astype(np.float64)
    lanes = np.zeros((len(users), LANES))
    for start in range(0, rank, LANES):
        lanes += products[:, start : start + LANES]
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0].astype(np.float32) + np.float32(0)  # + 0 turns -0 into +0
