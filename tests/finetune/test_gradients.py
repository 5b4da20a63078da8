"""Gradients of every adapter under every loss: those of the reference backend against finite differences, those of the
others against the reference's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recli.config import FinetuneConfig
from recli.finetune.base import Base, Side
from recli.finetune.batches import Batches, PairBatch
from recli.finetune.bilinear import bilinear_learner, scale_learner
from recli.finetune.features import Attributes, MappedRows
from recli.finetune.head import Head, logits
from recli.finetune.learner import FrozenRows, Learner, TrainedBiases
from recli.finetune.loop import Trainer
from recli.finetune.lora import lora_learner
from recli.finetune.losses import LOSSES, Batch
from recli.finetune.rows import bias_learner, rows_learner
from recli.ids import Csr
from recli.kernels import load
from recli.kernels.reference import ReferenceKernels, Table
from recli.kernels.spec import Kernels, Nums

USERS, ITEMS, NEW, RANK = 7, 9, 2, 5
F = np.float32
STEP = 2.0**-20  # of finite differences: their path is float64, and so short a step crosses no kink of a head's relu


class Exact(ReferenceKernels):
    """The reference, whose dots are not rounded on their way to the loss."""

    def pair_dots(self, users: Table, items: Table, user_at: Nums, item_at: Nums) -> Any:
        return self.exact_dots(users, items, user_at, item_at)

    def host(self, table: Table) -> Any:
        return table.rows.copy()


def base() -> Base:
    """With new users and items, whose rows stand apart, and biases."""
    rng = np.random.default_rng(0)
    sides = [
        Side(
            rng.standard_normal((n - NEW, RANK)).astype(F),
            rng.standard_normal((NEW, RANK)).astype(F),
            rng.standard_normal(n).astype(F),
            np.arange(n),
        )
        for n in (USERS, ITEMS)
    ]
    return Base(sides[0], sides[1], 0.3)


def attributes(count: int, seed: int) -> Attributes:
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((count, 4)).astype(F)
    dense[:, 3] = 1
    dense[rng.random((count, 4)) < 0.4] = 0
    dense[1] = 0
    indptr = np.append(0, np.cumsum((dense != 0).sum(axis=1)))
    matrix = Csr(indptr, np.nonzero(dense)[1].astype(np.int32), dense[dense != 0])
    return Attributes(matrix, dense.any(axis=1), ("a", "b", "c"))


def features_learner(of: Base, nums: Any, config: FinetuneConfig, kernels: Kernels) -> Learner:
    users = MappedRows(of.users, attributes(USERS, 1), kernels)
    items = MappedRows(of.items, attributes(ITEMS, 2), kernels)
    parameters = {"D_user": users.parameter, "D_item": items.parameter}
    return Learner(users, items, TrainedBiases(of, kernels, None), parameters)


def head_learner(of: Base, nums: Any, config: FinetuneConfig, kernels: Kernels) -> Learner:
    scale = np.full(3 * RANK + 1, 1.5, F)
    head = Head.start(scale, 4, np.random.default_rng(3), kernels)
    sides = [FrozenRows(side, kernels) for side in (of.users, of.items)]
    return Learner(sides[0], sides[1], TrainedBiases(of, kernels, None), head.parameters, {"scale": scale}, head)


LEARNERS: dict[str, Callable[..., Learner]] = {
    "bias": bias_learner,
    "rows": rows_learner,
    "scale": scale_learner,
    "bilinear": bilinear_learner,
    "lora": lora_learner,
    "features": features_learner,
    "head": head_learner,
}
DRAWN = np.array([0, 0, 0, 1, 1, 4, 7])  # items of the pairs, as often as they are drawn
SOME = np.array([0, 2, 3, 5, 6]), np.array([0, 1, 4, 7, 8])  # which rows are trained


def batch(negatives: int) -> PairBatch:
    rng = np.random.default_rng(5)
    users, items = rng.integers(USERS, size=12), rng.integers(ITEMS, size=(12, 1 + negatives))
    kept = rng.random(items.shape) < 0.8
    kept[:, 0] = True
    targets = (rng.random(12) < 0.6).astype(F)
    return PairBatch(users.astype(np.int32), items.astype(np.int32), targets, kept)


def trainer_of(adapter: str, loss: str, kernels: Kernels, **settings: Any) -> tuple[Trainer, Learner]:
    of = base()
    config = FinetuneConfig(adapter=adapter, rank=2, **settings)
    learner = LEARNERS[adapter](of, SOME, config, kernels)
    rng = np.random.default_rng(9)
    for parameter in learner.parameters.values():  # away from zero, where gradients vanish
        parameter.table = kernels.table(rng.standard_normal(parameter.shape).astype(F) / 2)
    matrix = Csr(np.arange(USERS + 1), DRAWN.astype(np.int32), np.ones(USERS, F))
    batches = Batches(matrix, matrix, ITEMS, 4, 1, True, 0)
    return Trainer(of, learner, batches, LOSSES[loss], config, kernels), learner


def dense_gradients(trainer: Trainer, learner: Learner, of: PairBatch, kernels: Kernels) -> dict[str, Any]:
    """Of all rows of all parameters, zero for those that the batch does not touch; and the loss."""
    value, gradients = trainer.gradients(of, np.random.default_rng(1))
    names = {id(parameter): name for name, parameter in learner.parameters.items()}
    found = {name: np.zeros(parameter.shape) for name, parameter in learner.parameters.items()}
    for parameter, nums, table in gradients:
        rows = np.arange(parameter.shape[0]) if nums is None else nums
        assert len(np.unique(rows)) == len(rows)
        found[names[id(parameter)]][rows] += kernels.host(table)[:, : parameter.shape[1]]
    return {**found, "": value}


CASES = [
    pytest.param(adapter, settings, id=f"{adapter}-{next(iter(settings), 'plain')}")
    for adapter, settings in itertools.product(LEARNERS, [{}, {"stay": 0.7}, {"dropout": 0.4}])
    if adapter != "head" or not settings  # whose rows are frozen: the command refuses both
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("adapter", "settings"), CASES)
def test_gradients_are_those_of_finite_differences(adapter: str, loss: str, settings: dict[str, Any]) -> None:
    kernels = Exact()
    trainer, learner = trainer_of(adapter, loss, kernels, **settings)
    of = batch(0 if loss == "squared" and adapter == "bias" else 3)
    found = dense_gradients(trainer, learner, of, kernels)
    for name, parameter in learner.parameters.items():
        expected = np.zeros(parameter.shape)
        for at in np.ndindex(*parameter.shape):
            values = []
            for step in (STEP, -STEP):
                parameter.table.rows[at] += step
                values.append(trainer.gradients(of, np.random.default_rng(1))[0])
                parameter.table.rows[at] -= step
            expected[at] = (values[0] - values[1]) / (2 * STEP)
        np.testing.assert_allclose(found[name], expected, atol=1e-6 * max(0.1, np.abs(expected).max()), err_msg=name)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("adapter", LEARNERS)
def test_the_loss_is_that_of_the_scores_of_all_pairs(adapter: str, loss: str) -> None:
    kernels, of = Exact(), batch(3)
    trainer, learner = trainer_of(adapter, loss, kernels)
    users, items = np.arange(USERS), np.arange(ITEMS)
    P, Q = (kernels.host(side.take(nums)) for side, nums in ((learner.users, users), (learner.items, items)))
    b_u, b_v, b = learner.biases.take(users, items)
    biases = b_u[:, None] + b_v + b
    scores = P @ Q.T + biases
    if adapter == "head":
        p, q = np.repeat(P, ITEMS, axis=0), np.tile(Q, (USERS, 1))
        scores = logits(p, q, biases.ravel(), learner.arrays(kernels)).reshape(USERS, ITEMS)
    log_odds = np.log(np.maximum(np.bincount(DRAWN, minlength=ITEMS), 1) / USERS)
    chosen = Batch(scores[of.users[:, None], of.items], of.targets.astype(float), of.kept, log_odds[of.items])
    value, _ = trainer.gradients(of, np.random.default_rng(1))
    assert value == pytest.approx(LOSSES[loss](chosen)[0], rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("adapter", LEARNERS)
def test_the_cpu_has_the_gradients_of_the_reference(adapter: str, loss: str) -> None:
    of = batch(3)
    with load("cpu", 2) as cpu:
        found = dense_gradients(*trainer_of(adapter, loss, cpu), of, cpu)
    reference = ReferenceKernels()
    expected = dense_gradients(*trainer_of(adapter, loss, reference), of, reference)
    for name, table in expected.items():
        np.testing.assert_allclose(found[name], table, atol=1e-4 * max(0.1, float(np.abs(table).max())), err_msg=name)
