"""recli score: the tables beside the model, which say who gets lists and what of."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recli.cli.score_job import Job

if TYPE_CHECKING:
    from recli.artifacts import Factors
    from recli.io import Users
    from recli.metrics import Truth
    from recli.score import Audience, Catalogue


@dataclass(frozen=True)
class Request:
    """users: whom the rows are written for; audience: the same as numbers, in the same order; truth: held-out items of
    other users or the same.
    """

    users: Users
    audience: Audience
    catalogue: Catalogue
    truth: tuple[Users, Truth] | None


def read_request(job: Job, model: Factors, stack: ExitStack) -> Request:
    """What the flags name; files from a pipe live until the stack closes."""
    from recli import io
    from recli.score import Audience, Catalogue

    def source(flag: str) -> io.Source | None:
        return stack.enter_context(io.source([job.flags[flag]])) if job.flags[flag] else None

    truth_file, users_file = source("truth"), source("users")
    truth = io.read_truth(truth_file, model, job.reading) if truth_file else None
    everyone = truth[0] if truth else io.everyone(model)
    users = io.read_users(users_file, model, job.reading) if users_file else everyone
    return Request(users, Audience(users.nums), Catalogue(), truth)
