"""The flags that commands share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recli.cli import options as o
from recli.config import FactorizeConfig
from recli.errors import OutputError, UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1024", 1024),
        ("4G", 4 * 2**30),
        ("4GB", 4 * 2**30),
        ("4 GiB", 4 * 2**30),
        ("500m", 500 * 2**20),
        ("2.5k", 2560),
        (".5T", 2**39),
        (None, None),
    ],
)
def test_sizes_have_units_of_1024(text: str | None, size: int | None) -> None:
    assert o.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "4X", "-4G", "4G8", "1e9", "4.G", "1,000", "lots"])
def test_other_sizes_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match=r"--memory-limit .*: expected a size such as 4G or 500M"):
        o.parse_size(text)


@pytest.mark.parametrize("size", [1, 350_000_000, 2**30, 2**30 + 1, 7 * 10**11])
def test_the_limit_that_is_advised_is_enough(size: int) -> None:
    advised = o.parse_size(o.limit_text(size))
    assert advised is not None
    assert size <= advised < size * 1.01 + 2**27


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (None, {}),
        ("", {}),
        ("user=uid", {"user": "uid"}),
        ("user=uid, item = sku ,rating=", {"user": "uid", "item": "sku", "rating": ""}),
        ("timestamp=a=b", {"timestamp": "a=b"}),
    ],
)
def test_columns_are_named_by_role(text: str | None, columns: dict[str, str]) -> None:
    assert o.parse_columns(text) == columns


@pytest.mark.parametrize("text", ["uid", "user", "users=uid", "user=uid,", "user=uid;item=sku,x", "=uid"])
def test_other_columns_are_usage_errors_that_show_the_part(text: str) -> None:
    with pytest.raises(UsageError, match=r"--columns .*: expected user=NAME,.*, found '"):
        o.parse_columns(text)


def test_threads_are_the_cores_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert o.thread_count(None) == 3
    assert o.thread_count(7) == 7
    for wrong in (0, -1, 5000):
        with pytest.raises(UsageError, match=f"--threads {wrong}: expected a value from 1 to 4096"):
            o.thread_count(wrong)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("ratings.parquet", "ratings.x"),
        ("/data/ratings.csv.zst", "ratings.x"),
        ("ratings.factors.npz", "ratings.x"),
        ("data/", "data.x"),
        ("logs/2025-*.csv.gz", "2025.x"),
        ("s3://shop/events/*.parquet", "recli.x"),
        ("part-[0-9]?.tsv", "part-0-9.x"),
        ("v1.2.csv", "v1.2.x"),
        ("/", "recli.x"),
        ("..", "recli.x"),
        ("my data.csv", "my data.x"),
    ],
)
def test_an_output_is_named_after_the_input(given: str, name: str) -> None:
    assert o.default_output([given, "more.csv"], ".x") == name


def test_a_pipe_has_no_name_to_give() -> None:
    os.mkfifo("pipe.csv")
    for given in ("-", "pipe.csv", "/dev/null"):
        with pytest.raises(UsageError, match="say where to write with -o"):
            o.default_output([given], ".x")


def test_a_config_takes_the_flags_that_it_has_and_keeps_its_defaults_for_those_not_given() -> None:
    config = o.pick(FactorizeConfig, {"rank": 3, "alpha": None, "reg": None, "quiet": True}, seen=False)
    assert config == FactorizeConfig(rank=3, seen=False)


@pytest.mark.parametrize(
    ("inputs", "output", "stats", "json"),
    [
        (["a.csv"], None, None, False),
        (["-"], "-", None, False),
        (["a.csv"], "b.npz", "-", False),
        (["a.csv"], "-", "s.json", False),
        (["a.csv", None], "b.npz", "s.json", True),
    ],
)
def test_paths_that_do_not_collide_are_fine(
    inputs: list[str | None], output: str | None, stats: str | None, json: bool
) -> None:
    o.check_paths(inputs, output, stats, json)


@pytest.mark.parametrize(
    ("inputs", "output", "stats", "json", "message"),
    [
        ([""], None, None, False, "empty"),
        (["a.csv"], "", None, False, "empty"),
        (["a.csv", ""], None, None, False, "empty"),
        (["a.csv"], None, "", False, "empty"),
        (["a.csv"], "-q", None, False, "flag -q"),  # recli factorize a.csv -o $UNSET -q
        (["a.csv"], None, "--json", False, "flag --json"),
        (["a.csv"], "-", None, True, "--json and -o - cannot share stdout"),
        (["a.csv"], "-", "-", False, "-o - and --stats - cannot share stdout"),
        (["a.csv"], None, "-", True, "--json and --stats - cannot share stdout"),
    ],
)
def test_what_an_unset_variable_leaves_and_two_results_on_stdout_are_usage_errors(
    inputs: list[str | None], output: str | None, stats: str | None, json: bool, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        o.check_paths(inputs, output, stats, json)


@pytest.mark.parametrize("stats", ["a.csv", "./a.csv", "link.json"])
def test_stats_never_replace_an_input(stats: str) -> None:
    Path("a.csv").write_text("user,item\n")
    Path("link.json").symlink_to("a.csv")
    with pytest.raises(OutputError, match="--stats would replace an input"):
        o.check_paths(["nowhere.csv", "a.csv"], None, stats, False)
