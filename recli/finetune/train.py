"""A base and new interactions to a delta."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors, Provenance
from recli.checks import Arrays
from recli.config import FinetuneConfig
from recli.errors import UsageError
from recli.finetune.artifact import Adapter
from recli.finetune.base import Base, Side
from recli.finetune.batches import Batches
from recli.finetune.bilinear import bilinear_learner, scale_learner
from recli.finetune.budget import Chosen, choose, size_of
from recli.finetune.choices import check_labels, check_rank, fit_of, loss_of, negatives_of, settings_or_none, targets_of
from recli.finetune.data import NewData, Nums
from recli.finetune.features import Attributes, MappedRows, features_parts, learned_map, stretched
from recli.finetune.head import Head, input_scale
from recli.finetune.learner import FrozenRows, Learner, TrainedBiases
from recli.finetune.levels import solve_levels
from recli.finetune.loop import LastGoodError, Trained, Trainer, Watch
from recli.finetune.lora import lora_learner
from recli.finetune.losses import LOSSES
from recli.finetune.rows import bias_learner, rows_learner
from recli.finetune.solve import Extended, extended, fold_in_new, form_of, solve_lora, solve_rows
from recli.ids import Ids, take_rows, transpose, union_rows, widen
from recli.kernels.spec import Floats, Kernels

LEARNERS: dict[str, Callable[[Base, Nums, FinetuneConfig, Kernels], Learner]] = {
    "bias": bias_learner,
    "rows": rows_learner,
    "full": rows_learner,
    "scale": scale_learner,
    "bilinear": bilinear_learner,
    "lora": lora_learner,
}
BATCH, STEPS = 8192, 64  # pairs at most, and steps an epoch at least, where --batch does not say


@dataclass(frozen=True)
class Task:
    """What there is to learn from. user_ids, item_ids: the base's, then new ones; features: by role, user and item."""

    factors: Factors
    data: NewData
    user_ids: Ids
    item_ids: Ids
    chain: tuple[str, ...]
    provenance: Provenance
    features: Mapping[str, Attributes] = field(default_factory=dict)

    @property
    def known(self) -> tuple[int, int]:
        return len(self.factors.user_ids), len(self.factors.item_ids)


@dataclass(frozen=True)
class Outcome:
    """fit: closed or gradient; trained: how many numbers are; total: of the base; chosen: what --trainable chose, or
    what features did; loss: of gradients.
    """

    fit: str
    trained: int
    total: int
    chosen: str
    run: Trained
    config: FinetuneConfig
    loss: str = ""


def finetune(
    task: Task,
    config: FinetuneConfig,
    kernels: Kernels,
    watch: Callable[[Base], Watch] = lambda base: Watch(),
) -> tuple[Adapter, Outcome]:
    """Trains the adapter that config describes; every draw comes from config.seed. watch: what happens around epochs of
    gradients, given the base with its new rows.

    Raises DataError, UsageError, DivergedError.
    """
    with threadpool_limits(1):  # products here are short, and their bits must not depend on threads
        return _finetune(task, config, kernels, watch)


def _finetune(
    task: Task, config: FinetuneConfig, kernels: Kernels, watch: Callable[[Base], Watch]
) -> tuple[Adapter, Outcome]:
    factors, data = task.factors, task.data
    rank = factors.P.shape[1]
    check_rank(rank, config)
    settings, fit = settings_or_none(factors), fit_of(config, factors)
    P, Q = factors.P[:], factors.item_factors()
    biases = factors.b_u, factors.b_v, float(factors.b)
    form = form_of(factors, data, settings, config, kernels) if settings else None
    base, chosen = _base(task, P, Q, None), Chosen(config, data.touched, "")
    if config.adapter != "features":
        chosen = choose(base, data, config, settings if fit == "closed" else None)
    config, nums, run = chosen.config, chosen.nums, Trained()
    rounds = config.epochs or 1
    parts: Arrays
    text, maps = chosen.text, dict[str, Floats]()
    if fit == "closed" and config.adapter == "rows":
        assert form is not None
        solve_rows(form, nums, task.known, data, rounds)
        parts, trained = _row_parts(form.tables, (P, Q), biases, nums, biased=form.biased)
    elif fit == "closed" and config.adapter == "lora":
        assert form is not None
        parts = {"users": nums[0], "items": nums[1], **solve_lora(form, nums, task.known, data, config, rounds)}
        trained = sum(parts[name].size for name in ("A_P", "B_P", "A_Q", "B_Q"))
    elif form is not None:
        fold_in_new(form, task.known, data)
    new = extended(form, task.known) if form else _empty(task, rank)
    if fit == "closed" and config.adapter == "bias":
        assert form is not None
        parts, trained = solve_levels(form, nums, task.known, rounds)
    if config.adapter == "features":
        _check_share(task, config, base.parameters)
        new, maps, text, trained = _mapped(task, (P, Q), new, config, kernels)
        parts = features_parts(dict(task.features), maps, {})
    if fit == "gradient":
        base = _base(task, P, Q, new)
        learner = _learner(task, base, nums, config, kernels)
        try:
            run = _trainer(task, base, learner, config, kernels).train(watch(base))
        except LastGoodError as error:
            if error.epochs:
                error.delta = _delta(task, config, fit, _parts(task, learner, maps, kernels), new, kernels)
            raise
        parts, trained = _parts(task, learner, maps, kernels), learner.size - _of_new_ids(task, learner)
    delta = _delta(task, config, fit, parts, new, kernels)
    loss = loss_of(config, factors) if fit == "gradient" else ""
    return delta, Outcome(fit, trained, base.parameters, text, run, config, loss)


def planned(task: Task, config: FinetuneConfig) -> tuple[int, int, str]:
    """How many numbers would be trained, of how many, and what --trainable chooses."""
    rank, fit = task.factors.P.shape[1], fit_of(config, task.factors)
    check_rank(rank, config)
    base = _base(task, task.factors.P[:], task.factors.item_factors(), None)
    if config.adapter == "features":
        _check_share(task, config, base.parameters)
        return _mapped_numbers(task, config), base.parameters, ""
    closed = settings_or_none(task.factors) if fit == "closed" else None
    config, nums, text = choose(base, task.data, config, closed)
    return size_of(base, nums, config, closed), base.parameters, text


def _mapped_numbers(task: Task, config: FinetuneConfig) -> int:
    width = task.factors.P.shape[1] + (fit_of(config, task.factors) == "closed")
    return sum(one.columns * width for one in task.features.values())


def _check_share(task: Task, config: FinetuneConfig, parameters: int) -> None:
    needed = _mapped_numbers(task, config)
    if config.trainable is not None and needed > int(config.trainable * parameters):
        raise UsageError(
            f"--trainable {100 * config.trainable:.4g}%: allows {int(config.trainable * parameters)} numbers, "
            f"--adapter features trains {needed}: featurize --reduce or --select makes fewer columns"
        )


def _of_new_ids(task: Task, learner: Learner) -> int:
    """Numbers of rows that the base does not have."""
    new = [int((nums >= count).sum()) for nums, count in zip(task.data.touched, task.known, strict=True)]
    sides = {"P": 0, "b_u": 0, "A_P": 0, "Q": 1, "b_v": 1, "A_Q": 1}
    return sum(new[sides[name]] * one.shape[1] for name, one in learner.parameters.items() if name in sides)


def _parts(task: Task, learner: Learner, maps: dict[str, Floats], kernels: Kernels) -> Arrays:
    parts = learner.arrays(kernels)
    if not task.features:
        return parts
    return features_parts(dict(task.features), maps, {role: parts[f"D_{role}"] for role in task.features})


def _delta(task: Task, config: FinetuneConfig, fit: str, parts: Arrays, new: Extended, kernels: Kernels) -> Adapter:
    users, items = task.known
    return Adapter(
        adapter=config.adapter,
        chain=task.chain,
        parts=parts,
        new_user_ids=task.user_ids.take(np.arange(users, len(task.user_ids))),
        new_item_ids=task.item_ids.take(np.arange(items, len(task.item_ids))),
        P=new.users[0],
        Q=new.items[0],
        b_u=new.users[1],
        b_v=new.items[1],
        seen=widen(task.data.every, task.data.users),
        names={role: attributes.names for role, attributes in task.features.items()},
        provenance=dataclasses.replace(
            task.provenance,
            command="finetune",
            config={**task.provenance.config, **config.semantic(), "fit": fit},
            device=kernels.name,
        ),
    )


def _base(task: Task, P: Floats, Q: Floats, new: Extended | None) -> Base:
    factors, (users, items) = task.factors, task.data.touched
    new = new or _empty(task, P.shape[1])
    return Base(
        users=Side(P, new.users[0], np.concatenate([factors.b_u, new.users[1]]), users),
        items=Side(Q, new.items[0], np.concatenate([factors.b_v, new.items[1]]), items),
        level=float(factors.b),
    )


def _empty(task: Task, rank: int) -> Extended:
    """Zero rows: of a base that does not say how its rows came about."""
    new = [
        np.zeros((size - known, rank + 1), np.float32)
        for size, known in zip((task.data.users, task.data.items), task.known, strict=True)
    ]
    ends = [(np.ascontiguousarray(rows[:, :rank]), np.ascontiguousarray(rows[:, rank])) for rows in new]
    return Extended(ends[0], ends[1])


def _row_parts(
    tables: list[Floats],
    start: tuple[Floats, Floats],
    biases: tuple[Floats, Floats, float],
    nums: Nums,
    *,
    biased: bool,
) -> tuple[Arrays, int]:
    """How far the closed form moved the rows."""
    parts: Arrays = {"users": nums[0], "items": nums[1]}
    for name, bias, side in (("P", "b_u", 0), ("Q", "b_v", 1)):
        own = nums[side]
        rows = tables[side][own]
        parts[name] = np.ascontiguousarray(rows[:, : start[side].shape[1]] - start[side][own])
        if biased:
            levels = biases[0] if side == 0 else biases[1]
            parts[bias] = np.ascontiguousarray(rows[:, -1:] - levels[own][:, None])
    if biased:
        parts["b"] = np.zeros((1, 1), np.float32)
    return parts, sum(array.size for name, array in parts.items() if name in ("P", "Q", "b_u", "b_v"))


def _mapped(
    task: Task,
    rows: tuple[Floats, Floats],
    new: Extended,
    config: FinetuneConfig,
    kernels: Kernels,
) -> tuple[Extended, dict[str, Floats], str, int]:
    """New ids without interactions get the rows that their attributes map to; the maps, and what was chosen for
    them.
    """
    factors, counts = task.factors, task.data.counts(task.factors)
    seen = factors.seen and take_rows(factors.seen, np.arange(len(rows[0])))  # whose values, all ones, may be left out
    maps, chosen, ends = {}, [], {"user": new.users, "item": new.items}
    for side, role in enumerate(("user", "item")):
        if role not in task.features:
            continue
        attributes, levels = task.features[role], (factors.b_u, factors.b_v)[side]
        had = None if seen is None else (seen, transpose(seen, len(rows[1])))[side]
        W, point = learned_map(
            attributes,
            np.column_stack([rows[side], levels]),
            counts[side][: len(rows[side])],
            np.column_stack([rows[1 - side], np.ones(len(rows[1 - side]), np.float32)]),
            had,
            config.reg,
            config.seed,
            kernels,
        )
        maps[role] = W = np.column_stack([stretched(W[:, :-1], attributes, rows[side]), W[:, -1]])
        chosen.append(f"{role}s: " + ", ".join(f"{name} {value:g}" for name, value in point.items()))
        added, biases = (array.copy() for array in ends[role])
        cold = np.setdiff1d(np.arange(len(rows[side]), len(rows[side]) + len(added)), task.data.touched[side])
        cold = cold[attributes.there[cold]]
        mapped = attributes.times(W)[cold]
        added[cold - len(rows[side])], biases[cold - len(rows[side])] = mapped[:, :-1], mapped[:, -1]
        ends[role] = added, biases
    return Extended(ends["user"], ends["item"]), maps, "; ".join(chosen), sum(W.size for W in maps.values())


def _learner(task: Task, base: Base, nums: Nums, config: FinetuneConfig, kernels: Kernels) -> Learner:
    if config.adapter in LEARNERS:
        return LEARNERS[config.adapter](base, task.data.with_new(nums, task.known), config, kernels)
    frozen = TrainedBiases(base, kernels, None)
    if config.adapter == "head":
        return _head(task, base, config, frozen, kernels)
    sides = {
        role: MappedRows(side, task.features[role], kernels) if role in task.features else FrozenRows(side, kernels)
        for role, side in (("user", base.users), ("item", base.items))
    }
    parameters = {f"D_{role}": rows.parameter for role, rows in sides.items() if isinstance(rows, MappedRows)}
    return Learner(sides["user"], sides["item"], frozen, parameters)


def _head(task: Task, base: Base, config: FinetuneConfig, biases: TrainedBiases, kernels: Kernels) -> Learner:
    users, items = FrozenRows(base.users, kernels), FrozenRows(base.items, kernels)
    rng = np.random.default_rng(config.seed)
    matrix = task.data.matrix
    some = np.sort(rng.choice(len(matrix.indices), min(len(matrix.indices), 10_000), replace=False))
    of_users = np.searchsorted(matrix.indptr, some, "right") - 1
    of_items = matrix.indices[some].astype(np.int64)
    b_u, b_v, b = biases.take(of_users, of_items)
    scale = input_scale(
        kernels.host(users.take(of_users)), kernels.host(items.take(of_items)), b_u + b_v + np.float32(b)
    )
    head = Head.start(scale, config.hidden, rng, kernels)
    return Learner(users, items, biases, head.parameters, {"scale": scale}, head)


def _trainer(task: Task, base: Base, learner: Learner, config: FinetuneConfig, kernels: Kernels) -> Trainer:
    factors, data = task.factors, task.data
    loss, negatives = loss_of(config, factors), negatives_of(config, factors)
    if loss in ("bpr", "softmax") and not negatives:
        raise UsageError(f"--negatives 0: --loss {loss} compares pairs with negatives: give at least 1")
    sampling = config.sampling if config.sampling != "auto" else ("popularity" if loss == "softmax" else "uniform")
    # Held-out pairs may be drawn: if they alone never were, they would rise without being learned.
    had = [widen(data.matrix, data.users)]
    if negatives and factors.seen is not None:
        users = np.full(data.users, -1)
        there = data.touched[0][data.touched[0] < len(factors.user_ids)]
        users[there] = there
        had.append(take_rows(factors.seen, users))
    targets = targets_of(data.given, loss, negatives, factors)
    if loss == "logistic" and not negatives:
        check_labels(targets)
    matrix = widen(data.matrix, data.users)._replace(values=targets)
    every = union_rows(had, data.items) if negatives else had[0]
    size = config.batch or max(1, min(BATCH, len(matrix.indices) // STEPS))
    batches = Batches(matrix, every, data.items, size, negatives, sampling == "popularity", config.seed)
    return Trainer(base, learner, batches, LOSSES[loss], config, kernels)
