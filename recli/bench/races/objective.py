"""Seconds to the objective that implicit has after its 15 iterations, from the same start."""

from __future__ import annotations

from typing import Any

import numpy as np

from recli.bench.bench import Bench, Heading
from recli.bench.contest import Entry, Heat
from recli.bench.objective import objective_value
from recli.bench.problem import load

ALPHA, REG = 10.0, 5.0  # confidence 1 + 10, implicit's own penalty
SAME = 1e-6  # relative: implicit's threads add in any order, so its last objective differs by so much from run to run


def objective(bench: Bench, heading: Heading) -> list[dict[str, Any]]:
    """First, in processes that are not timed, implicit's objective after each iteration, and how many of recli's reach
    its last. Then both do as many, on the clock, and what they end at is checked.
    """
    settings = {"rank": heading.about["rank"], "alpha": ALPHA, "reg": REG}
    names = [entry.contestant for entry in heading.entries if entry.is_ok]
    traces: dict[str, list[float]] = {}
    scouts = [Entry(name, {}) for name in names]
    with bench.heat("objective", sorted(scouts, key=lambda scout: scout.contestant == "recli"), settings) as heat:
        target = None
        for scout in heat.entries:
            found = heat.run(scout, **({"target": target} if scout.contestant == "recli" else {"trace": True}))
            if found is None or (scout.contestant == "recli" and target is None):
                continue
            traces[scout.contestant] = found["objectives"]
            target = target if scout.contestant == "recli" else found["objectives"][-1]
        statuses = {scout.contestant: scout.status for scout in heat.entries}
    own = traces.get("recli", [])
    for entry in heading.entries:
        if entry.is_ok and statuses[entry.contestant] != "ok":
            entry.status = statuses[entry.contestant]
        elif entry.is_ok and entry.contestant == "recli" and (target is None or not own or own[-1] > target):
            entry.status = (
                f"failed: not at the peer's objective after {len(own)} iterations"
                if own
                else ("failed: there is no peer's objective to reach")
            )
    with bench.heat("objective", heading.entries, settings) as heat:
        heat.measure(
            bench.config.repeats, lambda entry: {"iterations": len(own)} if entry.contestant == "recli" else {}
        )
        return [_reached(bench, heat, entry, traces.get(entry.contestant, []), target) for entry in heat.entries]


def _reached(bench: Bench, heat: Heat, entry: Entry, trace: list[float], target: float | None) -> dict[str, Any]:
    if entry.is_ok:
        assert target is not None
        matrix = bench.data.train.matrix
        last = load(heat.out(entry), "P", "Q")
        value = objective_value(matrix._replace(values=np.ones_like(matrix.values)), last["P"], last["Q"], ALPHA, REG)
        if value > target * (1 + SAME):
            entry.status = f"failed: {value:.8g} after {len(trace)} iterations, not the {target:.8g} of the first run"
    row = entry.row()
    if entry.is_ok:
        usual = min(entry.runs, key=lambda run: abs(run["seconds"] - row["seconds"]))
        row["objective"] = value
        row |= bench.conditions.iterations(entry, *bench.data.shape, bench.data.pairs)
        row["convergence"] = [list(point) for point in zip(usual["done"], trace, strict=True)]
    return row
