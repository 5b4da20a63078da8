"""How much to do at a time."""

from __future__ import annotations

import math

from recli.errors import BusyError


def fitting(most: int, limit: int | None, *, fixed: float, each: float, work: str) -> int:
    """How many things, at most `most`, of `each` bytes fit below `limit` bytes beside `fixed` bytes. Raises BusyError
    (75) where not even one does; work: what needs them.
    """
    if limit is None:
        return most
    if fixed + each > limit:
        enough = math.ceil((fixed + each) / 2**30 * 100) / 100  # rounded up, so that what is said will do
        raise BusyError(f"{work} needs at least {enough:.2f}G: give a larger --memory-limit")
    return int(min(most, (limit - fixed) // each))
