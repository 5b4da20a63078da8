"""recli finetune: the metric on held-out new pairs, and on what the base was good at, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recli.cli.finetune_data import NewTables
from recli.cli.finetune_job import Job

if TYPE_CHECKING:
    from recli.finetune import Adapter, Task
    from recli.finetune.base import Base
    from recli.finetune.learner import Learner
    from recli.finetune.loop import Trained
    from recli.ids import Csr
    from recli.kernels.spec import Kernels


class Judges:
    """judges: is there anything to validate on?"""

    def __init__(self, job: Job, task: Task, tables: NewTables, kernels: Kernels) -> None:
        from recli.finetune import exam_of_new, exam_of_old, labelled, metric_of, negatives_of, targets_of
        from recli.ids import union_rows, widen

        self._job, self._task, self._kernels = job, task, kernels
        factors, data, seed = task.factors, task.data, job.config.seed
        self.metric = metric_of(job.config, factors)
        self._logloss, self._new = None, None
        self._start: float | None = None  # the validation of the base
        held = tables.held
        if held is not None and self.metric not in ("logloss", "rmse"):
            held = self._rankable(held)
        if held is not None and self.metric == "logloss":
            negatives = negatives_of(job.config, factors)
            held = held._replace(values=targets_of(held.values, "logistic", negatives, factors))
            had = [data.every] if factors.seen is None else [data.every, widen(factors.seen, data.users)]
            self._logloss = labelled(held, negatives, union_rows(had, data.items), data.items, seed)
        elif held is not None:
            self._new = exam_of_new(data, held, factors, self.metric, seed, kernels)
        self._old = None
        if job.config.adapter != "head":
            self._old = exam_of_old(factors, tables.old, data.items, seed, kernels)
            if self._old is None:
                job.console.note("old pairs: not measured, since the model has no seen lists: --old FILE gives some")

    def _rankable(self, held: Csr) -> Csr | None:
        """The held-out pairs that lists can have, if there are any."""
        from recli.finetune import unknown_pairs

        left = unknown_pairs(held, self._task.data, self._task.factors)
        known = len(held.indices) - len(left.indices)
        if not len(left.indices):
            self._job.console.note(
                f"no validation: lists leave out all {known:,} held-out pairs, which NEW, the model or an adapter has "
                "already: give --valid FILE of later ones",
                fields={"known_held_out": known},
            )
            return None
        if known:
            are = "is" if known == 1 else "are"
            self._job.console.note(
                f"{known:,} of the held-out pairs {are} in NEW or the model already and left out",
                fields={"known_held_out": known},
            )
        return left

    @property
    def judges(self) -> bool:
        return self._new is not None or self._logloss is not None

    def of_learner(self, learner: Learner) -> float:
        """Higher is better."""
        if self._logloss is not None:
            return self._logloss.of_learner(learner, self._kernels)
        assert self._new is not None
        return self._new.of_learner(learner, self._task.data.items, self._kernels)

    def look_at(self, base: Base) -> None:
        """Measures the base with rows for new ids, to compare epochs with."""
        import numpy as np

        from recli.finetune.tables import Tables

        if self._new is not None:
            users, items = base.users, base.items
            level = np.float32(base.level)
            tables = Tables(users.all_rows(), items.all_rows(), users.biases, items.biases, level)
            self._start = self._new.of_tables(tables)

    def say_epochs(self, run: Trained, epochs: int) -> None:
        """Which of so many epochs was kept, if it is not the last of all, and whether it was worth it."""
        if not run.best:
            return
        best, done = run.scores[run.best - 1], len(run.losses)
        if run.best < epochs:
            ended = f"; --patience {self._job.config.patience} ended the run before the other {epochs - done}"
            self._job.console.note(
                f"validation: {self.metric} {abs(best):.4f}; epoch {run.best} of {done} is kept"
                + (ended if done < epochs else "")
            )
        if self._start is not None and best < self._start:
            self._job.console.note(
                f"no epoch was better than the model before, with rows of new ids: {self.metric} {abs(self._start):.4f}"
            )

    def say(self, delta: Adapter) -> dict[str, Any]:
        """What there is to say of the delta, as lines and as numbers."""
        if self._logloss is not None:
            return self._say_head(delta)
        from recli.finetune import tables_of

        before, after = tables_of(self._task.factors, delta, applied=False), tables_of(self._task.factors, delta)
        numbers: dict[str, Any] = {}
        for what, exam in (("new", self._new), ("old", self._old)):
            if exam is None:
                continue
            metric = exam.validation.metric
            scores = [abs(exam.of_tables(tables)) for tables in (before, after)]
            numbers |= {f"{what}_{metric}_before": scores[0], f"{what}_{metric}_after": scores[1]}
            change = f" ({scores[1] / scores[0] - 1:+.1%})" if scores[0] else ""
            pairs = "held-out new pairs" if what == "new" else "old pairs"
            self._job.console.note(f"{pairs}: {metric} {scores[0]:.4f} before, {scores[1]:.4f} after{change}")
        return numbers

    def _say_head(self, delta: Adapter) -> dict[str, Any]:
        import numpy as np

        from recli.finetune import head_logits

        assert self._logloss is not None
        labels = self._logloss.labels
        logits = head_logits(self._task.factors, delta, self._logloss.users, self._logloss.items)
        rate = float(np.clip(labels.mean(), 1e-7, 1 - 1e-7))
        constant = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
        loss, error = -self._logloss.of_logits(logits), self._logloss.calibration(logits)
        self._job.console.note(
            f"held-out pairs: logloss {loss:.4f}, {constant:.4f} for the rate {rate:.3f} alone; calibration error "
            f"{error:.4f}"
        )
        return {"new_logloss_before": float(constant), "new_logloss_after": loss, "calibration_error": error}
