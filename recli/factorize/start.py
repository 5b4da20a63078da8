"""Where factors start: random rows, the rows of an earlier model, or what a few products with the matrix find."""

from __future__ import annotations

from typing import Any

import numpy as np

from recli.kernels.spec import Floats, Kernels

INITIAL_SCALE = 0.1  # standard deviation of random rows' norms (Rendle et al. 2022, section 4)
ROUNDS = 2  # of subspace iteration; the second saves rows of hundreds of entries an iteration, short ones half of one
# Leading rows are longer than those of the truncated SVD, which explains a pair by less than 1: iALS gives the pairs
# that it has more weight than the others. 1 to 2 serve about as well.
LENGTHENED = 1.5
FLOOR = 1e-7  # of the largest eigenvalue: what float32 products tell from zero


def initial_rows(count: int, rank: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, rank), np.float32) * np.float32(INITIAL_SCALE / np.sqrt(rank))


def warm_rows(known: Floats, new: Floats) -> Floats:
    """The rows of a model to start from, and behind them the new rows of ids that it does not have."""
    return np.concatenate([known, new[len(known) :]])


def leading_rows(kernels: Kernels, by_user: Any, by_item: Any, items: Any) -> Any:
    """A table [items, rank] whose columns are about V S^1/2 of a matrix's truncated SVD: subspace iteration from the
    table `items` (Halko, Martinsson, Tropp 2011, "Finding Structure with Randomness", algorithm 4.4).

    by_user, by_item: handles on the matrix and its transpose. Directions that the matrix does not have get next to
    nothing. Where there is no direction at all, or numbers overflow, `items` comes back.
    """
    for remaining in reversed(range(ROUNDS)):
        found = kernels.product(by_item, kernels.product(by_user, items))
        gram = kernels.gram([found], found)
        if not (np.isfinite(gram).all() and gram.any()):
            return items
        # eigenvalues are the squares of the columns' norms: S^4 once the columns before were orthonormal
        squares, vectors = np.linalg.eigh(gram)
        squares = np.maximum(squares, FLOOR * squares[-1])
        scale = squares**-0.5 if remaining else LENGTHENED * squares ** (-0.5 + 0.125)
        items = kernels.combine([found], vectors * scale)
    return items
