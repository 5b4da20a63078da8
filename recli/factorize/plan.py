"""What a job will take, before it starts: for --dry-run and --memory-limit."""

from __future__ import annotations

from typing import NamedTuple

from recli.config import PROCESS_BYTES, FactorizeConfig

# Seen on two cores of a 2.4 GHz server; another machine is off by its speed, so the time is an order of magnitude, not
# a promise.
ENTRY_RATE = 15e9  # flops a second and thread: 3 passes of 4 flops a rank and entry, twice an iteration
DENSE_RATE = 30e9  # the same for rotations and Gram matrices: 6 rank^2 flops a row, once a half-sweep
READ_BYTES = 40  # a row of the input table while it is indexed
FIT_BYTES = 40  # a pair while the solver runs: by user, by item, seen lists
SVD_PASSES = 6  # a usual number of products by the matrix and its transpose, each dearer than half a sweep
STORED_SHARE = {"f32": 1, "f16": 1 / 2, "int8": 1 / 4, "pq": 1 / 16}  # of float32
TABLES = 4  # copies of the factors at the end: the device's, the host's, rotated, written


class Plan(NamedTuple):
    seconds: float
    bytes: int
    output_bytes: int


def estimate(config: FactorizeConfig, users: int, items: int, pairs: int, threads: int) -> Plan:
    """Seconds without reading, peak bytes and bytes of the artifact."""
    rank = 0 if config.solver == "pop" else config.rank
    sweeps = SVD_PASSES if config.solver == "svd" else config.iterations
    entries = sweeps * 2 * 12 * pairs * rank / ENTRY_RATE
    dense = sweeps * 2 * 6 * (users + items) * rank**2 / DENSE_RATE
    table = 4 * (users + items) * rank
    memory = PROCESS_BYTES + max(READ_BYTES * pairs, FIT_BYTES * pairs + TABLES * table)
    learned = config.solver in ("als", "svd") or config.alpha is not None  # values other than 1 are kept with the pairs
    seen = (8 if learned else 4) * pairs if config.seen else 0
    return Plan(
        (entries + dense) / threads, memory, int(table * STORED_SHARE[config.store]) + seen + 24 * (users + items)
    )
