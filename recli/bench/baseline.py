"""Gates on a report: how recli's own rows may differ from those of an older one.

    NAME < -PERCENT%     recall@20 < -1%      fails where recall@20 is more than 1% lower than before
    NAME > +PERCENT%     seconds > +20%       fails where it takes over 20% longer

NAME is a number of the report's rows: seconds, seconds_per_iteration, peak_rss_bytes, artifact_bytes, users_per_second,
rows_per_second, roofline, objective, ratio, memory_ratio, and recall, ndcg or coverage at a length. A row is compared
with that of the same race, solver, rank, device and k. ratio is of the peers' rows: their seconds over recli's in the
same run, which a slower machine does not change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recli.bench.quality import SHOWN
from recli.errors import DataError, GateError, MissingInputError, UsageError

NUMBERS = (
    *("seconds", "seconds_per_iteration", "peak_rss_bytes", "artifact_bytes", "users_per_second", "rows_per_second"),
    *("roofline", "objective", "ratio", "memory_ratio"),
)
OF_PEERS = ("ratio", "memory_ratio")
KEY = ("race", "contestant", "solver", "rank", "device", "k", "size")
LONGEST = 64 << 20  # bytes of a report
_GATE = re.compile(
    r"\s*([a-z_]+(?:@[1-9][0-9]{0,3})?)\s*(?:(<)\s*(-)|(>)\s*(\+))\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*%\s*"
)


@dataclass(frozen=True)
class Gate:
    """Fails where the relative change of a number is beyond `limit` (negative: below). text: as the user wrote it."""

    text: str
    name: str
    limit: float

    def fails(self, new: float, old: float) -> bool:
        change = self.change(new, old)
        return change < self.limit if self.limit < 0 or "<" in self.text else change > self.limit

    @staticmethod
    def change(new: float, old: float) -> float:
        if new == old:
            return 0.0
        return (new - old) / abs(old) if old else float("inf") if new > old else float("-inf")


def parse_gate(text: str, ks: Sequence[int]) -> Gate:
    """Raises UsageError."""
    names = ", ".join([*NUMBERS, *(f"{name}@{k}" for name in SHOWN for k in ks)])
    match = _GATE.fullmatch(text)
    if not match:
        raise UsageError(
            f"--fail-if {text!r}: expected NAME < -PERCENT% or NAME > +PERCENT%, as 'recall@{ks[0]} < -1%' or "
            f"'seconds > +20%', with NAME out of {names}"
        )
    name, sign = match[1], match[3] or match[5]
    if name not in names.split(", "):
        raise UsageError(f"--fail-if {text!r}: unknown name {name}, expected one out of {names}")
    return Gate(text, name, float(sign + match[6]) / 100)


def read_report(path: str) -> dict[str, Any]:
    """A report that bench wrote. Raises MissingInputError, DataError."""
    try:
        if Path(path).stat().st_size > LONGEST:
            raise DataError(f"expected a report of recli bench, found a file of over {LONGEST >> 20} MiB", file=path)
        report = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise MissingInputError("no such file", file=path) from None
    except OSError as error:
        raise MissingInputError(f"cannot be read: {error.strerror}", file=path) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"expected a report of recli bench (JSON), found something else ({error})", file=path
        ) from error
    if not (isinstance(report, dict) and report.get("kind") == "bench" and report.get("version") == 1):
        raise DataError("expected a report of recli bench (kind bench, version 1), found something else", file=path)
    rows, data, machine = report.get("rows"), report.get("data"), report.get("machine")
    if not (
        isinstance(rows, list)
        and all(isinstance(row, dict) and all(_is_plain(row.get(name)) for name in KEY) for row in rows)
        and isinstance(data, dict)
        and isinstance(machine, dict)
    ):
        raise DataError("expected a report of recli bench with rows, data and machine", file=path)
    return report


def check_comparable(
    gates: Sequence[Gate], planned: Sequence[Mapping[str, Any]], old: Mapping[str, Any], path: str
) -> None:
    """Before the long work: are there the same rows on both sides, and the numbers in the old one? planned: the rows to
    be. Raises DataError.
    """
    for gate in gates:
        if not any(_is_number(row.get(gate.name)) for row in _keys(old["rows"], [gate]).values()):
            raise DataError(f"it has no {gate.name} (--fail-if {gate.text!r})", file=path)
    new, before = (_keys(rows, gates) for rows in (planned, old["rows"]))
    if lacking := [key for key in new if key not in before]:
        raise DataError(f"it has no row for {_shown(lacking[0])}: make a baseline by the same command", file=path)
    if more := [key for key in before if key not in new]:
        raise DataError(
            f"it has a row for {_shown(more[0])}, which is not measured now: run the same command", file=path
        )


def differences(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """Why the two may differ for other reasons than recli: other data or another machine, a phrase each."""
    found = []
    for what, names in (("data", tuple(new["data"])), ("machine", ("cpu", "cores", "threads"))):
        for name in names:
            if new[what].get(name) != old[what].get(name):
                found.append(f"{what} {name} {new[what].get(name)}, before {old[what].get(name)}")
    return found


def failures(
    gates: Sequence[Gate], rows: Sequence[Mapping[str, Any]], old_rows: Sequence[Mapping[str, Any]], path: str
) -> list[str]:
    """A phrase for each gate and row that fails. Raises DataError where a number is missing on one side, or nowhere."""
    failed = []
    before = _keys(old_rows, gates)
    for gate in gates:
        compared = 0
        for key, row in _keys(rows, [gate]).items():
            old = before.get(key, {})
            if row["status"] != "ok":
                if row["contestant"] == "recli":
                    failed.append(f"{gate.text.strip()}: {_shown(key)} {row['status']}")
                continue
            value, was = row.get(gate.name), old.get(gate.name)
            if value is None and was is None:
                continue
            if value is None or was is None or not (_is_number(value) and _is_number(was)):
                side = "this run" if value is None else path
                raise DataError(f"--fail-if {gate.text!r}: {side} has no {gate.name} for {_shown(key)}", file=path)
            compared += 1
            if gate.fails(float(value), float(was)):
                change = gate.change(float(value), float(was))
                failed.append(f"{gate.text.strip()}: {_shown(key)} {was:.6g} before, {value:.6g} now ({change:+.1%})")
        if not compared and not failed:
            raise DataError(f"--fail-if {gate.text!r}: no row has {gate.name}", file=path)
    return failed


def judge(failed: Sequence[str], path: str) -> None:
    """Raises GateError with all that fails, as `failures` found it."""
    if failed:
        raise GateError(f"worse than the baseline: {'; '.join(failed)}", file=path)


def _keys(rows: Sequence[Mapping[str, Any]], gates: Sequence[Gate]) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    """The rows that the gates are about: recli's, and those of peers for ratios."""
    peers = any(gate.name in OF_PEERS for gate in gates)
    own = all(gate.name in OF_PEERS for gate in gates)
    return {
        tuple(row.get(name) for name in KEY): row
        for row in rows
        if (peers and row.get("contestant") != "recli" and row.get("status") == "ok")
        or (not own and row.get("contestant") == "recli")
    }


def _shown(key: tuple[Any, ...]) -> str:
    return " ".join(
        str(value) if name in ("race", "contestant", "solver", "device") else f"{name} {value}"
        for name, value in zip(KEY, key, strict=True)
        if value is not None
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)
