"""Settings files: defaults < user file < ./recli.toml < RECLI_* variables < flags.

    threads = 2            # for every command that has the flag
    [factorize]            # for one
    rank = 128
    no-seen = true
    [score]
    expect = ["users >= 0.9 * previous", "churn < 0.6"]

The user file is recli/recli.toml below $XDG_CONFIG_HOME (~/.config). Keys are flags without dashes in front; an unknown
one is an error, as is a value of another type than the flag's.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from recli.cli.options import Listed
from recli.errors import UsageError

NAME = "recli.toml"
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    Listed: "text in quotes, with commas, or a whole number",
    list: "a list of texts in quotes",  # of a flag that can be given again
}


class Flag(NamedTuple):
    parameter: str  # the function's: --json is json_
    kind: type


class Setting(NamedTuple):
    command: str
    parameter: str
    value: Any
    file: Path


def read_settings(commands: Callable[[], Iterable[tuple[str, Any]]]) -> Iterator[Setting]:
    """What the settings files say, in the order in which later ones win: the user's before the folder's, and sections
    after what is above them.

    commands: () -> (name, typer command) pairs; not called where there is no settings file. Raises UsageError.
    """
    user = os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
    files = [path for path in (Path(user, "recli", NAME), Path(NAME)) if os.path.isfile(path)]
    flags = {name: _flags(command) for name, command in commands()} if files else {}
    for path in files:
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"not a TOML file: {error}", file=path) from error
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", file=path) from error
        sections = {key: value for key, value in table.items() if isinstance(value, dict)}
        yield from _take({key: value for key, value in table.items() if key not in sections}, flags, list(flags), path)
        for command, section in sections.items():
            if command not in flags:
                raise UsageError(f"unknown section [{command}]; the commands are {', '.join(flags)}", file=path)
            yield from _take(section, flags, [command], path)


def _flags(command: Any) -> dict[str, Flag]:
    """Long flag without dashes -> parameter, and the type of its values, out of KINDS."""
    hints = get_type_hints(command.callback)
    found = {}
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name in hints:  # not --help
            kinds = get_args(hints[parameter.name]) or (hints[parameter.name],)
            found[max(parameter.opts, key=len).lstrip("-")] = Flag(parameter.name, get_origin(kinds[0]) or kinds[0])
    return found


def _take(
    table: Mapping[str, Any], flags: Mapping[str, Mapping[str, Flag]], commands: Sequence[str], path: Path
) -> Iterator[Setting]:
    for key, value in table.items():
        name = key.replace("_", "-")
        having = [command for command in commands if name in flags[command]]
        if not having:
            raise UsageError(f"unknown setting {key!r} for {', '.join(commands)}", file=path)
        for command in having:
            parameter, kind = flags[command][name]
            if not _is(value, kind):
                raise UsageError(f"{key}: expected {KINDS[kind]}, found {value!r}", file=path)
            yield Setting(command, parameter, value, path)


def _is(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(part, str) for part in value)
    if kind is Listed:
        return type(value) in (str, int)
    return type(value) is kind or (kind is float and type(value) is int)
