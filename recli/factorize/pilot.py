"""How long training will take, found by doing a small part of it: a constant for one machine is wrong on the next.

A half-sweep of a sample of the entries, at the true rank and on the device that will be used, tells what an entry
costs; half-sweeps without entries, of few and of more rows, tell what is to be paid for each sweep and for each row
(Gram matrix, eigenbasis, rotation). It takes some tenths of a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.config import FactorizeConfig
from recli.factorize import als, ials, start
from recli.factorize.plan import basis_width
from recli.ids import Csr
from recli.kernels.spec import Floats, Kernels
from recli.linalg import BLOCK

SAMPLE = 1 << 25  # numbers of a sample's gathered rows, rank times entries: a smaller one is all start and end
FEWEST = 1 << 18  # entries
STEPS = 3  # of a sample's half-sweeps
TABLE = 1 << 24  # numbers of the table that they are gathered from, at most: larger than the caches
ROWS = (512, 4096)  # of half-sweeps without entries
# What is linear in the pairs and done once: their transposition, weights, counts and checks, seconds each.
PAIR_SECONDS = 4e-8
WRITTEN = 5e8  # bytes a second of the output, checksum included


class Costs(NamedTuple):
    """Seconds of a half-sweep: of each, of a row of the fixed table, and of an entry of each side in one pass."""

    sweep: float
    row: float
    entries: tuple[float, float]


def train_seconds(config: FactorizeConfig, matrix: Csr, items: int, output_bytes: int, kernels: Kernels) -> float:
    """Of the solver on a matrix of pairs, CSR [users, items], without reading it, and of writing the model."""
    users, pairs = len(matrix.indptr) - 1, len(matrix.indices)
    around = PAIR_SECONDS * pairs + output_bytes / WRITTEN
    if config.solver == "pop":
        return around
    if config.solver == "svd":
        return around + _svd_seconds(config.rank, matrix, items, kernels)
    explicit = config.solver == "als"
    steps = als.STEPS if explicit else ials.USUAL_STEPS
    costs = _costs(config.rank + 2 * explicit, matrix, items, kernels, explicit=explicit)
    # the Gram matrix and the rotation of the fixed side, the rotation of the other
    dense = [costs.sweep + costs.row * (fixed + solved / 2) for solved, fixed in ((users, items), (items, users))]
    passes = [pairs * (1 + steps) * each for each in costs.entries]
    iteration = sum(dense) + sum(passes)
    # products instead of passes, and what half-sweeps do with the Gram matrix of the items
    first = 0.0 if explicit else start.ROUNDS * (pairs * sum(costs.entries) + costs.sweep + costs.row * items)
    if explicit:
        iteration += (users + items) * _copy_seconds(config.rank + 2, kernels)
    settling = dense[0] + passes[0] * (1 + ials.SETTLING_STEPS) / (1 + steps)
    canonical = costs.row * (users + items) / 2
    return around + first + config.sweeps * iteration + settling + canonical


def _costs(rank: int, matrix: Csr, items: int, kernels: Kernels, *, explicit: bool) -> Costs:
    users, pairs = len(matrix.indptr) - 1, len(matrix.indices)

    def sweep(csr: Csr, table: Any, alpha0: float = 0.0) -> float:
        rows = len(csr.indptr) - 1
        held, solved = kernels.matrix(csr), kernels.table(np.zeros((rows, rank), np.float32))
        penalties = np.ones(rows, np.float32)

        def run() -> None:
            kernels.half_sweep(
                held,
                solved,
                table,
                targets=csr.values,
                alpha0=alpha0,
                regularization=penalties,
                steps=STEPS,
                relaxation=1.0,
            )

        return _least_seconds(run)

    each = row = 0.0
    if not explicit:  # als, without alpha0, has no Gram matrix and no rotation
        nothing = Csr(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        few, more = (sweep(nothing, kernels.table(_rows(rows, rank)), alpha0=1.0) for rows in ROWS)
        row = max(0.0, more - few) / (ROWS[1] - ROWS[0])
        each = max(0.0, few - row * ROWS[0])
    rng = np.random.default_rng(0)
    count = min(pairs, max(FEWEST, SAMPLE // rank))
    at = rng.integers(0, pairs, count)
    user_of = (np.searchsorted(matrix.indptr, at, "right") - 1).astype(np.int32)
    lengths = (np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=items))
    entries = []
    for sizes, columns, others in zip(lengths, (matrix.indices[at], user_of), (items, users), strict=True):
        size = min(others, max(1, TABLE // rank))
        table, last = kernels.table(_rows(size, rank)), np.array([size - 1], np.int32)
        one = Csr(np.array([0, 1]), last, np.ones(1, np.float32))  # what only depends on the size of the table
        # alpha0 > 0 gathers as ials does; what else it costs is in both
        alpha0 = 0.0 if explicit else 1.0
        taken = sweep(_sample(sizes, columns % np.int32(size), rng), table, alpha0) - sweep(one, table, alpha0)
        entries.append(max(0.0, taken) / count / (1 + STEPS))
    return Costs(each, row, (entries[0], entries[1]))


def _sample(lengths: NDArray[np.integer], columns: NDArray[np.int32], rng: np.random.Generator) -> Csr:
    """Rows as long as some of these are, with the given columns."""
    ends = np.cumsum(rng.permutation(lengths))
    ends = ends[: int(np.searchsorted(ends, len(columns))) + 1]
    indptr = np.append(0, np.minimum(ends, len(columns))).astype(np.int64)
    return Csr(indptr, np.ascontiguousarray(columns), np.ones(len(columns), np.float32))


def _svd_seconds(rank: int, matrix: Csr, items: int, kernels: Kernels) -> float:
    users, pairs = len(matrix.indptr) - 1, len(matrix.indices)
    size, width = min(users, items), basis_width(rank, min(users, items))
    rng = np.random.default_rng(0)
    count = min(pairs, SAMPLE // BLOCK)
    columns = matrix.indices[rng.integers(0, pairs, count)]
    sample = kernels.matrix(_sample(np.diff(matrix.indptr), columns, rng))
    block = kernels.table(_rows(items, BLOCK))
    product = _least_seconds(lambda: kernels.product(sample, block)) * pairs / count
    rows = min(size, ROWS[1])
    few = kernels.table(_rows(rows, BLOCK))
    mixing = np.eye(BLOCK)
    gram = _least_seconds(lambda: kernels.gram([few], few)) / rows
    combine = _least_seconds(lambda: kernels.combine([few], mixing)) / rows
    blocks = width / BLOCK
    # each block is a product both ways and is made orthogonal, twice, to all before it; then U, V and their residual
    orthogonal = 2 * (gram + combine) * size * blocks**2 / 2
    last = rank / BLOCK * (4 * product + combine * (size * blocks + (users + items) * rank / BLOCK))
    return 2 * product * blocks + orthogonal + last


def _copy_seconds(rank: int, kernels: Kernels) -> float:
    """To the host and back, a row."""
    table = kernels.table(_rows(TABLE // 4 // rank, rank))
    return _least_seconds(lambda: kernels.table(kernels.host(table))) / (TABLE // 4 // rank)


def _rows(count: int, rank: int) -> Floats:
    some = np.random.default_rng(0).standard_normal((256, rank), np.float32) * np.float32(0.1 / np.sqrt(rank))
    return np.tile(some, (-(-count // 256), 1))[:count]


def _least_seconds(work: Callable[[], Any]) -> float:
    """The first call compiles, and warms the caches."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
