"""recli score --expect: new lists are measured where they are written, before they take the place of the old ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from recli.cli import options as o
from recli.cli.score_job import Job
from recli.cli.score_quality import HeldOut
from recli.cli.score_request import Request
from recli.errors import GateError, MissingInputError, UsageError

if TYPE_CHECKING:
    from recli.artifacts import Factors
    from recli.io import Published, Source


class Gates:
    """What --expect asks for; `result`: what was measured, once `judge` has."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        """Finds the old lists, if a gate needs them. Raises UsageError, or MissingInputError where there are none."""
        from recli.score.gates import parse_gate

        if "RECLI_EXPECT" in os.environ:  # to be ignored like any unknown variable would leave the job unguarded
            raise UsageError("RECLI_EXPECT is no setting: give --expect, or expect = [...] in recli.toml")
        self._job, flags = job, job.flags
        self._gates = [
            parse_gate(text, job.config.k, with_truth=bool(flags["truth"])) for text in flags["expect"] or ()
        ]
        self.result: dict[str, Any] = {}
        self._source: Source | None = None
        comparing = [gate for gate in self._gates if gate.needs_previous]
        if comparing:
            self._source = _previous(job, comparing[0].text, stack)
        elif flags["previous"]:
            raise UsageError(f"--previous {flags['previous']}: no --expect compares with it")
        if job.path is None and (tables := [gate for gate in self._gates if not gate.is_metric]):
            raise UsageError(f"--expect {tables[0].text!r}: no lists are written: give -o FILE too")

    def prepare(self, request: Request, model: Factors, schema: dict[str, Any]) -> None:
        """Looks into the old lists, before the work. Raises DataError where they are of another shape."""
        from recli import io

        self._request, self._model, self._schema = request, model, schema
        self._old = io.Published(self._source, schema) if self._source else None

    def judge(self, written: Source | None, metrics: Mapping[str, float]) -> None:
        """written: the new lists, if there is a file. Raises GateError with all that does not hold."""
        if not self._gates:
            return
        from recli import io
        from recli.score.gates import failures

        new = io.Published(written, self._schema) if written else None
        measured, before = self._measure(new), {**self._measure(self._old), **self._old_metrics()}
        if new and self._old and any(gate.name == "churn" for gate in self._gates):
            measured["churn"] = new.churn(self._old)
        failed = failures(self._gates, {**measured, **metrics}, before)
        self.result = {"measured": measured, "previous": before, "failed_gates": failed}
        if new:
            self.result["published"] = not failed
        self._say({**measured, **metrics}, before)
        if failed:
            what = f"{self._consequence()}: {'; '.join(failed)}"
            raise GateError(what, file=o.shown(self._job.path or self._job.flags["truth"]))

    def _measure(self, table: Published | None) -> dict[str, float]:
        return table.measure(self._job.config.k, len(self._model.item_ids)) if table else {}

    def _old_metrics(self) -> dict[str, float]:
        """Of the old lists of the same users, on the same truth."""
        if not (self._old and any(gate.is_metric and gate.relative for gate in self._gates)):
            return {}
        from recli import io

        k = self._job.config.k
        held_out = HeldOut(self._request, self._model, k)
        held_out.add(0, self._old.lists(self._request.users.ids, io.to_series(self._model.item_ids, "item"), k))
        return held_out.metrics()

    def _say(self, values: Mapping[str, float], before: Mapping[str, float]) -> None:
        from recli.score.gates import plain

        parts = (
            f"{name} {plain(value)}" + (f" (previously {plain(before[name])})" if name in before else "")
            for name, value in values.items()
        )
        self._job.console.note(f"measured: {', '.join(parts)}", detail=True)

    def _consequence(self) -> str:
        path = self._job.path
        if path is None:
            return "the quality is not as expected"
        kept = path != "-" and os.path.exists(path)
        return "not published, the old file stays" if kept else "not published, nothing is written"


def _previous(job: Job, gate: str, stack: ExitStack) -> Source:
    from recli import io

    given, path = job.flags["previous"], job.flags["previous"] or job.path
    if path is None or (not given and (path == "-" or io.is_pipe(path))):
        raise UsageError(f"--expect {gate!r}: there is no old output to compare with: give --previous FILE")
    if not given and not os.path.exists(path):
        raise MissingInputError(
            f"--expect {gate!r} compares with the old output, and there is none: leave it out this first time, or give "
            "--previous FILE",
            file=path,
        )
    return stack.enter_context(io.source([path]))
