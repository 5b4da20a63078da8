"""recli finetune: the metric on held-out new pairs, and on what the base was good at, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recli.cli.finetune_data import NewTables
from recli.cli.finetune_job import Job

if TYPE_CHECKING:
    from recli.finetune import Adapter, Task
    from recli.finetune.learner import Learner
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
        if tables.held is not None and self.metric == "logloss":
            negatives = negatives_of(job.config, factors)
            held = tables.held
            held = held._replace(values=targets_of(held.values, "logistic", negatives, factors))
            had = [data.every] if factors.seen is None else [data.every, widen(factors.seen, data.users)]
            self._logloss = labelled(held, negatives, union_rows(had, data.items), data.items, seed)
        elif tables.held is not None:
            self._new = exam_of_new(data, tables.held, factors, self.metric, seed, kernels)
        self._old = None
        if job.config.adapter != "head":
            self._old = exam_of_old(factors, tables.old, data.items, seed, kernels)

    @property
    def judges(self) -> bool:
        return self._new is not None or self._logloss is not None

    def of_learner(self, learner: Learner) -> float:
        """Higher is better."""
        if self._logloss is not None:
            return self._logloss.of_learner(learner, self._kernels)
        assert self._new is not None
        return self._new.of_learner(learner, self._task.data.items, self._kernels)

    def say(self, delta: Adapter) -> dict[str, Any]:
        """What there is to say of the delta, as lines and as numbers."""
        if self._logloss is not None:
            return self._say_head(delta)
        from recli.finetune import tables_of
        from recli.finetune.quality import FORGETTING

        before, after = tables_of(self._task.factors, delta, applied=False), tables_of(self._task.factors, delta)
        numbers: dict[str, Any] = {}
        for what, exam, metric in (("new", self._new, self.metric), ("old", self._old, FORGETTING)):
            if exam is None:
                continue
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
