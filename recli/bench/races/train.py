"""Each solver at each rank, by its defaults: seconds, memory, bytes, and the quality on the test part."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from recli import io
from recli.artifacts import Factors
from recli.bench.bench import Bench, Heading
from recli.bench.contest import Entry, Heat
from recli.bench.problem import load
from recli.errors import RecliError


def train(bench: Bench, heading: Heading) -> list[dict[str, Any]]:
    """The run that warms up also leaves its model, whose quality is that of the timed ones: same seed, same model."""
    solver, rank, data = heading.about["solver"], heading.about["rank"], bench.data
    settings = {
        "solver": solver,
        "rank": rank,
        "config": dataclasses.asdict(bench.config.training(solver, rank or 1)),
        "fold_in": data.fold_in is not None,
    }
    rows = []
    with bench.heat("train", heading.entries, settings) as heat:
        models = [_model(bench, heat, entry) for entry in heat.entries]
        heat.rounds(bench.config.repeats)
        for entry, model in zip(heat.entries, models, strict=True):
            row = entry.row()
            if entry.is_ok and model is not None:
                row["artifact_bytes"] = sum(path.stat().st_size for path in heat.out(entry).iterdir())
                row |= bench.conditions.iterations(entry, *data.shape, data.pairs)
                bench.judge(row, model)
            rows.append(row)
    return rows


def _model(bench: Bench, heat: Heat, entry: Entry) -> Factors | None:
    """What the warm-up run learned; None where it failed, as the entry's status says."""
    if heat.run(entry, save=True) is None:
        return None
    out, train = heat.out(entry), bench.data.train
    try:
        if entry.contestant == "recli":
            with io.source([str(out / "model.npz")]) as found:
                model = io.read_artifact(found, Factors)
            if entry.about["solver"] == "ials":
                bench.keep(entry.about["rank"], model)
            return model
        users, items = bench.data.shape
        arrays = {"b_u": np.zeros(users), "b_v": np.zeros(items), "b": np.array(0), **load(out)}
        known = np.diff(train.matrix.indptr) > 0
        if bench.data.fold_in is not None:
            known |= np.diff(bench.data.fold_in.indptr) > 0
        numbers = {name: np.asarray(array, np.float32, order="C") for name, array in arrays.items()}
        numbers["P"][~known] = 0  # where nothing is known of a user, the most popular items are for all contestants
        return Factors(
            P=numbers["P"],
            Q=numbers["Q"],
            b_u=numbers["b_u"],
            b_v=numbers["b_v"],
            b=numbers["b"],
            user_ids=train.user_ids,
            item_ids=train.item_ids,
            item_counts=np.bincount(train.matrix.indices, minlength=items).astype(np.int64),
            seen_indptr=train.matrix.indptr,
            seen_indices=train.matrix.indices,
        )
    except RecliError as error:
        entry.status = f"failed: its model: {error}"
        return None
