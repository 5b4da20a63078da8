"""recli score --adapter with a head: what it does not go with, and how it scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recli.cli.adapted import Adapted
from recli.cli.score_job import Job
from recli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recli.artifacts import Factors
    from recli.finetune import Adapter
    from recli.kernels.spec import Floats

REFUSED = {
    "max_per": "caps are for the order of a model",
    "explain": "its scores are no sums over past items",
    "history": "it knows the rows of its own users alone",
}


@dataclass(frozen=True)
class HeadScores:
    """See score.rescored.Head: probabilities."""

    factors: Factors
    delta: Adapter

    def scores(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> Floats:
        from recli.finetune import head_probabilities

        return head_probabilities(self.factors, self.delta, users, items)


def head_of(job: Job, adapted: Adapted) -> HeadScores | None:
    """The head among the adapters, if there is one."""
    if adapted.head is None:
        return None
    for name, why in REFUSED.items():
        if job.flags.get(name):
            raise UsageError(f"--{name.replace('_', '-')} does not go with a head: {why}")
    return HeadScores(adapted.factors, adapted.head)
