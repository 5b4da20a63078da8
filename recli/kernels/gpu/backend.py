"""The GPU backend: the kernel contract by CUDA kernels of our own, on one device, through CuPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.ids import Csr
from recli.kernels.gpu import item_index, pairs, products, tables, topk, touched
from recli.kernels.gpu.cuda import Cuda
from recli.kernels.gpu.half_sweep import half_sweep
from recli.kernels.gpu.matrices import SparseMatrix
from recli.kernels.gpu.tables import Table
from recli.kernels.spec import Floats, Nums, Rule, SweepStats


class GpuKernels:
    """See `spec.Kernels`. number: of the device; memory_limit: bytes of it that may be used, or None."""

    name = "gpu"

    def __init__(self, number: int, memory_limit: int | None) -> None:
        self._cuda = Cuda(number, memory_limit)

    def __enter__(self) -> GpuKernels:
        return self

    def __exit__(self, *exception: object) -> None:
        self._cuda.close()

    def matrix(self, matrix: Csr | NDArray[Any]) -> SparseMatrix | NDArray[Any]:
        return matrix if isinstance(matrix, np.ndarray) else SparseMatrix(self._cuda, matrix)

    def table(self, rows: Floats) -> Table:
        return tables.upload(self._cuda, rows)

    def view(self, rows: Floats) -> Table:
        return tables.upload(self._cuda, rows, borrow=True)

    def host(self, table: Table) -> Floats:
        return tables.download(self._cuda, table)

    def product(self, matrix: SparseMatrix | NDArray[Any], table: Table) -> Table:
        return products.times(self._cuda, matrix, table)

    def gram(self, left: Sequence[Table], right: Table) -> NDArray[np.float64]:
        return products.gram(self._cuda, left, right)

    def combine(self, tables: Sequence[Table], coefficients: NDArray[np.float64]) -> Table:
        return products.combine(self._cuda, tables, coefficients)

    def half_sweep(
        self,
        matrix: SparseMatrix,
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
        return half_sweep(
            self._cuda,
            matrix,
            solve,
            fixed,
            targets=targets,
            alpha0=alpha0,
            regularization=regularization,
            steps=steps,
            relaxation=relaxation,
            tolerance=tolerance,
            frozen=frozen,
        )

    def index_items(self, items: Floats) -> item_index.ItemIndex:
        return item_index.index_items(self._cuda, items)

    def index_arrays(self, index: item_index.ItemIndex) -> dict[str, NDArray[Any]]:
        return index.arrays

    def index_from(self, arrays: Mapping[str, NDArray[Any]]) -> item_index.ItemIndex:
        return item_index.index_from(self._cuda, arrays)

    def topk(self, index: item_index.ItemIndex, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        return topk.topk(self._cuda, index, users, k, excluded)

    def score_pairs(
        self, users: Floats, items: Floats, user_nums: NDArray[np.int64], item_nums: NDArray[np.int64]
    ) -> Floats:
        return pairs.score_pairs(self._cuda, users, items, user_nums, item_nums)

    def zeros(self, rows: int, rank: int) -> Table:
        return tables.zeros(self._cuda, rows, rank)

    def take(
        self,
        rows: Floats | Table,
        nums: NDArray[np.int64],
        changes: Table | None = None,
        changed_at: NDArray[np.int64] | None = None,
    ) -> Table:
        return touched.take(self._cuda, rows, nums, changes, changed_at)

    def add_rows(self, table: Table, rows: Table, nums: NDArray[np.int64], scale: float = 1.0) -> None:
        touched.add_rows(self._cuda, table, rows, nums, scale)

    def add_product(self, table: Table, left: Table, coefficients: NDArray[np.float64]) -> None:
        products.add_product(self._cuda, table, left, coefficients)

    def pair_dots(self, users: Table, items: Table, user_at: Nums, item_at: Nums) -> Floats:
        return pairs.pair_dots(self._cuda, users, items, user_at, item_at)

    def pair_gradients(
        self, users: Table, items: Table, user_at: Nums, item_at: Nums, slopes: Floats
    ) -> tuple[Table, Table]:
        by_user = pairs.pair_sums(self._cuda, user_at, item_at, slopes, items, len(users))
        return by_user, pairs.pair_sums(self._cuda, item_at, user_at, slopes, users, len(items))

    def step(
        self, rule: Rule, parameter: Table, moments: Sequence[Table], nums: NDArray[np.int64] | None, gradient: Table
    ) -> None:
        touched.step(self._cuda, rule, parameter, moments, nums, gradient)
