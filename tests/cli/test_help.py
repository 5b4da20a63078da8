"""--help is complete, honest and quick."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from recli import __version__
from recli.cli.main import COMMANDS, LazyGroup, app
from recli.config import BenchConfig, Config, FactorizeConfig, FeaturizeConfig, FinetuneConfig, ScoreConfig
from tests.conftest import Outcome

Recli = Callable[..., Outcome]
CONFIGS = {
    "featurize": FeaturizeConfig,
    "factorize": FactorizeConfig,
    "finetune": FinetuneConfig,
    "score": ScoreConfig,
    "bench": BenchConfig,
}
LISTS = {"--solver", "--rank", "--k", "-k", "--device"}  # in bench, which measures each of several
# in finetune, of epochs and adapters, where other commands have them of iterations and models
OWN = {"--adapter", "--features", "--loss", "--reg", "--valid", "--metric", "--patience", "--checkpoint-every"}
OTHER_FLAG = {"seen": "--no-seen"}  # config field -> its flag, where the names differ


def group() -> LazyGroup:
    found = typer.main.get_command(app)
    assert isinstance(found, LazyGroup)
    return found


def command(name: str) -> Any:
    found = group()
    return found.get_command(found.make_context("recli", [name], resilient_parsing=True), name)


def flags(name: str) -> dict[str, Any]:
    options = [parameter for parameter in command(name).params if parameter.param_type_name == "option"]
    return {flag: option for option in options for flag in option.opts}


def examples(help: str) -> list[list[str]]:
    """The arguments of every recli in the examples: name and flags."""
    lines = re.findall(r"^ +((?:cat|recli) .*)$", help.partition("Examples:")[2], re.MULTILINE)
    parts = [part for line in lines for part in line.split(" | ")]
    return [shlex.split(part.split(" > ")[0])[1:] for part in parts if part.startswith("recli ")]


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_goes_to_stdout_with_examples_that_parse(name: str, flag: str, recli: Recli) -> None:
    outcome = recli(*name.split(), flag)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"Usage: recli {name}".rstrip())
    found = examples(outcome.out)
    assert len(found) >= 2
    for verb, *arguments in found:
        with command(verb).make_context(verb, arguments):  # raises for a flag or a value that there is not
            pass


@pytest.mark.parametrize("name", COMMANDS)
def test_help_wins_over_everything_else_on_the_line_and_in_settings(name: str, recli: Recli) -> None:
    usual = recli(name, "--help").out
    Path("recli.toml").write_text("not = [toml")
    assert recli(name, "--help") == recli(name, "nowhere", "-q", "-h") == (0, usual, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_explained_and_lines_are_not_broken(name: str, recli: Recli) -> None:
    shown = recli(name, "-h").out
    for flag, option in flags(name).items():
        assert option.help
        assert re.search(
            rf"^  (-\w, )?(--[a-z0-9-]+, )?{flag}\b.* {re.escape(option.help.split()[0])}", shown, re.MULTILINE
        )
    assert all(len(line) <= 80 for line in shown.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_has_a_flag_and_shows_its_default(name: str, recli: Recli) -> None:
    shown, defaults = " ".join(recli(name, "-h").out.split()), CONFIGS[name]()
    assert isinstance(defaults, Config)
    for field in dataclasses.fields(defaults):
        flag = OTHER_FLAG.get(field.name, "--" + field.name.replace("_", "-"))
        option, default = flags(name)[flag], getattr(defaults, field.name)
        if isinstance(default, bool):
            assert option.default is False
        else:
            assert option.default == (default or None if isinstance(default, dict) else default)
            text = re.search(rf"{flag} <\w+> (.*?\[default: (.*?)\])", shown)
            assert text, flag
            assert default in (None, {}) or text[2] == str(default)


def test_flags_of_the_same_name_mean_the_same_in_every_command() -> None:
    by_name: dict[str, set[tuple[Any, ...]]] = {}
    for name in COMMANDS:
        for flag, option in flags(name).items():
            by_name.setdefault(flag, set()).add((option.help, option.default, option.envvar, option.is_flag))
    # of ratings in the one command, of items in the other; one in the others, a list in bench; a folder in featurize, a
    # file in the others; lists of ids in score, tables in featurize: those have no variable, so that none can mean both
    differing = {"--where", "--output", "-o", "--items", "--users", "--split", *LISTS, *OWN}
    assert {flag for flag, meanings in by_name.items() if len(meanings) > 1} == differing
    assert flags("score")["--where"].envvar is None
    for flag in ("--output", "--items", "--users", "--split"):
        assert flags("featurize")[flag].envvar is None
    assert [flags("bench")[flag].envvar for flag in LISTS] == [None] * len(LISTS)
    assert [flags("finetune")[flag].envvar for flag in (*OWN, "--rank")] == [None] * (len(OWN) + 1)


def test_the_list_of_commands_says_what_each_is_for(recli: Recli) -> None:
    shown = recli("--help").out
    for name, purpose in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(purpose)}$", shown, re.MULTILINE)
        assert (Path(__file__).parents[2] / "recli" / "cli" / f"{name}.py").is_file()


def test_the_version_is_on_stdout(recli: Recli) -> None:
    assert recli("--version") == (0, f"recli {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["factorize", "--help"], ["score", "-h"], ["--version"], ["nope"]])
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from recli.cli.main import main
main({arguments!r})
print(*sorted({{"numpy", "scipy", "polars", "numba", "cupy", "rich"}} & set(sys.modules)), sep="", end="|")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n|") or done.stdout == "|"
