"""Defaults < user file < ./recli.toml < RECLI_* variables < flags; and what a file may not say."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Outcome

Recli = Callable[..., Outcome]
# command, key, kind of flag, and a value for each source, weakest first: user file, project file, variable, flag
SOURCES = ("user", "project", "variable", "flag")
SETTINGS: list[tuple[str, str, Any, list[Any]]] = [
    ("factorize", "rank", 64, [3, 4, 5, 6]),
    ("factorize", "reg", None, [0.5, 1, 2.5, 3]),
    ("factorize", "solver", "ials", ["pop", "ials", "pop", "ials"]),
    ("factorize", "alpha", None, [1.5, 2.0, 3.0, 4]),
    ("factorize", "seed", 0, [1, 2, 3, 4]),
    ("score", "k", 10, [1, 2, 3, 4]),
]


def user_file() -> Path:
    path = Path(os.environ["XDG_CONFIG_HOME"], "recli", "recli.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def plan(recli: Recli, command: str, *arguments: object) -> dict[str, Any]:
    """The resolved settings, as --dry-run --json shows them."""
    target = {"factorize": "ratings.csv", "score": "model.npz"}[command]
    outcome = recli(command, target, *arguments, "--dry-run", "--json", "-q")
    assert (outcome.code, outcome.err) == (0, ""), outcome
    shown = json.loads(outcome.out)
    return {**shown, **shown["config"]}


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("strongest", range(5), ids=("default", *SOURCES))
@pytest.mark.parametrize(("command", "key", "default", "values"), SETTINGS, ids=[setting[1] for setting in SETTINGS])
def test_the_strongest_source_wins(
    command: str,
    key: str,
    default: Any,
    values: list[Any],
    strongest: int,
    recli: Recli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = dict(zip(SOURCES, values[:strongest], strict=False))
    for source, path in (("user", user_file()), ("project", Path("recli.toml"))):
        if source in given:
            path.write_text(f"{key} = {json.dumps(given[source])}\n")
    if "variable" in given:
        monkeypatch.setenv(f"RECLI_{key.upper()}", str(given["variable"]))
    if not given and key == "k":
        given["flag"] = default = 5  # the model has five items, fewer than the default asks for
    flag = [f"--{key}", given["flag"]] if "flag" in given else []
    assert plan(recli, command, *flag)[key] == (values[strongest - 1] if strongest else default)


def test_each_source_adds_to_the_weaker_ones(ratings: Path, recli: Recli, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file().write_text("[factorize]\nrank = 3\nreg = 0.5\nnu = 0.5\nseed = 7\n")
    Path("recli.toml").write_text("[factorize]\nreg = 0.6\nnu = 0.6\nseed = 8\n")
    monkeypatch.setenv("RECLI_NU", "0.7")
    monkeypatch.setenv("RECLI_SEED", "9")
    shown = plan(recli, "factorize", "--seed", 10)
    assert (shown["rank"], shown["reg"], shown["nu"], shown["seed"]) == (3, 0.6, 0.7, 10)


def test_switches_are_true_or_false_in_files_and_variables(
    ratings: Path, recli: Recli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan(recli, "factorize")["seen"] is True
    Path("recli.toml").write_text("no-seen = true\n")
    assert plan(recli, "factorize")["seen"] is False
    Path("recli.toml").write_text("no_seen = true\n")
    assert plan(recli, "factorize")["seen"] is False
    for text, seen in (("0", True), ("false", True), ("1", False), ("true", False)):
        monkeypatch.setenv("RECLI_NO_SEEN", text)
        assert plan(recli, "factorize")["seen"] is seen
    monkeypatch.delenv("RECLI_NO_SEEN")
    Path("recli.toml").write_text("quiet = true\njson = true\n")
    outcome = recli("factorize", ratings, "-o", "m.npz")
    assert (outcome.code, outcome.err, json.loads(outcome.out)["output"]) == (0, "", "m.npz")


def test_a_section_is_for_its_command_and_wins_over_what_is_above_it(model: Path, recli: Recli) -> None:
    Path("recli.toml").write_text("threads = 1\nrank = 5\n[factorize]\nrank = 7\n[score]\nk = 2\nthreads = 3\n")
    assert [plan(recli, "factorize")[key] for key in ("rank", "threads")] == [7, 1]
    assert [plan(recli, "score")[key] for key in ("k", "threads")] == [2, 3]


def test_columns_and_conditions_come_from_a_file_too(recli: Recli) -> None:
    Path("ratings.csv").write_text("a,b,c\n1,2,3\n4,5,6\n")
    Path("recli.toml").write_text("[factorize]\ncolumns = 'user=b,item=a,rating='\nwhere = 'c > 3'\n")
    shown = plan(recli, "factorize")
    assert (shown["rows"], shown["users"]) == (1, 1)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("rnak = 3", r"unknown setting 'rnak' for featurize, factorize, finetune, score, bench"),
        ("[factorize]\nk = 3", r"unknown setting 'k' for factorize"),
        ("inputs = ['x.csv']", r"unknown setting 'inputs' .*"),  # an argument is no setting
        ("help = true", r"unknown setting 'help' .*"),
        (
            "[train]\nrank = 3",
            r"unknown section \[train\]; the commands are featurize, factorize, finetune, score, bench",
        ),
        ("rank = ", r"not a TOML file: .*"),
        ("rank = 'many'", r"rank: expected a whole number, found 'many'"),
        ("rank = '3'", r"rank: expected a whole number, found '3'"),
        ("rank = true", r"rank: expected a whole number, found True"),
        ("rank = 2.0", r"rank: expected a whole number, found 2\.0"),
        ("rank = [3]", r"rank: expected a whole number, found \[3\]"),
        ("reg = '0.1'", r"reg: expected a number, found '0\.1'"),
        ("quiet = 'yes'", r"quiet: expected true or false, found 'yes'"),
        ("quiet = 1", r"quiet: expected true or false, found 1"),
        ("where = 3", r"where: expected text in quotes, found 3"),
        ("[factorize.columns]\nuser = 'u'", r"columns: expected text in quotes, found .*"),
        (b"rank = 3 # \xff", r"not a TOML file: .*"),
    ],
)
@pytest.mark.parametrize("whose", ["user", "project"])
def test_a_mistake_in_a_file_is_a_usage_error_that_names_the_file(
    text: str | bytes, line: str, whose: str, ratings: Path, recli: Recli
) -> None:
    path = user_file() if whose == "user" else Path("recli.toml")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    outcome = recli("factorize", ratings)
    assert (outcome.code, outcome.out) == (2, "")
    assert re.fullmatch(rf"recli: error: {re.escape(str(path))}: {line}\n", outcome.err), outcome.err
    assert os.listdir() == (["ratings.csv"] if whose == "user" else sorted(os.listdir()))


@pytest.mark.parametrize(
    ("text", "variables", "line"),
    [
        ("rank = 0", {}, r"--rank 0: expected a value from 1 to 16384 \(from recli\.toml\)"),
        ("threads = 0", {}, r"--threads 0: .* \(from recli\.toml\)"),
        ("where = 'stars > 3'", {}, r"ratings\.csv: --where 'stars > 3': .* \(from recli\.toml\)"),
        ("", {"RECLI_RANK": "0"}, r"--rank 0: expected a value from 1 to 16384 \(from RECLI_RANK\)"),
        ("rank = 3", {"RECLI_RANK": "many"}, r"--rank many: .*integer.* \(from RECLI_RANK\)"),
        ("", {"RECLI_QUIET": "perhaps"}, r"--quiet perhaps: .*boolean.* \(from RECLI_QUIET\)"),
        ("", {"RECLI_LOG_FORMAT": "xml"}, r"--log-format xml: expected text or json \(from RECLI_LOG_FORMAT\)"),
        ("rank = 0", {"RECLI_NU": "9"}, r"--rank 0: .* \(from recli\.toml\)"),
    ],
)
def test_a_bad_value_says_where_it_comes_from(
    text: str, variables: dict[str, str], line: str, ratings: Path, recli: Recli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("recli.toml").write_text(text)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    outcome = recli("factorize", ratings)
    assert outcome.code == 2
    assert re.fullmatch(rf"recli: error: {line}\n", outcome.err), outcome.err


def test_a_bad_value_on_the_command_line_comes_from_nowhere_else(
    ratings: Path, recli: Recli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("recli.toml").write_text("rank = 3")
    monkeypatch.setenv("RECLI_RANK", "4")
    assert recli("factorize", ratings, "--rank", 0).err == "recli: error: --rank 0: expected a value from 1 to 16384\n"


@pytest.mark.parametrize("home", [None, "/nowhere/at/all", "/dev/null"])
def test_a_home_that_is_not_there_is_no_error(
    home: str | None, ratings: Path, recli: Recli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose user has no entry in /etc/passwd."""
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    assert recli("factorize", ratings, "--rank", 2, "-q", "-o", "m.npz") == (0, "", "")
