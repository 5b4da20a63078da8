"""Settings files: defaults < user file < ./recli.toml < RECLI_* variables < flags.

    threads = 2            # for every command that has the flag
    [factorize]            # for one
    rank = 128

The user file is recli/recli.toml below $XDG_CONFIG_HOME (~/.config). Keys are flags without dashes in front; an unknown
one is an error.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from recli.errors import UsageError

NAME = "recli.toml"


def default_map(commands: Callable[[], Iterable[tuple[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Command -> flag -> value from the settings files, later files over earlier ones, sections over what is above
    them.

    commands: () -> (name, typer command) pairs; not called where there is no settings file. Raises UsageError.
    """
    user = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "recli" / NAME
    files = [path for path in (user, Path(NAME)) if path.is_file()]
    if not files:
        return {}
    flags = {name: {parameter.name for parameter in command.params} for name, command in commands()}
    merged: dict[str, dict[str, Any]] = {name: {} for name in flags}
    for path in files:
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"not a TOML file: {error}", file=path) from error
        sections = {key: value for key, value in table.items() if isinstance(value, dict)}
        shared = {key: value for key, value in table.items() if key not in sections}
        _take(merged, flags, list(flags), shared, path)
        for command, section in sections.items():
            if command not in flags:
                raise UsageError(f"unknown section [{command}]; the commands are {', '.join(flags)}", file=path)
            _take(merged, flags, [command], section, path)
    return merged


def _take(
    merged: dict[str, dict[str, Any]],
    flags: dict[str, set[str]],
    commands: list[str],
    table: dict[str, Any],
    path: Path,
) -> None:
    for key, value in table.items():
        name = key.replace("-", "_")
        having = [command for command in commands if name in flags[command]]
        if not having:
            raise UsageError(f"unknown setting {key!r} for {', '.join(commands)}", file=path)
        for command in having:
            merged[command][name] = value
