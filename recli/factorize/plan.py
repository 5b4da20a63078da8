"""What a job will take, before it starts: for --dry-run and --memory-limit."""

from __future__ import annotations

from recli.config import FactorizeConfig

STORED_SHARE = {"f32": 1, "f16": 1 / 2, "int8": 1 / 4, "pq": 1 / 16}  # of float32
PADDING = 16  # columns come in multiples of it on the device
SCRATCH_BYTES = 30_000_000  # code, and what kernels keep on each thread
# Bytes a pair beside the interactions, which are there already: values float32; by item indices and values.
VALUES, BY_ITEM = 4, 8
COUNTED = 8  # indices as int64 for a moment, while popularity is counted or columns are weighed


def train_bytes(config: FactorizeConfig, users: int, items: int, pairs: int, *, weighted: bool) -> int:
    """What training and writing add at most to a process that holds the interactions: a count of the arrays that are
    there together, by solver.
    """
    rows = users + items
    width = -(-(config.rank + 2 * (config.solver == "als")) // PADDING) * PADDING
    table = 4 * rows * width
    if config.solver == "pop":
        return SCRATCH_BYTES + (COUNTED + VALUES) * pairs
    if config.solver == "svd":
        size = min(users, items)
        # row numbers, what is left of the ratings, and the two biases of each pair and their sum
        normalising = 5 * 8 * pairs
        basis = 4 * size * basis_width(config.rank, size)
        # products, and U and V as they are refined, on the device and the host
        training = (VALUES + BY_ITEM) * pairs + max(basis, 3 * table)
        return SCRATCH_BYTES + max(normalising, training)
    if config.solver == "als":
        data = (VALUES + BY_ITEM + VALUES) * pairs  # both sides' ones, and ratings by item; then the targets
        data += max(VALUES, 2 * COUNTED) * pairs
    else:
        data = (BY_ITEM + (0 if weighted else VALUES)) * pairs
        data += 2 * VALUES * pairs if config.loss == "hu" else 0
        data += 2 * VALUES * pairs if weighted or config.alpha is not None else 0  # ones, to start with
    # as trained, as settled, on the host, rotated
    return SCRATCH_BYTES + data + 4 * table


def basis_width(rank: int, size: int) -> int:
    """Columns of svd's Krylov basis. It depends on how the singular values fall, which nobody knows before: ratings
    took 400 for rank 64, tables without structure twice as many.
    """
    return min(size, 4 * rank + 256)


def stored_bytes(config: FactorizeConfig, users: int, items: int, pairs: int) -> int:
    """Of the artifact."""
    rank = 0 if config.solver == "pop" else config.rank
    learned = config.solver in ("als", "svd") or config.alpha is not None  # values other than 1 are kept with the pairs
    seen = (8 if learned else 4) * pairs if config.seen else 0
    return int(4 * (users + items) * rank * STORED_SHARE[config.store]) + seen + 24 * (users + items)
