"""The training loop: which epoch is kept, when it stops, that going on is as never having stopped, and that planted
changes are found.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recli.checks import Arrays
from recli.config import FinetuneConfig
from recli.errors import DivergedError
from recli.finetune.base import Base, Side
from recli.finetune.batches import Batches, PairBatch
from recli.finetune.data import Nums
from recli.finetune.learner import Learner
from recli.finetune.loop import EPOCHS, LastGoodError, Progress, Trainer, Watch
from recli.finetune.losses import LOSSES, Batch, Loss
from recli.finetune.optimizer import Gradient
from recli.finetune.train import LEARNERS
from recli.ids import Csr
from recli.kernels import load
from recli.kernels.spec import Kernels

F = np.float32
USERS, ITEMS, RANK = 40, 30, 4
EVERY = np.arange(USERS), np.arange(ITEMS)
Doubles = NDArray[np.float64]


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 1) as kernels:
        yield kernels


def random_rows(seed: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, RANK)).astype(F) for n in (USERS, ITEMS)]


BASE, OTHERS = random_rows(0), random_rows(8)


def base_of() -> Base:
    sides = [Side(rows, np.zeros((0, RANK), F), np.zeros(len(rows), F), np.arange(len(rows))) for rows in BASE]
    return Base(sides[0], sides[1], 0.0)


def scores_of(P: Any, Q: Any) -> Doubles:
    return np.asarray(P.astype(float) @ Q.astype(float).T)


def all_pairs(ratings: Doubles) -> Csr:
    indptr = np.arange(USERS + 1) * ITEMS
    return Csr(indptr, np.tile(np.arange(ITEMS, dtype=np.int32), USERS), ratings.ravel().astype(F))


class Run:
    """A trainer of ratings of all pairs, by default those of other tastes than the base's."""

    def __init__(
        self,
        kernels: Kernels,
        ratings: Doubles | None = None,
        loss: Loss = LOSSES["squared"],
        nums: Nums = EVERY,
        kind: type[Trainer] = Trainer,
        **settings: Any,
    ) -> None:
        config = FinetuneConfig(**{"adapter": "rows", "epochs": 6, "batch": 100, "rank": 2, **settings})
        self.kernels, base = kernels, base_of()
        matrix = all_pairs(scores_of(*OTHERS) if ratings is None else ratings)
        self.learner = LEARNERS[config.adapter](base, nums, config, kernels)
        batches = Batches(matrix, matrix, ITEMS, config.batch or 100, 0, False, config.seed)
        self.trainer = kind(base, self.learner, batches, loss, config, kernels)

    def state(self) -> Arrays:
        return self.learner.state(self.kernels)

    def rows(self) -> tuple[Doubles, Doubles]:
        P, Q = (side.take(nums) for side, nums in zip((self.learner.users, self.learner.items), EVERY, strict=True))
        return self.kernels.host(P).astype(float), self.kernels.host(Q).astype(float)


def content(state: Arrays) -> dict[str, bytes]:
    return {name: np.asarray(array).tobytes() for name, array in state.items()}


class Script:
    """A validation whose scores are given; `states` are those of the learners that it saw."""

    def __init__(self, kernels: Kernels, *scores: float) -> None:
        self.kernels, self.scores, self.states = kernels, scores, list[dict[str, bytes]]()

    def __call__(self, learner: Learner) -> float:
        self.states.append(content(learner.state(self.kernels)))
        return self.scores[len(self.states) - 1]


def test_the_best_epoch_is_kept_and_patience_ends_it(cpu: Kernels) -> None:
    script, reports = Script(cpu, 0.1, 0.3, 0.2, 0.3, 0.25, 9), list[Progress]()
    run = Run(cpu, epochs=8, patience=3)
    trained = run.trainer.train(Watch(validate=script, on_progress=reports.append))
    assert (trained.best, trained.scores) == (2, [0.1, 0.3, 0.2, 0.3, 0.25])  # of equals the first
    assert len(trained.losses) == len(script.states) == 5  # once an epoch
    assert content(run.state()) == script.states[1]
    assert len({tuple(state.values()) for state in script.states}) == 5
    assert [(at.done, at.total, at.loss, at.score) for at in reports] == [
        (epoch + 1, 8, trained.losses[epoch], trained.scores[epoch]) for epoch in range(5)
    ]


def test_without_validation_the_last_epoch_is_kept_and_to_look_on_changes_nothing(cpu: Kernels) -> None:
    reports, run, watched = list[Progress](), Run(cpu), Run(cpu)
    trained = run.trainer.train(Watch(on_progress=reports.append))
    assert (trained.best, trained.scores, len(trained.losses)) == (0, [], 6)
    assert [at.score for at in reports] == [None] * 6
    script = Script(cpu, *range(6))
    seen = watched.trainer.train(Watch(validate=script, checkpoint_every=1))
    assert (seen.best, seen.losses) == (6, trained.losses)
    assert content(watched.state()) == script.states[5] == content(run.state())


def test_the_loss_of_an_epoch_is_the_mean_over_its_pairs(cpu: Kernels) -> None:
    """Of batches of unequal sizes, each before its step; the steps are next to none."""
    run, errors = Run(cpu, learning_rate=1e-12, epochs=1), scores_of(*BASE) - scores_of(*OTHERS)
    assert run.trainer.train(Watch()).losses == pytest.approx([(errors**2).mean()], rel=1e-5)
    assert Run(cpu, epochs=None).trainer.epochs == EPOCHS


OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "learning_rate": 0.003},
    {"optimizer": "sgd", "learning_rate": 0.003, "momentum": 0.0},
    {"optimizer": "adagrad"},
    {"optimizer": "adam", "dropout": 0.3},
    {"optimizer": "adamw", "adapter": "lora"},
]


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=lambda one: "-".join(map(str, one.values())))
@pytest.mark.parametrize("scores", [None, (0.5, 0.9, 0.1, 0.2, 0.3, 0.4)])
def test_a_resumed_run_ends_with_the_bytes_of_an_uninterrupted_one(
    settings: dict[str, Any], scores: tuple[float, ...] | None, cpu: Kernels
) -> None:
    saved: list[Arrays] = []

    def watch(resume: Arrays | None, done: int, into: list[Arrays]) -> Watch:
        validate = Script(cpu, *scores[done:]) if scores else None
        return Watch(validate=validate, checkpoint_every=1, save=into.append, resume=resume)

    whole = Run(cpu, patience=100, **settings)
    trained = whole.trainer.train(watch(None, 0, saved))
    assert len(saved) == 6
    kept = [content(state) for state in saved]
    for done in range(1, 7):
        again, later = Run(cpu, patience=100, **settings), list[Arrays]()
        found = again.trainer.train(watch(saved[done - 1], done, later))
        assert content(again.state()) == content(whole.state())
        assert found == trained
        assert [content(state) for state in later] == kept[done:]  # moments and all
    assert [content(state) for state in saved] == kept  # which are not written again


def test_checkpoints_come_every_so_many_epochs(cpu: Kernels) -> None:
    saved: list[Arrays] = []
    Run(cpu, epochs=5).trainer.train(Watch(checkpoint_every=2, save=saved.append))
    assert [len(state["losses"]) for state in saved] == [2, 4]
    none: list[Arrays] = []
    Run(cpu, epochs=2).trainer.train(Watch(save=none.append))
    assert none == []


def test_a_run_that_had_stopped_early_stays_stopped(cpu: Kernels) -> None:
    saved: list[Arrays] = []
    whole = Run(cpu, patience=2)
    whole.trainer.train(Watch(validate=Script(cpu, 3, 2, 1), checkpoint_every=1, save=saved.append))
    never, again = Script(cpu), Run(cpu, patience=2)
    trained = again.trainer.train(Watch(validate=never, resume=saved[-1]))
    assert content(again.state()) == content(whole.state())
    assert (never.states, trained.best, trained.scores) == ([], 1, [3, 2, 1])


class Drawing(Trainer):
    """Remembers what the dropout of each batch would draw first."""

    def gradients(self, batch: PairBatch, rng: np.random.Generator) -> tuple[float, list[Gradient]]:
        self.drawn = [*getattr(self, "drawn", []), copy.deepcopy(rng).random()]
        return super().gradients(batch, rng)


def test_dropout_draws_anew_for_every_batch_of_every_epoch(cpu: Kernels) -> None:
    drawn = []
    for seed in (0, 0, 1):
        run = Run(cpu, kind=Drawing, dropout=0.5, epochs=3, seed=seed)
        run.trainer.train(Watch())
        assert isinstance(run.trainer, Drawing)
        drawn.append(run.trainer.drawn)
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 2 * len(drawn[0]) == 2 * 3 * 12


class Failing:
    """Squared errors, until a batch after which either the loss or the slopes are no numbers."""

    def __init__(self, after: int, loss: bool) -> None:
        self.left, self.loss = after, loss

    def __call__(self, batch: Batch) -> tuple[float, Doubles]:
        self.left -= 1
        value, slopes = LOSSES["squared"](batch)
        if self.left >= 0:
            return value, slopes
        return (float("nan"), slopes) if self.loss else (value, np.full_like(slopes, np.inf))


@pytest.mark.parametrize("loss", [True, False])
@pytest.mark.parametrize(("after", "epochs"), [(0, 0), (7, 0), (30, 2)])
def test_where_numbers_overflow_the_last_good_epoch_is_left(loss: bool, after: int, epochs: int, cpu: Kernels) -> None:
    """Even when an earlier one was better. An epoch has twelve batches."""
    script, run = Script(cpu, 9, 1, 0), Run(cpu, loss=Failing(after, loss))
    start = content(run.state())
    with pytest.raises(LastGoodError, match=r"in step \d+ \(epoch \d\) at learning rate .*: give a smaller") as caught:
        run.trainer.train(Watch(validate=script))
    assert caught.value.epochs == epochs == len(script.states)
    assert content(run.state()) == (script.states[-1] if epochs else start)
    assert f"(epoch {epochs + 1})" in str(caught.value)
    if loss:
        assert f"the loss is nan in step {after + 1} " in str(caught.value)
    assert isinstance(caught.value, DivergedError)


def test_parameters_that_overflow_in_the_last_batch_are_noticed(cpu: Kernels) -> None:
    run = Run(cpu, loss=Failing(0, False), batch=USERS * ITEMS, epochs=1)
    with pytest.raises(LastGoodError, match=r"P is no longer finite in step 1 \(epoch 1\)"):
        run.trainer.train(Watch())
    assert not any(array.any() for array in run.state().values())


@pytest.mark.parametrize("adapter", ["rows", "lora", "bilinear"])
def test_too_large_a_rate_overflows(adapter: str, cpu: Kernels) -> None:
    run = Run(cpu, adapter=adapter, optimizer="sgd", learning_rate=1e4, epochs=20)
    with pytest.raises(LastGoodError, match="give a smaller --learning-rate, or --clip 1"):
        run.trainer.train(Watch())
    assert all(np.isfinite(array).all() for array in run.state().values())


PLANTED: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.05, "epochs": 60, "schedule": "cosine"}
NONE = np.zeros(0, np.int64)


def found(kernels: Kernels, adapter: str, ratings: Doubles, **settings: Any) -> Run:
    run = Run(kernels, ratings, adapter=adapter, **{**PLANTED, **settings})
    losses = run.trainer.train(Watch()).losses
    assert losses[-1] < 1e-4 < 0.1 < losses[0]
    return run


def planted(*shape: int) -> Doubles:
    return np.random.default_rng(21).standard_normal(shape) / 2


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("adapter", ["rows", "lora"])
def test_rows_find_those_that_have_moved_and_lora_a_change_of_low_rank(adapter: str, side: int, cpu: Kernels) -> None:
    """Rows that might move, but are right, stay where they were."""
    tables, size = [rows.astype(float) for rows in BASE], (USERS, ITEMS)[side]
    if adapter == "rows":
        tables[side][::3] += planted(len(range(0, size, 3)), RANK)
    else:
        tables[side] += 2 * planted(size, 2) @ planted(2, RANK)
    nums = (EVERY[0], NONE) if side == 0 else (NONE, EVERY[1])
    run = found(cpu, adapter, scores_of(*tables), nums=nums, epochs=100)
    for rows, expected in zip(run.rows(), tables, strict=True):
        np.testing.assert_allclose(rows, expected, atol=0.03)
