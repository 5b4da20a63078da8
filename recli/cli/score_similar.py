"""recli score: nearest items or users by cosine."""

from __future__ import annotations

from recli.cli.score_job import Job


def run(job: Job) -> None:
    raise NotImplementedError
