"""rows and lora by closed form, and new ids folded in: what to sweep, in which order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recli.checks import Arrays
from recli.config import FinetuneConfig
from recli.finetune.closed import STAY, ClosedForm, principal
from recli.finetune.data import NewData
from recli.finetune.rows import Nums
from recli.kernels.spec import Floats, Kernels
from recli.score.row_problem import Settings

BASIS_ROWS = 2000  # whose moves tell in which directions all go


class Extended(NamedTuple):
    """Rows float32[new, r] and biases float32[new] of new users, and of new items."""

    users: tuple[Floats, Floats]
    items: tuple[Floats, Floats]


def form_of(
    sides: tuple[Floats, Floats],
    biases: tuple[Floats, Floats, float],
    data: NewData,
    counts: tuple[NDArray[np.int64], NDArray[np.int64]],
    settings: Settings,
    config: FinetuneConfig,
    kernels: Kernels,
) -> ClosedForm:
    """See ClosedForm; sides and biases of known ids, to which zeros are added for new ones."""
    sizes = data.users, data.items
    rows = tuple(_longer(side, size) for side, size in zip(sides, sizes, strict=True))
    levels = tuple(_longer(one, size) for one, size in zip(biases[:2], sizes, strict=True))
    stay = STAY if config.stay is None else config.stay
    return ClosedForm((rows[0], rows[1]), (levels[0], levels[1], biases[2]), data, counts, settings, stay, kernels)


def _longer(array: Floats, size: int) -> Floats:
    missing = size - len(array)
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), np.float32)]) if missing else array


def fold_in_new(form: ClosedForm, known: tuple[int, int], data: NewData) -> None:
    """New users given the known items, new items given all users, and again those users who have new items alone."""
    users, items = (nums[nums >= count] for nums, count in zip(data.touched, known, strict=True))
    for side, nums in ((0, users), (1, items)):
        if len(nums):
            form.move(side, nums, form.moves(side, nums))
    alone = users[~form.tables[0][users].any(axis=1)]
    if len(alone):
        form.move(0, alone, form.moves(0, alone))


def solve_rows(form: ClosedForm, nums: Nums, known: tuple[int, int], data: NewData, rounds: int) -> None:
    """Users, then items, so many times: those of nums, and new ones."""
    some = [
        np.concatenate([own, touched[touched >= count]])
        for own, touched, count in zip(nums, data.touched, known, strict=True)
    ]
    for _ in range(rounds):
        for side in (0, 1):
            form.move(side, some[side], form.moves(side, some[side]))


def solve_lora(
    form: ClosedForm, nums: Nums, known: tuple[int, int], data: NewData, config: FinetuneConfig, rounds: int
) -> Arrays:
    """A_P, B_P, A_Q, B_Q. The directions are those in which a sample of rows would move most if it were free; the
    coefficients in them are each row's own minimiser.
    """
    rng = np.random.default_rng(config.seed)
    found: Arrays = {}
    for _ in range(rounds):
        for side, name in ((0, "P"), (1, "Q")):
            own, new = nums[side], data.touched[side][data.touched[side] >= known[side]]
            free = new
            if f"B_{name}" not in found:
                sample = own if len(own) <= BASIS_ROWS else np.sort(rng.choice(own, BASIS_ROWS, replace=False))
                free = np.concatenate([sample, new])
            moves = form.moves(side, free)
            if f"B_{name}" not in found:
                found[f"B_{name}"] = principal(moves[: len(sample)], config.rank)
            basis = found[f"B_{name}"]
            found[f"A_{name}"] = form.moves(side, own, basis)
            form.move(
                side,
                np.concatenate([own, new]),
                np.concatenate([found[f"A_{name}"] @ basis, moves[len(free) - len(new) :]]),
            )
    return found


def extended(form: ClosedForm, known: tuple[int, int], biases: tuple[Floats, Floats]) -> Extended:
    """The new ids' rows as they are now. biases: of all, where they are no part of the rows."""
    ends = []
    for side in (0, 1):
        rows = form.tables[side][known[side] :]
        if form.biased:
            ends.append((np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, -1])))
        else:
            ends.append((np.ascontiguousarray(rows), biases[side][known[side] :]))
    return Extended(ends[0], ends[1])
