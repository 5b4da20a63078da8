"""What a kernel's arithmetic and memory traffic cost at least on the machine as measured (Williams, Waterman, Patterson
2009, "Roofline: An Insightful Visual Performance Model for Multicore Architectures").

Flops are those that the algorithm does; bytes those that it must move: each array once, and rows that are gathered at
random once for each entry, as far as their table does not fit in the last-level cache. So a fraction may exceed 1 where
popular rows stay in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

from recli.bench.machine import Machine
from recli.factorize.als import STEPS as ALS_STEPS
from recli.factorize.ials import USUAL_STEPS

STEPS = {"ials": USUAL_STEPS, "als": ALS_STEPS}
ENTRY_BYTES = 12  # column, weight, target
NUMBER = 4


class Work(NamedTuple):
    flops: float
    bytes: float

    def __add__(self, other: object) -> Work:
        assert isinstance(other, Work)
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def floor(self, machine: Machine) -> float:
        """Seconds."""
        return max(self.flops / (machine.gemm_gflops * 1e9), self.bytes / (machine.copy_gbs * 1e9))


def als_iteration(solver: str, users: int, items: int, pairs: int, rank: int, cache: int) -> Work:
    """Two half-sweeps of ials or als. Each takes STEPS + 1 passes (the residual, then the steps), each a dot product
    and a sum of `rank` numbers an entry; ials also rotates both tables and takes a Gram matrix.
    """
    work = Work(0, 0)
    for rows, others in ((users, items), (items, users)):
        entries = 4 * rank * pairs * (STEPS[solver] + 1)
        dense = 2 * (rows + 2 * others) * rank**2 if solver == "ials" else 0
        tables = NUMBER * rank * (2 * rows + others)
        gathered = NUMBER * rank * pairs * max(0.0, 1 - cache / (NUMBER * rank * others))
        work += Work(entries + dense, ENTRY_BYTES * pairs + tables + gathered)
    return work


def exhaustive_topk(users: int, items: int, rank: int, k: int) -> Work:
    """Every score computed. A search that prunes does less, so its fraction may exceed 1: that is the point of it."""
    return Work(2 * users * items * rank, NUMBER * rank * (users + items) + 2 * NUMBER * users * k)


def sparse_product(rows: int, columns: int, pairs: int, width: int, cache: int) -> Work:
    """A sparse matrix times a table of `width` columns."""
    gathered = NUMBER * width * pairs * max(0.0, 1 - cache / (NUMBER * width * columns))
    return Work(2 * pairs * width, 2 * NUMBER * pairs + NUMBER * width * (rows + columns) + gathered)
