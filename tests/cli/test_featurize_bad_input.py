"""What featurize refuses: one line that says where and what, the exit code of its kind, the old folder intact."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from recli.cli.main import main
from recli.featurize.fitted import FittedSpec
from recli.io.folders import Folder
from tests.cli import features
from tests.cli.made import whole

Recli = Callable[..., Any]
Make = Callable[[], dict[str, bytes]]
PAIRS = [
    (u, i, 1 + u * i % 5, 1_700_000_000 + u * 100_000 + i * 5_000) for u in range(12) for i in range(9) if (u + i) % 3
]
RATINGS = "user,item,rating,timestamp\n" + "".join(f"u{u},{i},{r},{t}\n" for u, i, r, t in PAIRS)
ITEMS = "item,price,kind\n" + "".join(f"{i},{i * 1.5},k{i % 3}\n" for i in range(9))
LOG = "user,item,event,timestamp\n" + "".join(f"u{u},{i},{'view' if r < 4 else 'buy'},{t}\n" for u, i, r, t in PAIRS)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of those ratings and items, and what they were made of."""
    folder = tmp_path_factory.mktemp("made")
    for name, text in {"ratings.csv": RATINGS, "items.csv": ITEMS, "log.csv": LOG}.items():
        (folder / name).write_text(text)
    pair, base = (str(folder / name) for name in ("ratings.csv", "base"))
    assert main(["featurize", pair, "--items", str(folder / "items.csv"), "-q", "-o", base]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(_clean: None, made: Path) -> None:
    shutil.copytree(made, ".", dirs_exist_ok=True)


def nothing() -> dict[str, bytes]:
    return {}


def text(encoding: str = "utf-8", **files: str) -> Make:
    return lambda: {name.replace("_", "."): content.encode(encoding) for name, content in files.items()}


def items(*rows: str, head: str = "item,price,kind") -> Make:
    return text(a_csv="\n".join([head, *rows, ""]))


def parquet(**columns: Any) -> Make:
    def make() -> dict[str, bytes]:
        file = io.BytesIO()
        pl.DataFrame(columns).write_parquet(file)
        return {"a.parquet": file.getvalue()}

    return make


def vectors(array: Any) -> Make:
    def make() -> dict[str, bytes]:
        file = io.BytesIO()
        np.save(file, array)
        return {"v.npy": file.getvalue()}

    return make


def times(*column: Any) -> Make:
    return parquet(user=["u"] * len(column), item=range(len(column)), timestamp=pl.Series(column, strict=False))


def spec(change: Callable[[dict[str, Any]], object]) -> Make:
    """The folder's spec, changed, and a manifest that has its hash."""

    def make() -> dict[str, bytes]:
        content = features.spec("base")
        change(content)
        return damaged(json.dumps(content).encode())()

    return make


def damaged(content: bytes, name: str = "spec.json") -> Make:
    def make() -> dict[str, bytes]:
        manifest = json.loads(Path("base/manifest.json").read_bytes())
        manifest["files"][name]["sha256"] = hashlib.sha256(content).hexdigest()
        return {f"base/{name}": content, "base/manifest.json": json.dumps(manifest).encode()}

    return make


def put(*path: Any, value: Any) -> Make:
    def change(content: Any) -> None:
        *above, last = path
        for key in above:
            content = content[key]
        content[last] = value

    return spec(change)


F = "featurize ratings.csv -o out"
A = "featurize ratings.csv -o out --apply base"
B = f"{F} --items a.csv"
P = f"{F} --items a.parquet"
T = "featurize a.parquet -o out"
KINDS = ("items", "features", 1, "fitted")
TABLE: list[tuple[str, Make, int, str]] = [
    # no input
    ("featurize r.csv -o out", nothing, 66, r"r\.csv: no such file"),
    (f"{F} --items 'a*.csv'", nothing, 66, r"a\*\.csv: no such file"),
    (f"{F} --spec no.toml", nothing, 66, r"no\.toml: no such file"),
    (f"{F} --items items.csv --item-vectors v=no.npy", nothing, 66, r"no\.npy: no such file"),
    (f"{F} --apply no", nothing, 66, r"no: no such folder of features"),
    (f"{F} --apply items.csv", nothing, 66, r"items\.csv: no such folder of features"),
    (f"{F} --apply .", nothing, 66, r"\./manifest\.json: no such file: is it a folder that recli featurize wrote"),
    ("featurize -o out", nothing, 2, "nothing to do: give INPUT, or --apply"),
    ("featurize -o out --items items.csv", nothing, 2, "nothing to do: give INPUT, or --apply"),
    ("featurize - --items - -o out", nothing, 2, "only one of INPUT, --items and --users can be -"),
    # interactions
    (
        "featurize a.csv -o out",
        text("latin1", a_csv=RATINGS + "ué1,3,4,17\n"),
        65,
        r"a\.csv: line 74: expected UTF-8.*b'u\\xe91'",
    ),
    (f"{A}", text("latin1", ratings_csv=RATINGS + "ué1,3,4,17\n"), 65, r"ratings\.csv: line 74: .*b'u\\xe91'"),
    ("featurize a.csv -o out", text("utf-16", a_csv=RATINGS), 65, r"a\.csv: line 1: expected UTF-8.*iconv -f utf-16"),
    (
        "featurize a.csv -o out",
        text(a_csv=RATINGS + "u1,3,inf,17\n"),
        65,
        r"a\.csv: column 'rating': .*first in row 73",
    ),
    (T, parquet(user=[1.5], item=[1]), 65, r"a\.parquet: column 'user': expected ids"),
    (T, times("2025-01-01", "lately"), 65, r"a\.parquet: column 'timestamp': expected times such as .*'lately'"),
    (T, times(1.7e9, float("inf")), 65, r"a\.parquet: column 'timestamp': expected times until 9999 in s.*, found inf"),
    (T, times(True, False), 65, r"a\.parquet: column 'timestamp': expected times, found Boolean; leave it out"),
    (f"{T} --half-life 3d", times(1, None, 2), 65, r"a\.parquet: column 'timestamp': 1 times are missing, and --half"),
    # flags that pick and weigh rows
    (f"{F} --since 2025-02-30", nothing, 2, "--since 2025-02-30: expected a date"),
    (f"{F} --until inf", nothing, 2, "--until inf: expected a date"),
    *(
        (
            f"{line} --since 2024-01-01 --until 2023-01-01",
            nothing,
            2,
            "--since 2024-01-01: expected a moment before --unt",
        )
        for line in (F, A)
    ),
    (f"{F} --since 2030-01-01", nothing, 65, r"ratings\.csv: no rows are left by --since"),
    (f"{F} --until 1970-01-02 --where 'rating > 1'", nothing, 65, "no rows are left by --where and --until"),
    (
        f"{F} --since 2020-01-01 --columns timestamp=",
        nothing,
        2,
        r"--since: ratings\.csv has no column that looks like",
    ),
    (
        f"{F} --half-life 3d --columns timestamp=",
        nothing,
        2,
        r"--half-life: ratings\.csv has no column that looks like",
    ),
    (f"{F} --split last --columns timestamp=", nothing, 2, r"--split last: ratings\.csv has no column that looks like"),
    *(
        (f"{F} --half-life {text}", nothing, 2, f"--half-life {text}: expected a time such as 30d")
        for text in ("3", "0d", "nand", "1e300d", "soon")
    ),
    *(
        (f"featurize log.csv -o out --weights {text}", nothing, 2, f"--weights {text}: expected each kind .*{found!r}")
        for text, found in (
            ("view", "view"),
            ("view=x", "view=x"),
            ("view=-1", "view=-1"),
            ("view=nan", "view=nan"),
            ("view=1,view=2", "view=2"),
            ("view=1,", ""),
        )
    ),
    ("featurize log.csv -o out --weights view=0", nothing, 2, "--weights view=0: expected one above 0"),
    ("featurize log.csv -o out --weights view=1", nothing, 65, r"log\.csv: column 'event': 'buy' have no weight"),
    ("featurize log.csv -o out --weights view=1 --event kind", nothing, 65, r"log\.csv: no column 'kind' \(--event\)"),
    (f"{F} --weights view=1", nothing, 65, r"ratings\.csv: no column looks like the event: name it with --event"),
    (f"{F} --event kind", nothing, 2, "--event: there are no --weights for it"),
    (f"{F} --weight kind", nothing, 65, r"ratings\.csv: no column 'kind' \(--weight\)"),
    (f"{F} --weight rating --weights view=1", nothing, 2, "--weight and --weights exclude each other"),
    (f"{F} --min-user 1000", nothing, 65, r"ratings\.csv: --min-user 1000, .*no interaction is left"),
    (f"{F} --split random --test-share 0.001", nothing, 65, r"ratings\.csv: --split random, .* 0 for test"),
    (f"{F} --split random --valid-share 0.001", nothing, 65, r"ratings\.csv: --split random, .* 0 for valid"),
    (f"{F} --test-share 0.3", nothing, 2, "--test-share: there is no --split for it"),
    # interactions that are indexed already have no rows
    *(
        (
            f"featurize base -o out {flag} {value}",
            nothing,
            2,
            f"{flag}: base holds indexed pairs, not the rows of a table",
        )
        for flag, value in [
            ("--since", "2020-01-01"),
            ("--until", "2020-01-01"),
            ("--where", "'rating > 2'"),
            ("--weights", "a=1"),
            ("--half-life", "3d"),
            ("--weight", "rating"),
        ]
    ),
    ("featurize base -o out --split time", nothing, 2, "--split time: base has no column that looks like the time"),
    ("featurize base/items.npz -o out", nothing, 65, r"base/items\.npz: .*interactions, found features"),
    # attributes
    (
        B,
        items("0,1,k", "0,2,k", "1,5,k"),
        65,
        r"a\.csv: column 'price': expected one row for each item, found 1 and 2 for '0'",
    ),
    (P, parquet(item=[1, 1], v=[[1.0], [2.0]]), 65, r"a\.parquet: column 'v': .*found \[1\.0\] and \[2\.0\] for 1"),
    (
        P,
        parquet(item=[7, 7], v=[None, "x"]),
        65,
        r"a\.parquet: column 'v': expected one row .*found None and 'x' for 7",
    ),
    (B, items("0,1,k", ",2,k"), 65, r"a\.csv: column 'item': 1 ids are missing, first in row 2"),
    (B, items(), 65, r"a\.csv: expected a row for each id, found none"),
    (B, text(a_csv=""), 65, r"a\.csv: expected a table, found an empty file"),
    (B, items("1,2", head="sku_no,price"), 65, r"a\.csv: no column looks like the items' ids; found sku_no, price"),
    (f"{F} --users items.csv", nothing, 65, r"items\.csv: no column looks like the users' ids"),
    (P, parquet(item=[1.5, 2.0]), 65, r"a\.parquet: column 'item': expected ids \(integers or text\), found Float64"),
    (B, items("x1,2,k"), 65, r"a\.csv: column item: expected whole numbers like .*'x1'"),
    (B, items("007,2,k"), 65, r"a\.csv: column item: expected whole numbers like .*'007'"),
    (B, items("99999999999999999999,2,k"), 65, r"a\.csv: column item: expected whole numbers of at most 64 bits"),
    (
        B,
        text("latin1", a_csv="item,name\n1,b\n2,Café\n"),
        65,
        r"a\.csv: line 3: expected UTF-8, found the bytes b'Caf\\xe9'",
    ),
    (B, text("latin1", a_csv="item,é\n1,b\n"), 65, r"a\.csv: line 1: expected UTF-8, found the bytes b'\\xe9'"),
    (B, items("0,1,k", "1,inf,k"), 65, r"a\.csv: column 'price': expected a finite number, found inf for item 1"),
    (
        B,
        items(*(f"{i},{'xy'[i % 2]},{i * i}" for i in range(9)), head="item,a,a=x"),
        65,
        r"a\.csv: columns 'a' and 'a=x' both make a feature 'a=x'",
    ),
    (f"{F} --items ratings.factors.npz", nothing, 66, r"ratings\.factors\.npz: no such file"),
    (f"{F} --items base/items.npz", nothing, 65, r"base/items\.npz: expected a table .*found npz"),
    # vectors
    (f"{F} --item-vectors v=v.npy", nothing, 2, "--item-vectors: there is no --items whose rows they go with"),
    (f"{F} --items items.csv --item-vectors v.npy", nothing, 2, "--item-vectors v.npy: expected a new name and a file"),
    *(
        (
            f"{F} --items items.csv --item-vectors {name}=v.npy",
            vectors(np.ones((9, 2))),
            2,
            rf"--item-vectors {name}=v\.npy: items\.csv has a column '{name}'",
        )
        for name in ("price", "item")
    ),
    *(
        (f"{F} --items items.csv --item-vectors v=v.npy", vectors(array), 65, rf"v\.npy: {pattern}")
        for array, pattern in (
            (np.ones((8, 2)), r"expected 9 rows, as items\.csv has, found 8"),
            (np.ones(9), r"expected a matrix, found an array of shape \(9,\)"),
            (np.full((9, 2), np.nan), "expected finite numbers"),
            (np.array([["x"]] * 9), "array of the file: expected little-endian numbers"),
        )
    ),
    (
        f"{F} --items items.csv --item-vectors v=items.csv",
        nothing,
        65,
        r"items\.csv: expected a \.npy file .*found csv",
    ),
    # the spec file
    (f"{F} --spec s.toml", text(s_toml="[items"), 2, r"s\.toml: not a TOML file: "),
    (f"{F} --spec s.toml", text("latin1", s_toml="é = 1"), 2, r"s\.toml: cannot be read: .*utf-8"),
    (f"{F} --spec base", nothing, 2, r"base: cannot be read: "),
    (f"{F} --spec s.toml", text(s_toml="[itmes]"), 2, r"s\.toml: .*`itmes`"),
    (
        f"{F} --items items.csv --spec s.toml",
        text(s_toml='[items.columns]\nprize = "numeric"'),
        65,
        r"items\.csv: no column 'prize', which the spec names; found price, kind",
    ),
    (
        f"{F} --spec s.toml",
        text(s_toml='[items.columns]\nprice = "numeric"'),
        65,
        r"--items: no column 'price', which the spec names; found none",
    ),
    *(
        (
            f"{F} --items items.csv --spec s.toml",
            text(s_toml='[items.columns]\nkind = { transform = "sentiment", lexicon = "w.csv" }', **words),
            code,
            rf"w\.csv: {pattern}",
        )
        for words, code, pattern in (
            ({}, 66, "no such file"),
            ({"w_csv": "word\ngood\n"}, 65, "expected a column of words and one of numbers, found word"),
            (
                {"w_csv": "word,score\ngood,1\ngood,2\n"},
                65,
                r"expected one finite score for each word, found \('good', 1",
            ),
            ({"w_csv": "word,score\ngood,inf\n"}, 65, r"expected one finite score .*\('good', inf\)"),
            ({"w_csv": "word,score\n,1\nbad,2\n"}, 65, r"expected one finite score .*\(None, 1"),
        )
    ),
    # --apply
    (
        f"{A} --items a.csv",
        items("1,2", head="item,price"),
        65,
        r"a\.csv: column 'kind' is missing, which the spec needs",
    ),
    (f"{A} --items a.csv", items("1,x,k1"), 65, r"a\.csv: column 'price': expected a number, found 'x' for item 1"),
    (f"{A} --items a.csv", items("x1,2,k1"), 65, r"a\.csv: column item: expected whole numbers like .*'x1'"),
    (f"{A} --items a.csv", items("1,2,k1", "1,3,k1"), 65, r"a\.csv: column 'price': expected one row"),
    ("featurize a.csv -o out --apply base", text(a_csv=RATINGS + "u1,x3,4,17\n"), 65, r"a\.csv: column item: .*'x3'"),
    (f"{A} --split random", nothing, 2, r"--split: --apply does what base/spec\.json says: leave it out"),
    (f"{A} --spec s.toml", nothing, 2, r"--spec: --apply does what base/spec\.json says"),
    # a folder that is not what it was
    (
        A,
        lambda: {"base/spec.json": b"{}"},
        65,
        r"base/spec\.json: it is not the file of the manifest: damaged, or of anoth",
    ),
    (A, lambda: {"base/items.npz": Path("base/users.npz").read_bytes()}, 65, r"base/items\.npz: it is not the file of"),
    (
        A,
        lambda: {"base/manifest.json": b"[]"},
        65,
        r"base/manifest\.json: expected the manifest of a folder that recli",
    ),
    (A, lambda: {"base/manifest.json": b"{"}, 65, r"base/manifest\.json: expected JSON, found "),
    (A, damaged(b"PK\3\4", "items.npz"), 65, r"base/items\.npz: expected an NPZ file"),
    (A, damaged(b"[]"), 65, r"base/spec\.json: expected the spec of recli featurize, found kind None"),
    (A, damaged(b"\xff\xfe"), 65, r"base/spec\.json: expected JSON, found "),
    (A, damaged(b"[" * 100_000 + b"]" * 100_000), 65, r"base/spec\.json: expected JSON, found .*recursion"),
    (
        A,
        damaged(b'{"kind":"spec","version":1,"x":' + b"9" * 10_000 + b"}"),
        65,
        r"base/spec\.json: expected JSON, found ",
    ),
    (A, damaged(b'{"kind":"spec","version":1,"x":NaN}'), 65, r"base/spec\.json: expected JSON, found "),
    (
        A,
        put("kind", value="factors"),
        65,
        r"base/spec\.json: expected the spec of recli featurize, found kind 'factors'",
    ),
    (A, put("version", value=2), 65, r"base/spec\.json: expected spec/1, found version 2: fit it again"),
    (A, put("version", value="1"), 65, r"base/spec\.json: expected spec/1, found version '1'"),
    (A, put("more", value=1), 65, r"base/spec\.json: damaged spec: .*unknown field `more`"),
    (
        A,
        spec(lambda content: content.pop("users")),
        65,
        r"base/spec\.json: damaged spec: .*missing required field `users`",
    ),
    (
        A,
        put(*KINDS, "categories", value=3),
        65,
        r"base/spec\.json: damaged spec: Expected `array`, got `int` - at `\$\.items",
    ),
    *((A, put(*KINDS, "categories", value=some), 65, r"base/spec\.json: damaged spec") for some in ([], ["k1"])),
    *(
        (A, put("items", name, value=value), 65, r"base/spec\.json: damaged spec: ")
        for name, value in [
            *((name, value) for name in ("sparse", "dense") for value in ([], [999], [-5], [10**17], [0, 0])),
            ("names", []),
            ("names", ["a"]),
            ("width", 0),
            ("width", 10**12),
            ("features", []),
        ]
    ),
    # outputs
    ("featurize ratings.csv -o items.csv", nothing, 73, r"items\.csv: expected a folder, found a file"),
    ("featurize ratings.csv -o no/out", nothing, 73, r"no/out: the folder no does not exist"),
    ("featurize ratings.csv -o ''", nothing, 2, "a file name is empty"),
    ("featurize ratings.csv -o -", nothing, 2, "-o -: the output is a folder"),
    ("featurize ratings.csv -o base --apply base", nothing, 73, r"base/.*: the output is also an input"),
    ("featurize -o ./base/ --apply base --items items.csv", nothing, 73, r"base/.*: the output is also an input"),
    ("featurize base -o base", nothing, 73, r"base/interactions\.npz: the output is also an input"),
    ("featurize base/interactions.npz -o base", nothing, 73, r"base/interactions\.npz: the output is also an input"),
    (f"{F} --no-clobber", nothing, 73, r"out/.*: exists already"),
    (f"{F} --stats ratings.csv", nothing, 73, r"ratings\.csv: --stats would replace an input"),
]


@pytest.mark.parametrize(
    ("line", "make", "code", "pattern"), TABLE, ids=[f"{row[2]} {row[0]} {row[3]}" for row in TABLE]
)
def test_an_error_is_one_line_and_the_old_folder_stays(
    line: str, make: Make, code: int, pattern: str, recli: Recli
) -> None:
    shutil.copytree("base", "out")
    for name, content in make().items():
        Path(name).write_bytes(content)
    before = whole()
    got = recli(*shlex.split(line))
    said = [said for said in got.err.splitlines() if not said.startswith("recli featurize: ")]
    assert got.code == code, got.err
    assert len(said) == 1
    assert said[0].startswith("recli: error: ")
    assert re.search(pattern, said[0]), said[0]
    assert got.out == ""
    assert whole() == before


@pytest.mark.parametrize("at", ["items.npz", "spec.json", "report.json"])
def test_a_run_that_fails_while_it_writes_leaves_the_old_folder(
    at: str, recli: Recli, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_write = Folder.write

    def write(self: Folder, fills: Any, content: Any) -> Any:
        def full(file: Any) -> None:
            file.write(b"half")
            raise OSError(28, "No space left on device")

        return whole_write(self, {**fills, at: full}, content)

    monkeypatch.setattr(Folder, "write", write)
    before = whole()
    got = recli("featurize", "ratings.csv", "--where", "rating > 1", "-q", "-o", "base")
    assert (got.code, len(got.err.splitlines())) == (74, 1)
    assert "No space left on device; the old file is intact" in got.err
    assert whole() == before


def test_a_run_that_is_killed_while_it_writes_leaves_the_old_folder() -> None:
    """A SIGKILL at the last file: all others are written, and none is in its place."""
    program = (
        "import os, sys; from recli.io import feature_folder as f; from recli.cli.main import main\n"
        "def die(*_): os.kill(os.getpid(), 9)\n"
        "write = f._write\n"
        "f._write = lambda file, data: die() if b'\"pairs\"' in data else write(file, data)\n"
        "main(['featurize', 'ratings.csv', '--where', 'rating > 1', '-q', '-o', 'base'])"
    )
    before = whole()
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    left = {name: content for name, content in whole().items() if not Path(name).name.startswith(".")}
    assert left == before
    assert len(whole()) > len(left)  # it was in the middle of it
    assert main(["featurize", "ratings.csv", "-q", "-o", "base"]) == 0
    assert {Path(name).name for name in whole() if name.startswith("base/")} == features.FILES


def test_a_column_of_numbers_and_a_text_is_text_and_the_report_says_so(recli: Recli) -> None:
    """Also where the text comes after the rows that polars looks at to tell types."""
    rows = [f"{i},{i % 7}" for i in range(12_000)] + ["12000,n/a"]
    Path("a.csv").write_text("\n".join(["item,price", *rows, ""]))
    assert recli("featurize", "ratings.csv", "--items", "a.csv", "-o", "out").code == 0
    (column,) = features.report("out")["items"]["columns"]
    assert (column["type"], column["transform"]) == ("String", ["categorical"])
    assert "the first other is 'n/a'" in column["why"]


def test_columns_without_a_value_give_nothing(recli: Recli) -> None:
    frame = pl.DataFrame({"item": range(9), "none": [None] * 9, "blank": [" "] * 9, "nan": [float("nan")] * 9})
    frame.write_parquet("a.parquet")
    assert recli("featurize", "ratings.csv", "--items", "a.parquet", "-o", "out").code == 0
    columns = features.report("out")["items"]["columns"]
    assert [(column["column"], column["transform"], column["why"]) for column in columns] == [
        (name, [], "no value") for name in ("none", "blank", "nan")
    ]


def test_rows_that_repeat_others_word_for_word_are_one(recli: Recli) -> None:
    Path("a.csv").write_text(ITEMS + ITEMS.partition("\n")[2])
    got = recli("featurize", "ratings.csv", "--items", "a.csv", "-o", "out")
    assert got.code == 0
    assert "18 items, 2 columns; 9 repeat others word for word" in got.err
    features.assert_same(features.features("out", "item"), features.features("base", "item"))


def test_attributes_of_strangers_and_ids_without_attributes(recli: Recli) -> None:
    """Ids with attributes alone come last; the interactions do not have them."""
    Path("a.csv").write_text("item,price\n77,1\n3,2\n-5,4\n")
    assert recli("featurize", "ratings.csv", "--items", "a.csv", "-o", "out").code == 0
    found, report = features.features("out", "item"), features.report("out")["items"]
    assert features.ids(found) == [*range(9), -5, 77]
    assert found.has_row.tolist() == [id_ in (3, -5, 77) for id_ in features.ids(found)]
    assert (report["without_interactions"], report["without_attributes"]) == (2, 8)
    assert len(features.interactions("out").item_ids) == 9


def test_ids_with_zeros_in_front_are_text(recli: Recli) -> None:
    Path("r.csv").write_text("user,item\n" + "".join(f"0{u},00{i}\n" for u in range(5) for i in range(4)))
    Path("a.csv").write_text("id,price\n" + "".join(f"00{i},{i}\n" for i in range(5)))
    assert recli("featurize", "r.csv", "--items", "a.csv", "-o", "out").code == 0
    assert features.ids(features.features("out", "item")) == ["000", "001", "002", "003", "004"]
    assert features.ids(features.features("out", "user")) == ["00", "01", "02", "03", "04"]


def test_tables_from_stdin_and_a_pipe() -> None:
    line = f"{sys.executable} -m recli featurize - --items <(cat items.csv) -q -o out < ratings.csv"
    subprocess.run(["bash", "-c", line], check=True)
    for role in ("user", "item"):
        features.assert_same(features.features("out", role), features.features("base", role))


def test_indexed_interactions_are_as_good_as_their_table(recli: Recli) -> None:
    """An NPZ, or the folder that it is in: all that needs no times is the same."""
    args = ("--items", "items.csv", "--split", "random", "--weighting", "bm25", "-q")
    table = ("ratings.csv", "--columns", "timestamp=")
    for name, given in (("table", table), ("npz", ["base/interactions.npz"]), ("folder", ["base"])):
        assert recli("featurize", *given, *args, "-o", name).code == 0
    for name in ("npz", "folder"):
        for role in ("user", "item"):
            features.assert_same(features.features(name, role), features.features("table", role))
        for part in ("train", "valid", "test"):
            assert pl.read_parquet(f"{name}/{part}.parquet").equals(pl.read_parquet(f"table/{part}.parquet"))
        one, other = (features.interactions(each) for each in (name, "table"))
        assert [array.tolist() for array in one.matrix] == [array.tolist() for array in other.matrix]


def test_indexed_weights_stay_weights(recli: Recli) -> None:
    assert recli("featurize", "log.csv", "--weights", "view=1,buy=5", "-q", "-o", "weighted").code == 0
    assert recli("featurize", "weighted", "-q", "-o", "again").code == 0
    assert recli("featurize", "weighted", "--apply", "again", "-q", "-o", "later").code == 0
    for folder in ("weighted", "again", "later"):
        found = features.interactions(folder)
        assert found.weighted
        assert set(found.matrix.values.tolist()) == {1, 5}


def test_features_of_no_interactions_are_nothing_to_factorize(recli: Recli) -> None:
    assert recli("featurize", "--apply", "base", "--items", "items.csv", "-q", "-o", "out").code == 0
    got = recli("factorize", "out", "-q", "-o", "m.npz")
    assert (got.code, got.err) == (65, "recli: error: out: no interactions\n")


@pytest.mark.parametrize("how", ["random", "last", "time"])
def test_factorize_takes_the_folder_and_score_its_test(how: str, recli: Recli) -> None:
    assert recli("featurize", "ratings.csv", "--split", how, "-q", "-o", "f").code == 0
    assert recli("factorize", "f", "--rank", 4, "-q", "-o", "m.npz").code == 0
    assert recli("factorize", "f/train.parquet", "--rank", 4, "-q", "-o", "same.npz").code == 0
    assert recli("score", "m.npz", "-k", 3, "--truth", "f/test.parquet", "-q", "-o", "lists.csv").code == 0
    assert recli("score", "same.npz", "-k", 3, "--truth", "f/test.parquet", "-q", "-o", "same.csv").code == 0
    assert Path("lists.csv").read_bytes() == Path("same.csv").read_bytes()


def test_score_folds_in_the_histories_of_held_out_users(recli: Recli) -> None:
    assert recli("featurize", "ratings.csv", "--split", "users", "-q", "-o", "f").code == 0
    assert recli("factorize", "f", "--rank", 4, "-q", "-o", "m.npz").code == 0
    flags = ("--history", "f/test_history.parquet", "--truth", "f/test.parquet")
    assert recli("score", "m.npz", "-k", 3, *flags, "-q", "-o", "lists.csv").code == 0
    lists, test = pl.read_csv("lists.csv"), pl.read_parquet("f/test.parquet")
    assert set(lists["user"]) == set(test["user"])
    assert set(lists["reason"]) == {"history"}
    seen = pl.read_parquet("f/test_history.parquet")
    assert lists.join(seen, on=["user", "item"]).is_empty()
    assert set(test["user"]).isdisjoint(pl.read_parquet("f/train.parquet")["user"])


def test_the_spec_in_the_folder_is_what_the_type_says() -> None:
    """Else the changes above would be refused for what they are not."""
    assert msgspec.convert(features.spec("base"), FittedSpec).items.names == list(
        features.spec("base")["items"]["names"]
    )
