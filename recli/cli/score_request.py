"""recli score: the tables beside the model, which say who gets lists and what of."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from recli.cli.score_job import Job
from recli.errors import DataError, about

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recli.artifacts import Factors
    from recli.io import History, IdList
    from recli.metrics import Truth
    from recli.score import Audience, Catalogue


@dataclass(frozen=True)
class Request:
    """users: whom the rows are written for; audience: the same as numbers, in the same order; truth: held-out items of
    other users or the same.
    """

    users: IdList
    audience: Audience
    catalogue: Catalogue
    truth: tuple[IdList, Truth] | None

    def part(self, start: int, end: int) -> Request:
        """The users from position start to end."""
        return replace(self, users=self.users.part(start, end), audience=self.audience.part(start, end))

    def folded(self, audience: Audience) -> Request:
        """With rows for users that have a history."""
        return replace(self, audience=audience)


def read_request(job: Job, model: Factors, stack: ExitStack) -> Request:
    """What the flags name; files from a pipe live until the stack closes."""
    import numpy as np

    from recli import io
    from recli.ids import take_rows
    from recli.score import Audience

    truth = users = denied = history = None
    if job.flags["truth"]:
        truth = io.read_truth(stack.enter_context(io.source([job.flags["truth"]])), model, job.reading)
    if job.flags["users"]:
        users = io.read_ids(stack.enter_context(io.source([job.flags["users"]])), model, "user", job.reading)
    since = _read_history(job, model, stack) if job.flags["history"] else None
    users = users or (truth[0] if truth else since.users if since else io.everyone(model))
    if since:
        at = io.positions(users.ids, since.users.ids)
        history = take_rows(since.matrix, at, values=True)
        idle = len(since.users.nums) - len(np.unique(at[at >= 0]))
        _say(job, "idle_history_users", idle, "users of --history are not among those who get lists")
    if job.flags["deny_pairs"]:
        found = stack.enter_context(io.source([job.flags["deny_pairs"]]))
        denied, idle = io.read_denied(found, model, users, job.reading)
        _say(job, "idle_deny_pairs", idle, "pairs of --deny-pairs are of users who get no list, or of unknown items")
    audience = Audience(users.nums, history=history, denied=denied)
    return Request(users, audience, read_catalogue(job, model, stack), truth)


def _read_history(job: Job, model: Factors, stack: ExitStack) -> History:
    """The table of --history, its values as the model's solver takes them."""
    from recli import io
    from recli.score import RowProblem

    with about("stdin" if job.flags["factors"] == "-" else job.flags["factors"]):
        problem = RowProblem(model)
    found = stack.enter_context(io.source([job.flags["history"]]))
    history = io.read_history(found, model, job.reading, learns_from=problem.learns_from)
    with about(found.name):
        matrix = problem.learned(history.matrix, weighted=problem.learns_from == "weights")
    report = history.report
    guessed = ", ".join(f"{role}={report.columns[role]}" for role in report.guessed)
    job.console.note(
        f"history: {report.pairs:,} pairs of {report.users:,} users"
        + (f"; columns {guessed} (guessed; --columns sets them)" if guessed else ""),
        fields={"history_users": report.users, "history_pairs": report.pairs},
    )
    ignored = report.pairs - len(matrix.indices)
    text = f"items of --history are not in the model: their {ignored:,} pairs are ignored"
    _say(job, "unknown_history_items", history.unknown_items, text)
    return history._replace(matrix=matrix)


def read_catalogue(job: Job, model: Factors, stack: ExitStack) -> Catalogue:
    """The items that --allow, --deny and --where leave, and the caps of --max-per.

    Raises DataError where they leave none.
    """
    import numpy as np

    from recli import io
    from recli.score import Cap, Catalogue

    left = np.ones(len(model.item_ids), bool)
    caps: tuple[Cap, ...] = ()
    for flag in ("allow", "deny"):
        if job.flags[flag]:
            found = stack.enter_context(io.source([job.flags[flag]]))
            nums = io.read_ids(found, model, "item", job.reading).nums
            named = np.zeros_like(left)
            named[nums[nums >= 0]] = True
            _say(job, f"unknown_{flag}", int((nums < 0).sum()), f"items of --{flag} are not in the model")
            left = _left(left, named if flag == "allow" else ~named, f"--{flag}", found.name)
    if job.flags["items"]:
        found = stack.enter_context(io.source([job.flags["items"]]))
        where, most = job.flags["where"], job.config.max_per
        table = io.read_items(found, model, job.reading, where, list(most))
        _say(job, "unknown_items", table.unknown, "items of --items are not in the model")
        therefore = ["do not meet --where"] * (where is not None) + ["are not capped"] * bool(most)
        _say(job, "missing_items", table.missing, f"items are not in --items: they {' and '.join(therefore)}")
        caps = tuple(Cap(groups, most[column]) for column, groups in table.groups.items())
        if table.meets is not None:
            left = _left(left, table.meets, f"--where {where!r}", found.name)
    if left.all():
        return Catalogue(None, caps)
    _say(job, "allowed_items", int(left.sum()), f"of {len(left):,} items may be recommended")
    return Catalogue(np.flatnonzero(left).astype(np.int32), caps)


def _say(job: Job, name: str, count: int, text: str) -> None:
    if count:
        job.console.note(f"{count:,} {text}", fields={name: count})


def _left(left: NDArray[np.bool_], more: NDArray[np.bool_], flag: str, file: str) -> NDArray[np.bool_]:
    if not (left & more).any():
        raise DataError(f"{flag} leaves none of {int(left.sum()):,} items to recommend", file=file)
    return left & more
