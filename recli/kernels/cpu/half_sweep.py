"""The rows of an iALS half-sweep: preconditioned conjugate gradients in the eigenbasis of the Gram matrix (numba).

Per row u the normal equations are A x = b with A = diag + sum_j w_j y_j y_j^T and b = sum_j t_j y_j. In the eigenbasis
of Y^T Y the first part is diagonal (spec.py gives the terms), so a step costs O(n_u rank), with no rank^2 product, and
any regularisation per row is free.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recli.compiled import nb
from recli.kernels.cpu.simd import axpy4, dot4, gather_dot4, gather_halves_dot4, prefetch, store_halves

F = np.float32
CONVERGED = F(1e-30)  # of a residual squared, in the objective's unit: squares are still exact enough above it
# All of fastmath but the promise that there is neither NaN nor infinity: an overflow must show in the result.
FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}
AHEAD = 16  # entries whose rows are fetched before they are needed: nothing else knows where they are


@nb.njit(fastmath=FAST, nogil=True, error_model="numpy", cache=True)
def ahead(y_at: Any, scale: Any, indices: Any, e: Any, count: Any, rank: Any) -> None:
    """Fetches the rows of entries e, ..., e + count - 1."""
    size = np.uint64((2 if scale else 4) * rank)
    for d in range(e, e + count):
        prefetch(y_at + np.uint64(indices[d]) * size, size)


@nb.njit(fastmath=FAST, nogil=True, error_model="numpy", cache=True)
def gather4(y_at: Any, scale: Any, indices: Any, e: Any, last: Any, end: Any, z: Any, p: Any, rank: Any) -> Any:
    """The rows of entries e, ..., e + 3 to z float32[4, rank] (OUT), and their dot products with p; both are addresses.
    Behind entry e + last, the row's last, it is repeated; `end`: behind the last of all. See solve_rows for y_at and
    scale.
    """
    ahead(y_at, scale, indices, e + AHEAD, min(4, end - e - AHEAD), rank)
    size = np.uint64((2 if scale else 4) * rank)
    y0 = y_at + np.uint64(indices[e]) * size
    y1 = y_at + np.uint64(indices[e + min(1, last)]) * size
    y2 = y_at + np.uint64(indices[e + min(2, last)]) * size
    y3 = y_at + np.uint64(indices[e + min(3, last)]) * size
    if scale:
        return gather_halves_dot4(y0, y1, y2, y3, z, p, rank, scale)
    return gather_dot4(y0, y1, y2, y3, z, p, rank)


@nb.njit(nogil=True, error_model="numpy", cache=True)
def to_halves(rows: Any, scale: Any, halves: Any) -> None:
    """halves uint16[n, rank] (OUT): the bits of float16 rows, scale times float32 rows."""
    rank = rows.shape[1]
    for i in range(len(rows)):
        store_halves(np.uint64(rows[i].ctypes.data), np.uint64(halves[i].ctypes.data), rank, scale)


@nb.njit(fastmath=FAST, nogil=True, error_model="numpy", cache=True)
def solve_rows(
    indptr: Any,
    indices: Any,
    weight: Any,
    target: Any,
    first: Any,
    behind: Any,
    X: Any,
    y_at: Any,
    scale: Any,
    gram_diagonal: Any,
    regularization: Any,
    spread: Any,
    frozen: Any,
    steps: Any,
    tolerance: Any,
    relaxation: Any,
    gathered: Any,
    scratch: Any,
) -> Any:
    """Updates the rows first, ..., behind - 1 of X float32[n, rank] (IN/OUT) with Y [m, rank] fixed; rank a multiple of
    16. Rows next to each other are next to each other in all arrays: in any other order, of rows of 30 entries, half
    the time goes into waiting for their entries.

    y_at: the address of Y in C-order; scale: 0 where it is float32, else what its float16 are to be multiplied by.
    gathered float32[cap, rank], cap a multiple of 4: rows of Y kept between passes; rows with more than cap entries
    read Y on each pass. scratch float32[5, rank]. Returns the terms of spec.SweepStats for these rows: (data,
    penalty_before, penalty_after).
    """
    rank = X.shape[1]
    cap = gathered.shape[0]
    residual, p, q, diagonal, inverse = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    stride = np.uint64(4 * rank)
    two, three = np.uint64(2) * stride, np.uint64(3) * stride
    y_at, z_at = np.uint64(y_at), np.uint64(gathered.ctypes.data)
    p_at, q_at, r_at = np.uint64(p.ctypes.data), np.uint64(q.ctypes.data), np.uint64(residual.ctypes.data)
    data, before, after = 0.0, 0.0, 0.0
    end = indptr[behind]
    ahead(y_at, scale, indices, indptr[first], min(AHEAD, end - indptr[first]), rank)
    for u in range(first, behind):
        start = indptr[u]
        n = indptr[u + 1] - start
        x = X[u]
        x_at = np.uint64(x.ctypes.data)
        keep = n <= cap
        norm, quadratic = F(0), F(0)
        for k in range(rank):
            diagonal[k] = gram_diagonal[k] + regularization[u]
            inverse[k] = F(1) / (diagonal[k] + F(n) * spread[k])
            residual[k] = -diagonal[k] * x[k]
            norm += x[k] * x[k]
            quadratic += x[k] * gram_diagonal[k] * x[k]
        for k in frozen:
            inverse[k] = F(0)
            norm -= x[k] * x[k]
        before += np.float64(regularization[u] * norm)
        data += np.float64(quadratic)
        if n == 0:
            for k in range(rank):
                x[k] *= F(inverse[k] == F(0))
            continue
        # The residual b - A x, four entries a time. A last group of fewer than four repeats its last row with
        # coefficient zero.
        for j in range(0, n, 4):
            last = n - 1 - j
            e = start + j
            w0 = weight[e]
            w1 = weight[e + min(1, last)]
            w2 = weight[e + min(2, last)]
            w3 = weight[e + min(3, last)]
            z0 = z_at + (np.uint64(j) * stride if keep else np.uint64(0))
            s0, s1, s2, s3 = gather4(y_at, scale, indices, e, last, end, z0, x_at, rank)
            t0, t1, t2, t3 = target[e], F(0), F(0), F(0)
            if last >= 1:
                t1 = target[e + 1]
            else:
                w1 = F(0)
            if last >= 2:
                t2 = target[e + 2]
            else:
                w2 = F(0)
            if last >= 3:
                t3 = target[e + 3]
            else:
                w3 = F(0)
            data += (w0 * s0 - F(2) * t0) * s0 + (w1 * s1 - F(2) * t1) * s1
            data += (w2 * s2 - F(2) * t2) * s2 + (w3 * s3 - F(2) * t3) * s3
            f0, f1, f2, f3 = t0 - w0 * s0, t1 - w1 * s1, t2 - w2 * s2, t3 - w3 * s3
            axpy4(z0, z0 + stride, z0 + two, z0 + three, r_at, rank, f0, f1, f2, f3)
        rz = F(0)
        for k in range(rank):
            p[k] = residual[k] * inverse[k]
            rz += residual[k] * p[k]
        least = max(CONVERGED, tolerance * rz)
        for _ in range(steps):
            if rz < least:
                break
            for k in range(rank):
                q[k] = diagonal[k] * p[k]
            for j in range(0, n, 4):
                last = n - 1 - j
                e = start + j
                w0 = weight[e]
                w1 = weight[e + 1] if last >= 1 else F(0)
                w2 = weight[e + 2] if last >= 2 else F(0)
                w3 = weight[e + 3] if last >= 3 else F(0)
                if keep:
                    z0 = z_at + np.uint64(j) * stride
                    s0, s1, s2, s3 = dot4(z0, z0 + stride, z0 + two, z0 + three, p_at, rank)
                else:
                    z0 = z_at
                    s0, s1, s2, s3 = gather4(y_at, scale, indices, e, last, end, z0, p_at, rank)
                axpy4(z0, z0 + stride, z0 + two, z0 + three, q_at, rank, w0 * s0, w1 * s1, w2 * s2, w3 * s3)
            pq = F(0)
            for k in range(rank):
                pq += p[k] * q[k]
            length, new = rz / pq, F(0)
            move = relaxation * length
            for k in range(rank):
                x[k] += move * p[k]
                residual[k] -= length * q[k]
                new += residual[k] * residual[k] * inverse[k]
            beta, rz = new / rz, new
            for k in range(rank):
                p[k] = residual[k] * inverse[k] + beta * p[k]
        norm = F(0)
        for k in range(rank):
            norm += x[k] * x[k]
        for k in frozen:
            norm -= x[k] * x[k]
        after += np.float64(regularization[u] * norm)
    return data, before, after
