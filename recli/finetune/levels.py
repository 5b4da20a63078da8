"""bias by least squares: how far the biases of items, and of users where ratings are predicted, have moved.

Of ials, whose scores order items, b_u changes nothing, and b_v is the minimiser of

    stay L_old + sum_new [ w r^2 - 2 t r ] + alpha0 rho sum_present r^2,   r = p . q + b_u + b_v + b,

L_old being the base's loss, which has no slope at the base, and the sum over the pairs of the item with the users who
are present in the new data, whose silence counts as it does in the base for as many pairs: rho = new pairs / old ones.
How far it goes is penalised as in the base, but for what unobserved pairs add there. So an item falls that nobody takes
any more, and one that is taken as foretold stays where it is. For ratings, b_u and b_v are in turn the damped means of
what is left of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recli.checks import Arrays
from recli.errors import DivergedError
from recli.factorize.svd import ITEM_DAMPING, USER_DAMPING
from recli.finetune.closed import ClosedForm
from recli.finetune.data import Nums
from recli.score.row_problem import Settings

Doubles = NDArray[np.float64]
DAMPING = USER_DAMPING, ITEM_DAMPING  # of svd


def has_levels(settings: Settings) -> bool:
    """Is there a closed form of the biases for a base of such settings?"""
    return settings.solver in ("ials", "als") or settings.normalize == "bias"


def sides_of(settings: Settings) -> tuple[int, ...]:
    """Whose biases move: those of users (0), of items (1), or both."""
    return (1,) if settings.solver == "ials" else (0, 1)


@np.errstate(over="ignore", invalid="ignore")  # what overflows shows in the biases
def solve_levels(form: ClosedForm, nums: Nums, known: tuple[int, int], rounds: int) -> tuple[Arrays, int]:
    """What the artifact stores, and how many numbers of it are trained: moves of the biases of nums, and of new ids,
    which are not counted.

    Raises DivergedError where numbers overflow.
    """
    sides = sides_of(form.settings)
    own = [some if side in sides else some[:0] for side, some in enumerate(form.data.with_new(nums, known))]
    moved = [np.zeros(len(some)) for some in own]
    r = form.predictions().astype(np.float64)
    last: tuple[int, Doubles] | None = None  # a side, and its moves that r lacks
    for side in sides * rounds:
        if last is not None:
            _add(form, last[0], own[last[0]], last[1], r)
        moves = _moves(form, side, own[side], moved[side], r)
        moved[side] += moves
        form.shift(side, own[side], moves)
        last = side, moves
    parts: Arrays = {"users": own[0], "items": own[1]}
    for name, moves in zip(("b_u", "b_v"), moved, strict=True):
        parts[name] = moves.astype(np.float32)[:, None]
        if not np.isfinite(parts[name]).all():
            raise DivergedError("the biases overflow float32: are the new values as large as the base's?")
    parts["b"] = np.zeros((1, 1), np.float32)
    return parts, sum(len(nums[side]) for side in sides)


def level_new(form: ClosedForm, known: tuple[int, int]) -> None:
    """Gives new ids the damped means that a bias-normalised svd starts from, items first; other solvers fit biases with
    the rows, or have none.
    """
    if form.settings.normalize != "bias":
        return
    r = form.predictions().astype(np.float64)
    for side in (1, 0):
        new = form.data.new_ids(known)[side]
        moves = _moves(form, side, new, np.zeros(len(new)), r)
        form.shift(side, new, moves)
        _add(form, side, new, moves, r)


def _add(form: ClosedForm, side: int, nums: NDArray[np.int64], moves: Doubles, r: Doubles) -> None:
    """Adds the moves of the biases of nums to the predictions r float64[nnz] (IN/OUT)."""
    shifts = np.zeros((form.data.users, form.data.items)[side])
    shifts[nums] = moves
    r += shifts[(form.data.pair_users, form.data.matrix.indices)[side]]


def _moves(form: ClosedForm, side: int, nums: NDArray[np.int64], moved: Doubles, r: Doubles) -> Doubles:
    """How far the biases of nums are to go from where they are, moved float64[n] away from the base. r: float64[nnz],
    predictions of all new pairs by user.
    """
    data, settings, stay = form.data, form.settings, form.stay
    at, count = (data.pair_users, data.matrix.indices)[side], (data.users, data.items)[side]
    old, new = form.counts[side][nums], data.new_counts[side][nums]
    ials, values = settings.solver == "ials", data.matrix.values
    silence = settings.alpha0 * len(values) / max(1, int(form.counts[1].sum())) if ials else 0.0  # alpha0 rho
    w = values if ials else np.ones_like(values)
    t = values + (silence if settings.loss == "hu" else 0.0)
    slope = np.bincount(at, t - w * r, count)[nums].astype(np.float64)
    curvature = np.bincount(at, w, count)[nums].astype(np.float64)
    if ials:
        present = data.touched[1 - side]
        slope -= silence * form.predicted_sums(side, nums, present)
        curvature += silence * len(present)
    # what holds them at the base: its own pairs and a penalty
    penalty = DAMPING[side] if settings.solver == "svd" else settings.reg * (stay * old + new) ** settings.nu
    held = penalty + stay * (form.weights[side][nums] + settings.alpha0 * len(form.tables[1 - side]))
    return np.asarray((slope - held * moved) / (curvature + held), np.float64)
