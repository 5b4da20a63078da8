"""A checkpoint is taken up by the run that wrote it, and by no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recli.io.checkpoints import ENDING, checkpoints, remove_checkpoint

KEY: dict[str, Any] = {"settings": {"rank": 4, "reg": None}, "inputs": ["abc"]}
STATE = {"P": np.arange(6, dtype=np.float32).reshape(2, 3), "objectives": np.array([1.5, 1.25])}


def saved(state: dict[str, Any] = STATE) -> Path:
    with checkpoints("model.npz", KEY) as kept:
        kept.save(state)
    return Path("model.npz" + ENDING)


def test_a_state_comes_back_as_it_went_for_the_same_key() -> None:
    saved()
    with checkpoints("model.npz", KEY) as kept:
        state, problem = kept.load()
    assert problem is None
    assert state is not None
    for name, array in STATE.items():
        np.testing.assert_array_equal(state[name], array)
        assert state[name].dtype == array.dtype


def test_without_a_file_there_is_nothing_to_say() -> None:
    with checkpoints("model.npz", KEY) as kept:
        assert kept.load() == (None, None)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": {"rank": 5, "reg": None}}, "settings"),
        ({"inputs": ["abd"]}, "inputs"),
        ({"valid": "10%"}, "valid"),
    ],
)
def test_that_of_another_run_is_ignored_and_what_differs_is_named(change: dict[str, Any], named: str) -> None:
    saved()
    with checkpoints("model.npz", {**KEY, **change}) as kept:
        assert kept.load() == (None, f"model.npz{ENDING}: of another run ({named} differ)")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more", b"x" * 1000])
def test_a_damaged_one_is_ignored_and_replaced(damage: bytes) -> None:
    path = saved()
    path.write_bytes(damage)
    with checkpoints("model.npz", KEY) as kept:
        state, problem = kept.load()
        assert state is None
        assert str(problem).startswith(f"model.npz{ENDING}: ")
        kept.save(STATE)
        assert kept.load()[1] is None


def test_a_later_state_replaces_the_file_that_is_mapped() -> None:
    saved()
    with checkpoints("model.npz", KEY) as kept:
        state, _ = kept.load()
        kept.save({"objectives": np.zeros(3)})
        assert state is not None
        np.testing.assert_array_equal(state["P"], STATE["P"])


def test_it_goes_when_the_run_is_done() -> None:
    path = saved()
    remove_checkpoint("model.npz")
    assert not path.exists()
    remove_checkpoint("model.npz")
