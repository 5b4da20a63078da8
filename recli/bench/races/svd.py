"""The largest singular triplets, to one and the same error."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from recli.bench import roofline
from recli.bench.bench import Bench, Heading
from recli.bench.problem import load

VALUES, RESIDUALS = 1e-4, 1e-3  # errors of singular values; of |A v - s u| and |A^T u - s v|, over the largest value
MOST_POWERS = 256  # iterations of a randomised SVD that has not come so far


def svd(bench: Bench, heading: Heading) -> list[dict[str, Any]]:
    """scikit-learn's power iterations are doubled, off the clock, until its error is no larger than asked for."""
    rank, matrix = heading.about["rank"], bench.data.train.matrix
    A = sp.csr_array((matrix.values, matrix.indices, matrix.indptr), shape=bench.data.shape, dtype=np.float64)
    if rank >= min(A.shape):
        for entry in heading.entries:
            entry.status = f"failed: rank {rank} of a matrix of {A.shape[0]} x {A.shape[1]}"
        return [entry.row() for entry in heading.entries]
    start = np.random.default_rng(bench.config.seed)
    values: Any = svds(A, k=rank, return_singular_vectors=False, rng=start)
    exact = np.sort(values)[::-1]
    powers: dict[str, int] = {}
    with bench.heat("svd", heading.entries, {"rank": rank}) as heat:
        errors = {}
        for entry in heat.entries:
            tries = 4 if entry.contestant == "sklearn" else 0
            while (warm := heat.run(entry, iterations=tries)) is not None:
                errors[entry.contestant] = _svd_errors(A, load(heat.out(entry), "U", "s", "V"), exact)
                powers[entry.contestant] = tries
                if not tries or _is_close(errors[entry.contestant]) or tries >= MOST_POWERS:
                    break
                tries *= 2
            if warm is not None and not _is_close(errors[entry.contestant]):
                values, residuals = errors[entry.contestant]
                entry.status = f"failed: errors {values:.1e} of values, {residuals:.1e} of vectors"
        heat.rounds(bench.config.repeats, lambda entry: {"iterations": powers[entry.contestant]})
        rows = []
        for entry in heat.entries:
            row = entry.row()
            if entry.is_ok:
                row["value_error"], row["residual"] = errors[entry.contestant]
                if powers[entry.contestant]:
                    row["iterations"] = powers[entry.contestant]
            if entry.is_ok and entry.contestant == "recli":
                products = entry.runs[-1]["products"]
                works = [
                    roofline.sparse_product(
                        height, columns, bench.data.pairs, width, bench.conditions.machine.cache_bytes
                    )
                    for height, columns, width in products
                ]
                row["roofline"] = sum(work.floor(bench.conditions.machine) for work in works) / row["seconds"]
            rows.append(row)
        return rows


def _svd_errors(A: Any, found: dict[str, Any], exact: NDArray[np.float64]) -> tuple[float, float]:
    U, s, V = (found[name].astype(np.float64) for name in ("U", "s", "V"))
    if len(s) < len(exact):
        return 1.0, 1.0
    off = (A @ V - U * s, A.T @ U - V * s)
    scale = np.maximum(exact, exact[0] * 1e-6)
    return float(np.abs((s - exact) / scale).max()), float(max(np.linalg.norm(x, axis=0).max() for x in off) / exact[0])


def _is_close(errors: tuple[float, float]) -> bool:
    return errors[0] <= VALUES and errors[1] <= RESIDUALS
