"""recli score: each mode refuses the flags of the others, and none ignores one that was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from recli.cli.score import app
from recli.cli.score_job import COMMON, TAKES
from tests.conftest import Outcome

OPTIONS: dict[str, Any] = {option.name: option for option in typer.main.get_command(app).params}
VALUES = {"k": "3", "explain": "2", "parts": "2", "min_score": "0.5"}


def test_modes_name_flags_that_there_are() -> None:
    named = {*COMMON}.union(*TAKES.values())
    assert named <= OPTIONS.keys()


@pytest.mark.parametrize("mode", TAKES)
def test_a_mode_refuses_every_flag_that_it_does_not_take(mode: str, model: Path, recli: Callable[..., Outcome]) -> None:
    Path("ids").write_text("user,item\nu0,i0\n")
    mode_flag = OPTIONS[mode].opts[0]
    for name, option in OPTIONS.items():
        if name in (*COMMON, *TAKES[mode], "help"):
            continue
        flag = [option.opts[-1]] if option.is_flag else [option.opts[-1], VALUES.get(name, "ids")]
        outcome = recli("score", model, mode_flag, "ids", *flag)
        assert outcome.code == 2
        if name in TAKES:
            message = " exclude each other\n"
        else:
            message = f"recli: error: {mode_flag} does not go with {option.opts[-1]}: it takes "
        assert message in outcome.err
    assert [path.name for path in Path().iterdir() if path.name.startswith("model.")] == ["model.npz"]


@pytest.mark.parametrize("mode", TAKES)
def test_settings_for_lists_do_not_disturb_a_mode(
    mode: str, model: Path, recli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("recli.toml").write_text("[score]\nkeep-seen = true\nmax-per = 'nonsense'\nparts = 3\nk = 2\n")
    monkeypatch.setenv("RECLI_EXPLAIN", "3")
    monkeypatch.setenv("RECLI_USERS", "nowhere")
    Path("ids").write_text("user,item\nu0,i0\n")
    assert recli("score", model, OPTIONS[mode].opts[0], "ids", "-q", "-o", "out.csv") == (0, "", "")
