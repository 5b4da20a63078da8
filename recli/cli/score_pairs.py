"""recli score: predictions of given pairs."""

from __future__ import annotations

from recli.cli.score_job import Job


def run(job: Job) -> None:
    raise NotImplementedError
