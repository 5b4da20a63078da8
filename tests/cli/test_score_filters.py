"""recli score: what may be recommended, flag by flag, and what happens when a flag makes no sense."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import Outcome

Recli = Callable[..., Outcome]
SCORE = ("score", "model.npz", "-k", 3, "--keep-seen", "-o", "lists.csv")
FILES = {
    "some.txt": "i0\ni3\n",
    "more.csv": "sku,x\ni3,1\ni4,1\nnope,1\n",
    "pairs.csv": "user,item\nu0,i0\nu0,i1\nu0,i2\nu0,nope\nu7,i4\nzoe,i0\nmia,i0\n",
    "items.csv": "item,kind,price,stock\ni0,a,5,true\ni1,a,9,false\ni2,b,,true\ni3,b,7,true\nold,a,1,true\n",
    "twice.csv": "item,kind\ni0,a\ni1,a\ni0,b\n",
    "users.txt": "u0\nzoe\n",
    "strangers.txt": "nope\nnor this\n",
    "empty.txt": "",
}


@pytest.fixture(autouse=True)
def _files(model: Path) -> None:
    """Items i0 to i4 of users u0 to u7; most users: i0 to i4 have 5, 6, 5, 5, 6."""
    for name, text in FILES.items():
        Path(name).write_text(text)


def lists(name: str = "lists.csv") -> dict[str, list[str]]:
    return dict(pl.read_csv(name).group_by("user", maintain_order=True).agg("item").iter_rows())


def everything(recli: Recli, *flags: str) -> dict[str, list[str]]:
    """The full ranking of every user."""
    assert recli("score", "model.npz", "-k", 5, "--keep-seen", "-o", "all.csv", "-q", *flags).code == 0
    return lists("all.csv")


@pytest.mark.parametrize(
    ("flags", "allowed", "said"),
    [
        (["--allow", "some.txt"], "i0 i3", ["2 of 5 items may be recommended"]),
        (["--deny", "some.txt"], "i1 i2 i4", ["3 of 5 items may be recommended"]),
        (["--allow", "more.csv"], "i3 i4", ["1 items of --allow are not in the model", "2 of 5 items may be"]),
        (["--allow", "some.txt", "--deny", "more.csv"], "i0", ["1 items of --deny are not in", "1 of 5 items may be"]),
        (["--deny", "strangers.txt"], "i0 i1 i2 i3 i4", ["2 items of --deny are not in the model"]),
        (
            ["--items", "items.csv", "--where", "stock and price < 50"],
            "i0 i3",
            [
                "1 items of --items are not in the model",
                "1 items are not in --items: they do not meet --where",
                "2 of 5 items may be recommended",
            ],
        ),
        (["--items", "items.csv", "--where", "kind = 'a'", "--deny", "some.txt"], "i1", ["1 of 5 items may be"]),
    ],
)
def test_only_items_that_may_be_are_recommended_and_how_many_is_said(
    flags: list[str], allowed: str, said: list[str], recli: Recli
) -> None:
    done = recli(*SCORE, *flags)
    assert done.code == 0
    whole = everything(recli)
    assert lists() == {user: [item for item in items if item in allowed.split()][:3] for user, items in whole.items()}
    for text in said:
        assert f"recli score: {text}" in done.err
    short = "8 lists are shorter than 3: nothing else is left to recommend\n"
    assert (short in done.err) == (len(allowed.split()) < 3)


def test_counts_are_in_the_statistics(recli: Recli) -> None:
    done = recli(*SCORE, "--allow", "more.csv", "--deny-pairs", "pairs.csv", "--json", "-q")
    numbers = json.loads(done.out)
    assert (numbers["unknown_allow"], numbers["allowed_items"], numbers["idle_deny_pairs"]) == (1, 2, 3)
    assert numbers["short_lists"] == 8


def test_pairs_denied_are_recommended_to_nobody_else_known_or_not(recli: Recli) -> None:
    done = recli(*SCORE, "--users", "users.txt", "--deny-pairs", "pairs.csv")
    # u0's nope, u7 and mia, who get no list
    assert "recli score: 3 pairs of --deny-pairs are of users who get no list, or of unknown items\n" in done.err
    found, whole = lists(), everything(recli)
    assert found["u0"] == [item for item in whole["u0"] if item in ("i3", "i4")]
    assert found["zoe"] == ["i1", "i4", "i2"]  # the most popular without i0


def test_seen_items_stay_out_whatever_else_does(recli: Recli, ratings: Path) -> None:
    assert recli("score", "model.npz", "-k", 3, "--deny", "some.txt", "-o", "lists.csv").code == 0
    seen = set(pl.read_csv(ratings).select("user", "item").rows())
    pairs = {(user, item) for user, items in lists().items() for item in items}
    assert pairs
    assert not pairs & seen
    assert not {item for _, item in pairs} & {"i0", "i3"}


@pytest.mark.parametrize(("caps", "columns"), [("kind=1", ["kind"]), ("kind=2,stock=2", ["kind", "stock"])])
def test_lists_have_at_most_so_many_items_of_one_value(caps: str, columns: list[str], recli: Recli) -> None:
    done = recli(*SCORE, "--items", "items.csv", "--max-per", caps, "--users", "users.txt")
    assert "1 items are not in --items: they are not capped\n" in done.err
    most = [int(part.split("=")[1]) for part in caps.split(",")]
    rows = {row["item"]: row for row in pl.read_csv("items.csv").iter_rows(named=True)}
    for user, ranked in everything(recli, "--users", "users.txt").items():
        taken: list[str] = []
        for item in ranked:
            full = [
                sum(rows[other][column] == rows[item][column] for other in taken if other in rows) >= limit
                for column, limit in zip(columns, most, strict=True)
                if item in rows
            ]
            if not any(full):
                taken.append(item)
        assert lists()[user] == taken[:3]


def test_lists_end_below_the_least_score(recli: Recli) -> None:
    assert recli(*SCORE, "--users", "users.txt", "-q").code == 0
    scores = pl.read_csv("lists.csv").filter(user="u0")["score"]
    done = recli(*SCORE, "--users", "users.txt", "--min-score", scores[1])
    left = pl.read_csv("lists.csv")
    assert left.filter(user="u0")["score"].to_list() == scores[:2].to_list()
    assert left.filter(user="zoe")["score"].to_list() == [6, 6, 5]  # numbers of users, not scores
    assert (
        "1 lists are shorter than 3: nothing else is left to recommend that scores at least --min-score\n" in done.err
    )


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        (["--allow", "none.txt"], 66, "none.txt: no such file"),
        (["--allow", "empty.txt"], 65, "empty.txt: expected a table, found an empty file"),
        (["--allow", "strangers.txt"], 65, "strangers.txt: --allow leaves none of 5 items to recommend"),
        (["--allow", "some.txt", "--deny", "some.txt"], 65, "some.txt: --deny leaves none of 2 items to recommend"),
        (
            ["--allow", "some.txt", "--items", "items.csv", "--where", "price > 100"],
            65,
            "items.csv: --where 'price > 100' leaves none of 2 items to recommend",
        ),
        (["--where", "price < 5"], 2, "--where 'price < 5': there is no --items table for it to look in"),
        (["--max-per", "kind=2"], 2, "--max-per 'kind=2': there is no --items table for it to look in"),
        (["--items", "items.csv"], 2, "--items items.csv: it is there for --where or --max-per: give one of them"),
        (
            ["--items", "items.csv", "--where", "prise < 5"],
            2,
            "items.csv: --where 'prise < 5': unable to find column \"prise\"; valid columns: "
            '["item", "kind", "price", "stock"]; the columns are item, kind, price, stock',
        ),
        (
            ["--items", "items.csv", "--where", "price"],
            2,
            "items.csv: --where 'price': expected a condition, found a value of type Int64",
        ),
        (
            ["--items", "items.csv", "--max-per", "category=3"],
            2,
            "items.csv: --max-per category: no such column; the columns are item, kind, price, stock",
        ),
        (
            ["--items", "items.csv", "--max-per", "kind"],
            2,
            "--max-per kind: expected COLUMN=N, N from 1 up, as category=3, found 'kind'",
        ),
        (
            ["--items", "items.csv", "--max-per", "kind=0"],
            2,
            "--max-per kind=0: expected COLUMN=N, N from 1 up, as category=3, found 'kind=0'",
        ),
        (["--items", "items.csv", "--max-per", "kind=1,kind=2"], 2, "--max-per kind=1,kind=2: kind is there twice"),
        (
            ["--items", "twice.csv", "--max-per", "kind=1"],
            65,
            "twice.csv: column item: expected a row an item, found 1 more for items that have one ('i0')",
        ),
        (["--items", "pairs.csv", "--where", "x > 1"], 2, None),
        (["--deny-pairs", "some.txt"], 65, None),
        (
            ["--min-score", "much"],
            2,
            "--min-score much: input should be a valid number, unable to parse string as a number",
        ),
        (["--min-score", "nan"], 2, "--min-score nan: expected a value from -3e+38 to 3e+38"),
        (["--allow", "some.txt", "-k", 6], 2, "-k 6: the model has 5 items: give at most -k 5"),
        (["--allow", "-", "--users", "-"], 2, "only one of --users and --allow can be - (stdin)"),
        (["--deny", ""], 2, "a file name is empty (is a shell variable not set?)"),
    ],
)
def test_what_makes_no_sense_is_one_line_with_its_exit_code(
    flags: list[str], code: int, line: str | None, recli: Recli
) -> None:
    done = recli(*SCORE, *flags, "-q")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("recli: error: ")
    assert done.err.count("\n") == 1
    if line is not None:
        assert done.err == f"recli: error: {line}\n"
    assert not Path("lists.csv").exists()


def test_a_condition_from_a_settings_file_is_called_by_its_file(recli: Recli) -> None:
    Path("recli.toml").write_text('[score]\nwhere = "price < 5"\n')
    done = recli(*SCORE)
    assert done.code == 2
    assert done.err.endswith("there is no --items table for it to look in (from recli.toml)\n")
