"""A model and new interactions to a delta: a few percent of the parameters. One family of adapters, one file."""

from recli.finetune.apply import (
    apply,
    chain_problem,
    check_mergeable,
    head_logits,
    head_probabilities,
    tables_of,
    with_attributes,
)
from recli.finetune.artifact import Adapter
from recli.finetune.choices import check_rank, fit_of, learned_values, loss_of, negatives_of, targets_of
from recli.finetune.data import NewData
from recli.finetune.features import Attributes
from recli.finetune.loop import LastGoodError, Progress, Watch
from recli.finetune.quality import Exam, Logloss, exam_of_new, exam_of_old, labelled, metric_of, unknown_pairs
from recli.finetune.train import Outcome, Task, finetune, planned

__all__ = [
    "Adapter",
    "Attributes",
    "Exam",
    "LastGoodError",
    "Logloss",
    "NewData",
    "Outcome",
    "Progress",
    "Task",
    "Watch",
    "apply",
    "chain_problem",
    "check_mergeable",
    "check_rank",
    "exam_of_new",
    "exam_of_old",
    "finetune",
    "fit_of",
    "head_logits",
    "head_probabilities",
    "labelled",
    "learned_values",
    "loss_of",
    "metric_of",
    "negatives_of",
    "planned",
    "tables_of",
    "targets_of",
    "unknown_pairs",
    "with_attributes",
]
