"""Models in fewer bytes: half precision, bytes with a scale a row, product quantisation, hashed rows."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.config import FactorizeConfig
from recli.encoded import STEPS_PER_OCTAVE, Floats, Half, Hashed, Int8, ProductQuantised, Rows, hashed_places
from recli.errors import DataError, UsageError

CENTROIDS = 256
HEAD_SHARE = 0.015  # about how many items product quantisation keeps with a byte a number
SAMPLE = 20_000  # rows that k-means sees: more change the recall by less than another seed does
KMEANS_ITERATIONS = 10
BLOCK = 1 << 13  # rows whose distances to centroids are held together
HASHES = 2  # more make reconstruction no better at the same size, and slower
SOLVES = 60  # conjugate-gradient steps for a hashed table at most


def compress(factors: Factors, config: FactorizeConfig) -> tuple[Factors, dict[str, Any]]:
    """The model as `store`, `hash_users` and `hash_items` ask, and what that costs: bytes of P and Q before and after,
    and the relative errors |P - P'| / |P| and |Q - Q'| / |Q|.

    The tables are quantised in the basis in which they come, which for trained models is canonical. Raises UsageError
    where there are no factors to compress, DataError where they are too large for float16.
    """
    if factors.P.shape[1] == 0:
        raise UsageError("the model has rank 0 (pop): it has no factors to compress")
    P, Q = factors.P[:], factors.item_factors()
    user_counts = np.diff(factors.seen_indptr) if factors.seen_indptr is not None else np.ones(len(P))
    tables = [
        _encoded(P, config, config.hash_users, user_counts, None),
        _encoded(Q, config, config.hash_items, factors.item_counts, factors.item_counts),
    ]
    exact = Q if config.keep_rows else None
    if exact is not None:
        tables[0] = P
    report = {
        "bytes": P.nbytes + Q.nbytes,
        "bytes_after": tables[0].nbytes + tables[1].nbytes + (0 if exact is None else exact.nbytes),
        "error_users": _relative(P, tables[0]),
        "error_items": _relative(Q, tables[1]),
    }
    settings = {name: getattr(config, name) for name in ("store", "keep_rows", "hash_users", "hash_items")}
    provenance = dataclasses.replace(factors.provenance, config={**factors.provenance.config, **settings})
    small = dataclasses.replace(factors, P=tables[0], Q=tables[1], Q_rows=exact, provenance=provenance)
    return small, report


def _encoded(
    rows: Floats, config: FactorizeConfig, size: int | None, counts: NDArray[Any], popularity: NDArray[Any] | None
) -> Rows:
    table = rows if size is None else hashed_table(rows, size, counts)
    if config.store == "pq":
        small: Rows = product_quantised(table, config.seed, None if size else popularity)
    else:
        small = ENCODERS[config.store](table)
    return small if size is None else Hashed(small, len(rows), HASHES)


def _relative(rows: Floats, table: Rows) -> float:
    error = squares = 0.0
    for start in range(0, len(rows), BLOCK):
        at = slice(start, start + BLOCK)
        error += float(np.sum(np.square(rows[at] - table[at], dtype=np.float64)))
        squares += float(np.sum(np.square(rows[at], dtype=np.float64)))
    return float(np.sqrt(error / squares)) if squares else 0.0


def half(rows: Floats) -> Half:
    with np.errstate(over="ignore"):
        codes = rows.astype(np.float16)
    if not np.isfinite(codes).all():
        raise DataError(f"--store f16: expected factors up to 65504, found {np.abs(rows).max():g}: use int8")
    return Half(codes)


def int8(rows: Floats) -> Int8:
    """Each row's largest entry becomes 127."""
    largest = np.abs(rows).max(axis=1, initial=0)
    scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    scales = np.maximum(scales, np.finfo(np.float32).tiny)
    return Int8(np.rint(rows / scales[:, None]).astype(np.int8), scales)


def product_quantised(rows: Floats, seed: int, popularity: NDArray[Any] | None = None) -> ProductQuantised:
    """A sixteenth of the bytes, where there are many rows (Jégou, Douze, Schmid 2011, "Product Quantization for Nearest
    Neighbor Search"), a row's length apart from its direction: long rows would claim the centroids.

    Columns are dealt to groups so that the products of their variances are about equal, which spreads the error evenly
    (eigenvalue allocation: Ge et al. 2013, "Optimized Product Quantization", section 3.1; the canonical basis is that
    of the principal axes). popularity: of each row; as many of the most popular ones as the bytes allow are kept with a
    byte a number, since lists are full of them.
    """
    rank = rows.shape[1]
    count, size = _budget(*rows.shape, with_head=popularity is not None)
    head = np.zeros(0, np.int32)
    if popularity is not None:
        head = np.sort(np.argsort(-popularity, kind="stable")[:size]).astype(np.int32)
    exact, tail = int8(rows[head]), np.delete(rows, head, axis=0)
    lengths = np.linalg.norm(tail, axis=1)
    directions = (tail / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
    groups = allocate(np.mean(directions**2, axis=0), min(count, rank))
    codes = np.zeros((len(tail), int(groups.max(initial=0)) + 1), np.uint8)
    books, book_scales = np.zeros((CENTROIDS, rank), np.int8), np.ones(rank, np.float32)
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(len(tail), SAMPLE, replace=False)) if len(tail) > SAMPLE else np.arange(len(tail))
    for group in range(codes.shape[1]):
        columns = np.flatnonzero(groups == group)
        part = np.ascontiguousarray(directions[:, columns])
        centroids = _centroids(part[sample], rng)
        scales = np.abs(centroids).max(axis=0, initial=0) / np.float32(127)
        book_scales[columns] = np.where(scales > 0, scales, 1)
        books[: len(centroids), columns] = np.rint(centroids / book_scales[columns])
        codes[:, group] = _nearest(part, books[: len(centroids), columns] * book_scales[columns])
    nothing = np.zeros(0, np.int32), int8(rows[:0]).codes, np.zeros(0, np.float32)
    gains = np.zeros(len(tail), np.uint8)
    unit = ProductQuantised(codes, gains, np.ones(1, np.float32), books, book_scales, groups, *nothing)
    gains, top = _gains(tail, unit)
    return dataclasses.replace(unit, gains=gains, top=top, head=head, head_codes=exact.codes, head_scales=exact.scales)


def _budget(n: int, rank: int, *, with_head: bool) -> tuple[int, int]:
    """How many groups, and how many rows in the head, a sixteenth of the bytes of float32[n, rank] allow."""
    books_bytes = rank * (CENTROIDS + 4 + 2) + 4
    spare = n * rank // 4 - books_bytes - n  # bytes for codes and the head
    count = max(1, rank // 5, int(spare / max(n, 1) - (HEAD_SHARE * (rank + 8) if with_head else 0)))
    return count, max(0, (spare - n * count) // (rank + 8 - count - 1)) if with_head else 0


def _gains(rows: Floats, unit: ProductQuantised) -> tuple[NDArray[np.uint8], Floats]:
    """What the decoded directions are to be multiplied by, least squares: codes and the largest."""
    gains = np.zeros(len(rows))
    for start in range(0, len(rows), BLOCK):
        at = slice(start, start + BLOCK)
        decoded = unit[at]
        gains[at] = np.einsum("nr,nr->n", decoded, rows[at]) / np.maximum(np.sum(decoded**2, axis=1), 1e-30)
    top = max(float(gains.max(initial=0)), float(np.finfo(np.float32).tiny))
    octaves = np.log2(top / np.maximum(gains, top * 2.0**-40))
    exponents = np.clip(np.rint(octaves * STEPS_PER_OCTAVE), 0, 255).astype(np.uint8)
    return exponents, np.array([top], np.float32)


def allocate(variances: Floats, count: int) -> NDArray[np.uint16]:
    """The group of each column: the largest variance goes to the group with the smallest product so far."""
    most = -(-len(variances) // count)
    exact = variances.astype(np.float64)
    logs = np.log(np.maximum(exact, exact.max(initial=0) * 1e-12 + 1e-300))
    products, sizes = np.zeros(count), np.zeros(count, int)
    groups = np.zeros(len(variances), np.uint16)
    for column in np.argsort(-logs, kind="stable"):
        open_ = np.flatnonzero(sizes < most)
        group = open_[np.argmin(products[open_])]
        groups[column] = group
        products[group] += logs[column] - logs.min()
        sizes[group] += 1
    return np.unique(groups, return_inverse=True)[1].astype(np.uint16)


def _centroids(sample: Floats, rng: np.random.Generator) -> Floats:
    from scipy.cluster.vq import kmeans2  # takes a sixth of a second, which other models need not wait for

    distinct = np.unique(sample, axis=0)
    if len(distinct) <= CENTROIDS:
        return distinct
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of centroids that nothing is near to: they stay where they are
        return kmeans2(sample, CENTROIDS, iter=KMEANS_ITERATIONS, minit="points", rng=rng)[0].astype(np.float32)


def _nearest(rows: Floats, centroids: Floats) -> NDArray[np.uint8]:
    nearest = np.zeros(len(rows), np.uint8)
    squares = np.sum(centroids**2, axis=1)
    for start in range(0, len(rows), BLOCK):
        at = slice(start, start + BLOCK)
        nearest[at] = np.argmin(squares - 2 * rows[at] @ centroids.T, axis=1)
    return nearest


def hashed_table(rows: Floats, size: int, counts: NDArray[Any]) -> Floats:
    """The table of `size` rows whose hashed sums are nearest to these rows, weighted by how often each is used:
    float32[size, rank]. Least squares by conjugate gradients, all columns together.
    """
    places, signs = hashed_places(np.arange(len(rows)), size, HASHES)
    at = np.arange(0, places.size + 1, HASHES)
    hashing = sp.csr_array((signs.ravel().astype(np.float64), places.ravel(), at), shape=(len(rows), size))
    weights = np.maximum(counts, 1).astype(np.float64)[:, None]
    back = hashing.T.tocsr()
    table = np.zeros((size, rows.shape[1]))
    residual = back @ (weights * rows)
    ridge = 1e-6 * float(weights.mean())
    direction, squares = residual.copy(), np.sum(residual**2, axis=0)
    first = squares.copy()
    for _ in range(SOLVES):
        if (squares <= 1e-10 * first).all():
            break
        image = back @ (weights * (hashing @ direction)) + ridge * direction
        step = np.divide(squares, np.sum(direction * image, axis=0), out=np.zeros_like(squares), where=squares > 0)
        table += step * direction
        residual -= step * image
        before, squares = squares, np.sum(residual**2, axis=0)
        direction = residual + np.divide(squares, before, out=np.zeros_like(before), where=before > 0) * direction
    return table.astype(np.float32)


def _as_it_is(rows: Floats) -> Floats:
    return rows


ENCODERS: dict[str, Callable[[Floats], Rows]] = {"f32": _as_it_is, "f16": half, "int8": int8}
