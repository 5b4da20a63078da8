"""The training loop of all adapters: batches, loss, gradients, steps; validation, stopping, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.checks import Arrays
from recli.config import FinetuneConfig
from recli.errors import DivergedError
from recli.finetune.base import Base, BaseRows
from recli.finetune.batches import Batches, Distinct, PairBatch
from recli.finetune.data import Nums
from recli.finetune.head import Head
from recli.finetune.learner import Learner
from recli.finetune.losses import Batch, Loss
from recli.finetune.optimizer import Gradient, Optimizer
from recli.kernels.spec import Kernels

BEST = "best_"
EPOCHS = 5


@dataclass(frozen=True, kw_only=True)
class Progress:
    """After an epoch. loss: the mean over its pairs; score: of validation, or None."""

    done: int
    total: int
    loss: float
    score: float | None


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What happens around epochs. validate: the quality of a learner, higher is better. save, resume: checkpoints."""

    on_progress: Callable[[Progress], None] = lambda progress: None
    validate: Callable[[Learner], float] | None = None
    checkpoint_every: int = 0
    save: Callable[[Arrays], None] = lambda state: None
    resume: Arrays | None = None


@dataclass
class Trained:
    """losses, scores: one an epoch; best: the epoch that was kept, from 1 (0: there was no validation)."""

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best: int = 0


class LastGoodError(DivergedError):
    """The learner has the state of the last epoch that went well. epochs: which, 0 for none; delta: made of it."""

    def __init__(self, what: str, epochs: int) -> None:
        super().__init__(what)
        self.epochs = epochs
        self.delta: Any = None


class Trainer:
    def __init__(
        self, base: Base, learner: Learner, batches: Batches, loss: Loss, config: FinetuneConfig, kernels: Kernels
    ) -> None:
        self._learner, self._batches, self._loss = learner, batches, loss
        self._config, self._kernels = config, kernels
        self._distinct = Distinct(len(base.users)), Distinct(len(base.items))
        self._base = BaseRows(base.users, kernels), BaseRows(base.items, kernels)
        self._rank, self.epochs = base.rank, config.epochs or EPOCHS
        self._optimizer = Optimizer(config, self.epochs * len(batches), kernels)
        self._optimizer.prepare(list(learner.parameters.values()))

    def train(self, watch: Watch) -> Trained:
        """Raises LastGoodError (70)."""
        trained, learner = Trained(), self._learner
        best: Arrays | None = None
        if watch.resume is not None:
            best = self._resume(watch.resume, trained)
        good = learner.state(self._kernels)
        while len(trained.losses) < self.epochs and not self._enough(trained.scores):
            epoch = len(trained.losses)
            try:
                loss = self._epoch(epoch)
                state = self._finite(epoch)
            except DivergedError as error:
                learner.restore(good, self._kernels)
                raise LastGoodError(str(error), epoch) from error
            good = state
            trained.losses.append(loss)
            if watch.validate:
                score = watch.validate(learner)
                if not trained.scores or score > max(trained.scores):
                    best = state
                trained.scores.append(score)
            last = trained.scores[-1] if watch.validate else None
            watch.on_progress(Progress(done=epoch + 1, total=self.epochs, loss=trained.losses[-1], score=last))
            if watch.checkpoint_every and (epoch + 1) % watch.checkpoint_every == 0:
                watch.save(self._state(trained, best))
        if best is not None:
            learner.restore(best, self._kernels)
            trained.best = int(np.argmax(trained.scores)) + 1
        return trained

    def _enough(self, scores: list[float]) -> bool:
        return bool(scores) and len(scores) - 1 - int(np.argmax(scores)) >= self._config.patience

    def _epoch(self, number: int) -> float:
        rng = np.random.default_rng([self._config.seed, number, 1])  # of dropout
        total = pairs = 0.0
        for batch in self._batches.epoch(number):
            rate, step = self._optimizer.rate, self._optimizer.done + 1
            value, gradients = self.gradients(batch, rng)
            if not np.isfinite(value):
                raise DivergedError(
                    f"the loss is {value} in step {step} (epoch {number + 1}) at learning rate {rate:.3g}: give a "
                    "smaller --learning-rate, or --clip 1"
                )
            self.step(gradients)
            total, pairs = total + value * len(batch.users), pairs + len(batch.users)
        return total / max(1.0, pairs)

    def step(self, gradients: Sequence[Gradient]) -> None:
        self._optimizer.step(gradients)

    def _finite(self, epoch: int) -> Arrays:
        """The learner's state after an epoch."""
        state = self._learner.state(self._kernels)
        for name, table in state.items():
            if not np.isfinite(table).all():
                raise DivergedError(
                    f"{name} is no longer finite in step {self._optimizer.done} (epoch {epoch + 1}) at learning "
                    f"rate {self._optimizer.rate:.3g}: give a smaller --learning-rate, or --clip 1"
                )
        return state

    @np.errstate(over="ignore", invalid="ignore")  # what overflows shows in the loss
    def gradients(self, batch: PairBatch, rng: np.random.Generator) -> tuple[float, list[Gradient]]:
        """The loss of a batch, and the gradients of all parameters."""
        learner, kernels = self._learner, self._kernels
        width = batch.items.shape[1]
        users, user_of = self._distinct[0](batch.users)
        items, item_at = self._distinct[1](batch.items.ravel())
        user_at = np.repeat(user_of, width)
        X, Y = learner.users.take(users), learner.items.take(items)
        b_u, b_v, b = learner.biases.take(users, items)
        mask = self._mask(rng)
        Z = X if mask is None else kernels.combine([X], mask)
        if isinstance(learner.scorer, Head):
            scores = learner.scorer.forward(Z, Y, user_at, item_at, b_u[user_at] + b_v[item_at] + b)
        else:
            scores = kernels.pair_dots(Z, Y, user_at, item_at) + b_u[user_at] + b_v[item_at] + np.float32(b)
        shape = batch.items.shape
        value, slopes = self._loss(
            Batch(
                scores.reshape(shape).astype(np.float64),
                batch.targets.astype(np.float64),
                batch.kept,
                self._batches.log_odds[batch.items],
            )
        )
        slope = slopes.astype(np.float32).ravel()
        if isinstance(learner.scorer, Head):
            return value, learner.scorer.gradients(slope)
        gains = kernels.pair_gradients(Z, Y, user_at, item_at, slope)
        if mask is not None:
            gains = kernels.combine([gains[0]], mask), gains[1]
        if self._config.stay:
            value += self._stay((users, items), (X, Y), gains)
        found = [*learner.users.gradients(users, gains[0]), *learner.items.gradients(items, gains[1])]
        of_users = np.bincount(user_at, slope, len(users)).astype(np.float32)
        of_items = np.bincount(item_at, slope, len(items)).astype(np.float32)
        return value, found + learner.biases.gradients(users, items, (of_users, of_items, float(slope.sum())))

    def _mask(self, rng: np.random.Generator) -> NDArray[np.float64] | None:
        """Whole factors dropped from a batch, the others scaled up (Srivastava et al. 2014, "Dropout")."""
        rate = self._config.dropout
        if not rate:
            return None
        kept = rng.random(self._rank) >= rate
        return np.asarray(np.diag(kept / (1 - rate)), np.float64)

    def _stay(self, nums: Nums, rows: tuple[Any, Any], gains: tuple[Any, Any]) -> float:
        """stay / 2 times the mean squared distance of the batch's rows from the base's, of users and of items; adds its
        gradient to theirs (IN/OUT).
        """
        total = 0.0
        for base, side, moved, gain in zip(self._base, nums, rows, gains, strict=True):
            every = np.arange(len(side))
            away = self._kernels.take(moved, every)
            self._kernels.add_rows(away, base.take(side), every, -1.0)
            weight = (self._config.stay or 0) / len(side)
            self._kernels.add_rows(gain, away, every, weight)
            total += weight / 2 * float(np.square(self._kernels.host(away), dtype=np.float64).sum())
        return total

    def _state(self, trained: Trained, best: Arrays | None) -> Arrays:
        """All that later epochs depend on, bit for bit."""
        state = {**self._learner.state(self._kernels)}
        for name, parameter in self._learner.parameters.items():
            state |= {f"moment{n}_{name}": self._kernels.host(m) for n, m in enumerate(parameter.moments)}
        state |= {"losses": np.array(trained.losses), "scores": np.array(trained.scores)}
        state["steps"] = np.array(self._optimizer.done)
        return state | {BEST + name: array for name, array in (best or {}).items()}

    def _resume(self, state: Arrays, trained: Trained) -> Arrays | None:
        self._learner.restore(state, self._kernels)
        for name, parameter in self._learner.parameters.items():
            parameter.moments = [self._kernels.table(state[f"moment{n}_{name}"]) for n in range(len(parameter.moments))]
        trained.losses, trained.scores = state["losses"].tolist(), state["scores"].tolist()
        self._optimizer.done = int(state["steps"])
        best = {name: state[BEST + name] for name in self._learner.parameters if BEST + name in state}
        return best or None
