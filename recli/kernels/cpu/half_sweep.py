"""The rows of an iALS half-sweep: preconditioned conjugate gradients in the eigenbasis of the Gram matrix (numba).

Per row u the normal equations are A x = b with A = diag + sum_j w_j y_j y_j^T and b = sum_j t_j y_j. In the eigenbasis
of Y^T Y the first part is diagonal (spec.py gives the terms), so a step costs O(n_u rank), with no rank^2 product, and
any regularisation per row is free.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from recli.kernels.cpu.simd import axpy4, dot4, gather_dot4

F = np.float32
CONVERGED = F(1e-30)  # of a residual squared, in the objective's unit: squares are still exact enough above it
# All of fastmath but the promise that there is neither NaN nor infinity: an overflow must show in the result.
FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}


@nb.njit(fastmath=FAST, nogil=True, error_model="numpy", cache=True)
def solve_rows(
    indptr: Any,
    indices: Any,
    weight: Any,
    target: Any,
    order: Any,
    X: Any,
    Y: Any,
    gram_diagonal: Any,
    regularization: Any,
    spread: Any,
    frozen: Any,
    steps: Any,
    relaxation: Any,
    gathered: Any,
    scratch: Any,
) -> Any:
    """Updates the rows `order` of X float32[n, rank] (IN/OUT) with Y float32[m, rank] (IN) fixed; rank a multiple of
    16.

    gathered float32[cap, rank], cap a multiple of 4: rows of Y kept between passes; rows with more than cap entries
    read Y on each pass. scratch float32[5, rank]. Returns the terms of spec.SweepStats for these rows: (data,
    penalty_before, penalty_after).
    """
    rank = X.shape[1]
    cap = gathered.shape[0]
    residual, p, q, diagonal, inverse = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    stride = np.uint64(4 * rank)
    y_at, z_at = np.uint64(Y.ctypes.data), np.uint64(gathered.ctypes.data)
    p_at, q_at, r_at = np.uint64(p.ctypes.data), np.uint64(q.ctypes.data), np.uint64(residual.ctypes.data)
    data, before, after = 0.0, 0.0, 0.0
    for position in range(len(order)):
        u = order[position]
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
            y0 = y_at + np.uint64(indices[e]) * stride
            y1 = y_at + np.uint64(indices[e + min(1, last)]) * stride
            y2 = y_at + np.uint64(indices[e + min(2, last)]) * stride
            y3 = y_at + np.uint64(indices[e + min(3, last)]) * stride
            if keep:
                s0, s1, s2, s3 = gather_dot4(y0, y1, y2, y3, z_at + np.uint64(j) * stride, x_at, rank)
            else:
                s0, s1, s2, s3 = dot4(y0, y1, y2, y3, x_at, rank)
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
            axpy4(y0, y1, y2, y3, r_at, rank, f0, f1, f2, f3)
        rz = F(0)
        for k in range(rank):
            p[k] = residual[k] * inverse[k]
            rz += residual[k] * p[k]
        for _ in range(steps):
            if rz < CONVERGED:
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
                    y0 = z_at + np.uint64(j) * stride
                    y1 = y0 + stride
                    y2 = y1 + stride
                    y3 = y2 + stride
                else:
                    y0 = y_at + np.uint64(indices[e]) * stride
                    y1 = y_at + np.uint64(indices[e + min(1, last)]) * stride
                    y2 = y_at + np.uint64(indices[e + min(2, last)]) * stride
                    y3 = y_at + np.uint64(indices[e + min(3, last)]) * stride
                s0, s1, s2, s3 = dot4(y0, y1, y2, y3, p_at, rank)
                axpy4(y0, y1, y2, y3, q_at, rank, w0 * s0, w1 * s1, w2 * s2, w3 * s3)
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
