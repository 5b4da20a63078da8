"""A folder of tables and of what commands make of them, made once for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from recli.cli.main import main


def fill(folder: Path, tables: Mapping[str, str], commands: Iterable[str]) -> None:
    """tables: text by file; commands: run in the folder, in order."""
    for name, text in tables.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands:
            assert main([*command.split(), "-q"]) == 0, command


def whole() -> dict[str, bytes]:
    """What the working folder holds."""
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}
