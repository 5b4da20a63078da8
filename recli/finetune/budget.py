"""What fits under --trainable: ranks, widths and rows, so that at most that share of the base's parameters is
trained.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.config import FinetuneConfig
from recli.errors import UsageError
from recli.finetune.base import Base
from recli.finetune.data import NewData, Nums
from recli.finetune.levels import sides_of
from recli.score.row_problem import Settings


class Chosen(NamedTuple):
    """config: with a rank or width that fits; nums: of users and items of the base that may be trained; text: what was
    chosen, or empty.
    """

    config: FinetuneConfig
    nums: Nums
    text: str


def size_of(base: Base, nums: Nums, config: FinetuneConfig, closed: Settings | None = None) -> int:
    """How many numbers are trained, for nums of the base. closed: how the base came about, where the fit is closed."""
    rank, (width, level) = base.rank, _widths(base, closed)
    rows = len(nums[0]) + len(nums[1])
    free = rows * width + level
    return {
        "bias": rows + (closed is None),
        "rows": free,
        "full": free,
        "scale": rank,
        "bilinear": 2 * rank * config.rank,
        "lora": (rows + 2 * (width if closed else rank)) * config.rank,
        "head": (3 * rank + 3) * config.hidden + 3 * rank + 2,
    }[config.adapter]


def _widths(base: Base, closed: Settings | None) -> tuple[int, int]:
    """Numbers of a row with the bias that is trained with it, and 1 if b is, too."""
    if closed is not None:
        return base.rank + (closed.solver == "als"), 0
    return base.rank + base.biased, int(base.biased)


def choose(base: Base, data: NewData, config: FinetuneConfig, closed: Settings | None = None) -> Chosen:
    """closed: how the base came about, where the fit is closed. Raises UsageError where nothing fits. Rows of new ids
    come on top: they have no others.
    """
    known = [nums[nums < len(side.rows)] for nums, side in zip(data.touched, (base.users, base.items), strict=True)]
    everyone = [np.arange(len(side.rows)) for side in (base.users, base.items)]
    touched = everyone if config.adapter == "full" else known
    if config.adapter == "bias" and closed is not None:
        touched = [nums if side in sides_of(closed) else nums[:0] for side, nums in enumerate(touched)]
    nums: Nums = (touched[0], touched[1])
    if config.trainable is None:
        return Chosen(config, nums, "")
    budget, rank, rows = int(config.trainable * base.parameters), base.rank, len(nums[0]) + len(nums[1])
    flag, (width, level) = f"--trainable {100 * config.trainable:.4g}%", _widths(base, closed)
    if config.adapter == "lora":
        each = rows + 2 * (width if closed else rank)  # closed forms move biases with the rows
        most = min(budget // max(1, each), rank)
        return Chosen(_ranked(config, most, flag, each), nums, f"rank {most}")
    if config.adapter == "bilinear":
        most = min(budget // max(1, 2 * rank), rank)
        return Chosen(_ranked(config, most, flag, 2 * rank), nums, f"rank {most}")
    if config.adapter == "head":
        each, fixed = 3 * rank + 3, 3 * rank + 2
        hidden = (budget - fixed) // each
        if hidden < 1:
            raise UsageError(f"{flag}: allows {budget} numbers, a head takes {each + fixed} at least")
        return Chosen(
            dataclasses.replace(config, hidden=min(hidden, 65536)), nums, f"{min(hidden, 65536)} hidden units"
        )
    if config.adapter in ("rows", "bias"):
        if config.adapter == "bias":
            width, level = 1, int(closed is None)
        kept = _busiest(data, nums, max(0, budget - level) // max(1, width))
        if not len(kept[0]) + len(kept[1]):
            least = width + level
            raise UsageError(f"{flag}: allows {budget} numbers, --adapter {config.adapter} takes {least} at least")
        return Chosen(config, kept, f"{len(kept[0]):,} users and {len(kept[1]):,} items with the most new pairs")
    taken = size_of(base, nums, config, closed)
    if taken > budget:
        raise UsageError(f"{flag}: allows {budget} numbers, --adapter {config.adapter} trains {taken}")
    return Chosen(config, nums, "")


def _ranked(config: FinetuneConfig, most: int, flag: str, each: int) -> FinetuneConfig:
    if most < 1:
        raise UsageError(f"{flag}: too little for rank 1 of --adapter {config.adapter}, which takes {each} numbers")
    return dataclasses.replace(config, rank=most)


def _busiest(data: NewData, nums: Nums, count: int) -> Nums:
    """The users and items with the most new pairs, so many in all."""
    pairs = [np.diff(matrix.indptr)[some] for matrix, some in zip((data.matrix, data.by_item), nums, strict=True)]
    order = np.argsort(-np.concatenate(pairs), kind="stable")[:count]
    users = len(nums[0])
    first: NDArray[np.int64] = np.sort(order[order < users])
    return nums[0][first], nums[1][np.sort(order[order >= users]) - users]
