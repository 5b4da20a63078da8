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
SLOWEST = 10  # times recli's seconds, beyond which it is not tried further


def svd(bench: Bench, heading: Heading) -> list[dict[str, Any]]:
    """scikit-learn's power iterations are doubled, off the clock, until its error is no larger than asked for."""
    rank, matrix = heading.about["rank"], bench.data.train.matrix
    A = sp.csr_array((matrix.values, matrix.indices, matrix.indptr), shape=bench.data.shape, dtype=np.float64)
    if rank >= min(A.shape):
        for entry in heading.entries:
            entry.status = f"failed: rank {rank} of a matrix of {A.shape[0]} x {A.shape[1]}"
        return [entry.row() for entry in heading.entries]
    values: Any = svds(A, k=rank, return_singular_vectors=False, rng=np.random.default_rng(bench.config.seed))
    exact = np.sort(values)[::-1]
    with bench.heat("svd", heading.entries, {"rank": rank}) as heat:
        powers: dict[str, int] = {}
        errors: dict[str, tuple[float, float]] = {}
        patience = np.inf
        for entry in heat.entries:
            tries = 4 if entry.contestant == "sklearn" else 0
            while (warm := heat.run(entry, iterations=tries)) is not None:
                powers[entry.contestant] = tries
                found = errors[entry.contestant] = _errors(A, load(heat.out(entry), "U", "s", "V"), exact)
                if entry.contestant == "recli":
                    patience = SLOWEST * warm["seconds"]
                if found[0] <= VALUES and found[1] <= RESIDUALS:
                    break
                if not tries or tries >= MOST_POWERS or warm["seconds"] > patience:
                    after = f" after {tries} iterations" if tries else ""
                    entry.status = (
                        f"failed: errors {found[0]:.1e} of values, {found[1]:.1e} of vectors{after}, in "
                        f"{warm['seconds']:.3g} s"
                    )
                    break
                tries *= 2
        heat.rounds(bench.config.repeats, lambda entry: {"iterations": powers[entry.contestant]})
        rows = [entry.row() for entry in heat.entries]
    for row, entry in zip(rows, heading.entries, strict=True):
        if entry.is_ok:
            row["value_error"], row["residual"] = errors[entry.contestant]
            row |= {"iterations": powers[entry.contestant]} if powers[entry.contestant] else {}
            if entry.contestant == "recli" and entry.has_roofline:
                row["roofline"] = _floor(bench, entry.runs[-1]["products"]) / row["seconds"]
    return rows


def _floor(bench: Bench, products: list[tuple[int, int, int]]) -> float:
    """Seconds of sparse products of (rows, columns, width)."""
    machine, pairs = bench.conditions.machine, bench.data.pairs
    works = (roofline.sparse_product(*product[:2], pairs, product[2], machine.cache_bytes) for product in products)
    return sum(work.floor(machine) for work in works)


def _errors(A: Any, found: dict[str, Any], exact: NDArray[np.float64]) -> tuple[float, float]:
    U, s, V = (found[name].astype(np.float64) for name in ("U", "s", "V"))
    if len(s) < len(exact):
        return 1.0, 1.0
    off = (A @ V - U * s, A.T @ U - V * s)
    scale = np.maximum(exact, exact[0] * 1e-6)
    return float(np.abs((s - exact) / scale).max()), float(max(np.linalg.norm(x, axis=0).max() for x in off) / exact[0])
