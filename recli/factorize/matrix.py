"""Any matrix as factors: compression by truncated SVD (Eckart & Young 1936), with what it costs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.artifacts import Factors, Provenance
from recli.config import FactorizeConfig
from recli.errors import DataError
from recli.factorize.model import OnProgress
from recli.factorize.svd import low_rank, squares_of
from recli.ids import Csr, Ids, row_numbers
from recli.kernels.spec import Kernels

BLOCK = 1 << 22  # numbers of a dense matrix, or entries of a sparse one, compared with their factors at a time


def factorize_matrix(
    matrix: Csr | NDArray[Any],
    columns: int,
    max_rank: int,
    config: FactorizeConfig,
    kernels: Kernels,
    provenance: Provenance,
    on_progress: OnProgress = lambda progress: None,
) -> tuple[Factors, dict[str, Any]]:
    """P = U S, Q = V of the matrix as it is, of rank max_rank, or of the smallest that keeps config.energy of its
    squares; users are its rows and items its columns, by number.

    The report: rank, parameters and bytes before and after (of a sparse matrix its entries and their places), and the
    relative error |A - P Q^T| / |A| in the Frobenius norm, measured in float64. Raises DataError where all is zero.
    """
    if isinstance(matrix, np.ndarray):
        rows, entries, size, counts = len(matrix), matrix.size, matrix.nbytes, np.full(columns, len(matrix), np.int64)
    else:
        rows, entries, size = len(matrix.indptr) - 1, len(matrix.indices), sum(array.nbytes for array in matrix)
        counts = np.bincount(matrix.indices, minlength=columns).astype(np.int64)
    squares = _squares(matrix)
    if not squares:
        raise DataError("all entries are zero")
    P, Q, kept = low_rank(matrix, columns, max_rank, squares, config, kernels, on_progress)
    error = float(np.sqrt(_squared_error(matrix, squares, P, Q) / squares))
    report = {
        "rank": P.shape[1],
        "parameters": entries,
        "parameters_after": P.size + Q.size,
        "bytes": size,
        "bytes_after": P.nbytes + Q.nbytes,
        "relative_error": error,
        "kept_energy": kept,
    }
    settings = {**config.semantic(), "rank": P.shape[1], "normalize": "none", "relative_error": error}
    factors = Factors(
        P=P,
        Q=Q,
        b_u=np.zeros(rows, np.float32),
        b_v=np.zeros(columns, np.float32),
        b=np.array(0, np.float32),
        user_ids=Ids(np.arange(rows)),
        item_ids=Ids(np.arange(columns)),
        item_counts=counts,
        provenance=dataclasses.replace(
            provenance,
            command="factorize",
            config={**provenance.config, **settings},
            device=kernels.name,
            columns={"user": "row", "item": "column"},
        ),
    )
    return factors, report


def _row_blocks(rows: int, columns: int) -> list[slice]:
    step = max(1, BLOCK // max(1, columns))
    return [slice(start, start + step) for start in range(0, rows, step)]


def _squares(matrix: Csr | NDArray[Any]) -> float:
    if not isinstance(matrix, np.ndarray):
        return squares_of(matrix)
    blocks = (matrix[rows].astype(np.float32) for rows in _row_blocks(*matrix.shape))
    return float(sum(np.sum(np.square(block, dtype=np.float64)) for block in blocks))


def _squared_error(matrix: Csr | NDArray[Any], squares: float, P: NDArray[np.float32], Q: NDArray[np.float32]) -> float:
    """|A - P Q^T|^2: block by block where A is dense, else squares - 2 <A, P Q^T> + |P Q^T|^2 in float64."""
    if isinstance(matrix, np.ndarray):
        total = 0.0
        for rows in _row_blocks(*matrix.shape):
            total += float(np.sum(np.square(matrix[rows].astype(np.float32) - P[rows] @ Q.T, dtype=np.float64)))
        return total
    user = row_numbers(matrix.indptr)
    inner, step = 0.0, max(1, BLOCK // max(1, P.shape[1]))
    for start in range(0, len(user), step):
        at = slice(start, start + step)
        products = np.einsum("nr,nr->n", P[user[at]], Q[matrix.indices[at]], dtype=np.float64)
        inner += float(products @ matrix.values[at].astype(np.float64))
    whole = float(np.sum(_gram(P) * _gram(Q)))
    return max(0.0, squares - 2 * inner + whole)


def _gram(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = rows.astype(np.float64)
    return np.asarray(exact.T @ exact)
