"""recli score --truth: lists compared with what their users went on to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from recli.cli.console import print_table
from recli.cli.score_job import Job
from recli.cli.score_request import Request

if TYPE_CHECKING:
    from recli.artifacts import Factors
    from recli.kernels.spec import Nums

BLOCK = 1 << 14


class HeldOut:
    """The quality of the lists of a request with a truth; they come in pieces, in any order."""

    def __init__(self, request: Request, model: Factors, k: int) -> None:
        from recli import io
        from recli.metrics import RankingQuality

        assert request.truth
        users, self._truth = request.truth
        self._at = io.positions(request.users.ids, users.ids)
        self._quality = RankingQuality(k, model.item_counts, len(model.user_ids))

    def add(self, start: int, items: Nums) -> None:
        """The lists int32[n, k] of the users from position `start` on."""
        for first in range(0, len(items), BLOCK):
            lists = items[first : first + BLOCK]
            at = self._at[start + first : start + first + len(lists)]
            self._quality.add(lists, self._truth.rows(at))

    @property
    def users(self) -> int:
        return self._quality.users

    def metrics(self) -> dict[str, float]:
        return self._quality.result()

    def show(self, job: Job) -> None:
        """The table, beside what goes to stdout already."""
        rows = {name: f"{value:.4f}" for name, value in self.metrics().items()}
        of = f" in part {job.shard} of the users" if job.shard else ""
        print_table(
            f"{self.users:,} users with held-out items{of}", rows, sys.stderr if job.path == "-" else sys.stdout
        )
