"""Shared fixtures: a clean environment, the sample data, and the program in-process or as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

from recli.cli.main import main

settings.register_profile("recli", deadline=None)  # a kernel's first call compiles it
settings.load_profile("recli")

ROOT = Path(__file__).parent.parent


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the developer's: an empty working folder, no user file, no RECLI_* variables."""
    for name in [name for name in os.environ if name.startswith("RECLI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture
def sample() -> Path:
    return ROOT / "sample_data"


@pytest.fixture
def recli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """recli("score", "m.npz", ...) in this process: exit code, stdout and stderr."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """process("score", ..., input=b"...", env={...}): the program as a process of its own."""

    def run(*arguments: object, **more: object) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "recli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, timeout=120, **more)  # type: ignore[call-overload,no-any-return]

    return run
