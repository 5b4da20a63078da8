"""rows and lora by closed form, and new ids folded in: what to sweep, in which order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recli.artifacts import Factors
from recli.checks import Arrays
from recli.config import FinetuneConfig
from recli.finetune.closed import STAY, ClosedForm, principal
from recli.finetune.data import NewData, Nums
from recli.finetune.levels import level_new
from recli.kernels.spec import Floats, Kernels
from recli.score.row_problem import Settings

BASIS_ROWS = 2000  # whose moves tell in which directions all go


class Extended(NamedTuple):
    """Rows float32[new, r] and biases float32[new] of new users, and of new items."""

    users: tuple[Floats, Floats]
    items: tuple[Floats, Floats]


def form_of(
    factors: Factors, data: NewData, settings: Settings, config: FinetuneConfig, kernels: Kernels
) -> ClosedForm:
    """See ClosedForm; of the base's rows and biases, to which zeros are added for new ids."""
    ends = (factors.P[:], factors.b_u, data.users), (factors.item_factors(), factors.b_v, data.items)
    rows, levels = zip(*((_longer(table, size), _longer(biases, size)) for table, biases, size in ends), strict=True)
    return ClosedForm(
        rows,
        (*levels, float(factors.b)),
        data,
        data.counts(factors),
        data.weights(factors),
        settings,
        STAY if config.stay is None else config.stay,
        kernels,
    )


def _longer(array: Floats, size: int) -> Floats:
    missing = size - len(array)
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), np.float32)]) if missing else array


def fold_in_new(form: ClosedForm, known: tuple[int, int], data: NewData) -> None:
    """New users given the known items, new items given all users, and again those users who have new items alone."""
    level_new(form, known)
    for side, new in enumerate(data.new_ids(known)):
        if len(new):
            form.move(side, new, form.moves(side, new))
    _fold_in_left(form, known, data)


def _fold_in_left(form: ClosedForm, known: tuple[int, int], data: NewData) -> None:
    """New users who had nothing to learn from when users were solved, since they have new items alone."""
    users = data.new_ids(known)[0]
    left = users[~form.tables[0][users].any(axis=1)]
    if len(left):
        form.move(0, left, form.moves(0, left))


def solve_rows(form: ClosedForm, nums: Nums, known: tuple[int, int], data: NewData, rounds: int) -> None:
    """Users, then items, so many times: those of nums, and new ones."""
    level_new(form, known)
    some = data.with_new(nums, known)
    for _ in range(rounds):
        for side in (0, 1):
            form.move(side, some[side], form.moves(side, some[side]))
    _fold_in_left(form, known, data)


def solve_lora(
    form: ClosedForm, nums: Nums, known: tuple[int, int], data: NewData, config: FinetuneConfig, rounds: int
) -> Arrays:
    """A_P, B_P, A_Q, B_Q. The directions are those in which a sample of rows would move most if it were free; the
    coefficients in them are each row's own minimiser.
    """
    level_new(form, known)
    rng = np.random.default_rng(config.seed)
    found: Arrays = {}
    for _ in range(rounds):
        for side, name in ((0, "P"), (1, "Q")):
            own, new = nums[side], data.new_ids(known)[side]
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
    _fold_in_left(form, known, data)
    return found


def extended(form: ClosedForm, known: tuple[int, int]) -> Extended:
    """The new ids' rows and biases as they are now."""
    ends = []
    for side in (0, 1):
        rows, biases = form.tables[side][known[side] :], form.biases(side)[known[side] :]
        ends.append(((rows[:, :-1] if form.biased else rows).copy(), biases.copy()))
    return Extended(ends[0], ends[1])
