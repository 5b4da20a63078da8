"""What goes wrong is one line on stderr and an exit code, and leaves every file as it was."""

from __future__ import annotations

import io
import json
import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recli.artifacts import Interactions
from recli.errors import DeviceError
from recli.ids import Csr, Ids
from recli.io import write_npz
from tests.cli.conftest import RATINGS
from tests.conftest import Outcome

Recli = Callable[..., Outcome]
Folder = Callable[[], dict[str, bytes]]


def repacked(model: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """The NPZ with one member changed; checksums fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(model)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, change(data) if info.filename == f"{name}.npy" else data)
    return out.getvalue()


def npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=pickled)
    return out.getvalue()


def of_a_terabyte(data: bytes) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (5, 50_000_000_000)})
    return header.getvalue() + data[-60:]


def newer(data: bytes) -> bytes:
    header = json.loads(data[data.index(b"\n") + 1 :])
    return npy(np.frombuffer(json.dumps({**header, "version": 99}).encode(), np.uint8))


@pytest.fixture
def files(model: Path) -> None:
    """Everything that the cases below name, in the working folder."""
    good = model.read_bytes()
    table = io.BytesIO()
    pl.read_csv(io.StringIO(RATINGS)).write_parquet(table)
    nothing = Interactions(
        matrix=Csr(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)),
        user_ids=Ids(np.zeros(0, np.int64)),
        item_ids=Ids(np.zeros(0, np.int64)),
    )
    with open("interactions.npz", "wb") as file:
        write_npz(nothing, file)
    contents: dict[str, str | bytes] = {
        "empty.csv": "",
        "heading.csv": "user,item,rating\n",
        "names.csv": "x,y\n1,2\n",
        "null.csv": "user,item\na,1\n,2\n",
        **{f"{bad or 'blank'}.csv": f"user,item,rating\na,1,3\nb,2,{bad}\n" for bad in ("nan", "inf", "good", "")},
        "negative.csv": "user,item,rating\na,1,3\nb,2,-1\n",
        "nobody.txt": "user\n",
        "truth.csv": "user,item\na,4\nb,1\n",
        "huge.csv": "user,item,rating\na,1,1e38\nb,1,1e38\nb,2,1e38\n",
        "cut.parquet": table.getvalue()[:-200],
        "cut.npz": good[: len(good) // 2],
        "pickled.npz": repacked(good, "P", lambda data: npy(np.array([{}], object), pickled=True)),
        "terabyte.npz": repacked(good, "P", of_a_terabyte),
        "newer.npz": repacked(good, "header", newer),
        "foreign.npz": repacked(good, "header", lambda data: npy(np.arange(3))),
        "old.npz": "the model of last night",
        "old.csv": "the lists of last night",
        "folder/note.md": "no table",
    }
    Path("folder").mkdir()
    for name, content in contents.items():
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


INPUT = [
    ("nowhere.csv", 66, r"nowhere\.csv: no such file"),
    ("'*.tsv'", 66, r"\*\.tsv: no such file"),
    ("folder", 66, r"folder: a folder without .*"),
    ("empty.csv", 65, r"empty\.csv: .* empty file"),
    ("/dev/null", 65, r"/dev/null: .* found nothing"),
    ("heading.csv", 65, r"heading\.csv: no rows"),
    ("ratings.csv --where 'rating > 9'", 65, r"ratings\.csv: no rows are left by --where"),
    ("names.csv", 65, r"names\.csv: no column looks like the user; found x, y: .*--columns user=NAME"),
    ("ratings.csv --columns user=who", 65, r"ratings\.csv: no column 'who' .*--columns.*; found user, item, rating"),
    ("ratings.csv --columns user=item", 65, r"ratings\.csv: .*'item'.*--columns.*"),
    ("ratings.csv --no-header", 65, r"ratings\.csv: no column .* found column_1, column_2, column_3.*"),
    ("ratings.csv --weight w", 65, r"ratings\.csv: no column 'w' \(--weight\); found user, item, rating"),
    ("null.csv", 65, r"null\.csv: column 'user': .*missing.* row 2"),
    ("nan.csv", 65, r"nan\.csv: column 'rating': expected finite numbers, .* row 2.*"),
    ("inf.csv", 65, r"inf\.csv: column 'rating': expected finite numbers, .* row 2.*"),
    ("good.csv", 65, r"good\.csv: column 'rating': expected finite numbers, .* row 2.*"),
    ("blank.csv", 65, r"blank\.csv: column 'rating': expected finite numbers, .* row 2.*"),
    ("negative.csv --weight rating", 65, r"negative\.csv: expected weights of at least 0, found -1 \(--weight.*"),
    ("negative.csv --alpha 2", 65, r"negative\.csv: expected weights of at least 0, found -2 .*--alpha.*"),
    ("cut.parquet", 65, r"cut\.parquet: cannot be read: .*"),
    ("model.npz", 65, r"model\.npz: expected an artifact of kind interactions, found factors"),
    ("interactions.npz", 65, r"interactions\.npz: no interactions"),
    ("ratings.csv --input-format parquet", 65, r"ratings\.csv: cannot be read: .*"),
    ("ratings.csv cut.parquet", 65, r"ratings\.csv .*: expected files of one format, found csv, parquet"),
    ("huge.csv --alpha 1", 70, r".*--alpha.*"),
    ("ratings.csv -", 2, r"- .*cannot be combined.*"),
]
USAGE = [
    ("--columns who", 2, r"--columns who: expected user=NAME.*, found 'who'"),
    ("--columns user=", 2, r"--columns user=: .*"),
    ("--where 'stars > 3'", 2, r"ratings\.csv: --where 'stars > 3': .*stars.*columns are user, item, rating"),
    ("--where 'rating >'", 2, r"ratings\.csv: --where 'rating >': .*"),
    ("--rank 0", 2, r"--rank 0: expected a value from 1 to 16384"),
    ("--rank 20000", 2, r"--rank 20000: expected a value from 1 to 16384"),
    ("--rank many", 2, r"--rank many: .*integer.*"),
    ("--rank 2.5", 2, r"--rank 2\.5: .*integer.*"),
    ("--reg 0", 2, r"--reg 0.*: expected a value above 0 .*"),
    ("--reg nan", 2, r"--reg nan: .*"),
    ("--alpha -1", 2, r"--alpha -1.*: expected a value from 0 .*"),
    ("--alpha 1 --weight rating", 2, r"--alpha and --weight exclude each other"),
    ("--seed -1", 2, r"--seed -1: expected a value from 0 .*"),
    ("--iterations 0", 2, r"--iterations 0: expected a value from 1 .*"),
    ("--solver best", 2, r"--solver best: expected one of ials, .*"),
    ("--loss none", 2, r"--loss none: expected one of rendle, hu"),
    ("--duplicates maybe", 2, r"--duplicates maybe: expected one of last, first, .*"),
    ("--threads 0", 2, r"--threads 0: expected a value from 1 .*"),
    ("--memory-limit plenty", 2, r"--memory-limit plenty: expected a size such as 4G.*"),
    ("--memory-limit 1M", 75, r"rank 64 needs about .*, --memory-limit is 1M: give --memory-limit .*"),
    ("--device tpu", 2, r"--device tpu: expected one of auto, cpu, gpu.*"),
    ("--log-format xml", 2, r"--log-format xml: expected text or json"),
    ("--input-format xml", 2, r"--input-format xml: expected parquet, csv, .*"),
    ("--bogus", 2, r"No such option: --bogus.* \(see recli factorize --help\)"),
    ("--ran 3", 2, r"No such option: --ran.*--rank.*"),  # no abbreviations: a later flag would change their meaning
    ("-o", 2, r".*-o.* requires an argument.*"),
]
OUTPUT = [
    ("-o nowhere/x.npz", 73, r"nowhere/x\.npz: the folder nowhere does not exist.*"),
    ("-o folder", 73, r"folder: expected a file to write, found a folder"),
    ("-o folder/", 73, r"folder/: expected a file to write, found a folder"),
    ("-o old.npz --no-clobber", 73, r"old\.npz: exists already \(--no-clobber\)"),
    ("-o ''", 2, r"a file name is empty.*"),
    ("-o x.parquet", 2, r"-o x\.parquet: a model is an NPZ file.*"),
    ("-o - --json", 2, r"--json and -o - cannot share stdout.*"),
    ("-o - --stats -", 2, r"-o - and --stats - cannot share stdout.*"),
    ("-o x.npz --stats nowhere/s.json", 73, r"nowhere/s\.json: the folder nowhere does not exist.*"),
    ("-o x.npz --stats ratings.csv", 73, r"ratings\.csv: --stats would replace an input.*"),
    ("-o x.npz --stats x.npz", 73, r"x\.npz: two outputs .* same name"),
    ("-o x.npz --stats folder", 73, r"folder: expected a file to write, found a folder"),
]
SCORE = [
    ("nowhere.npz", 66, r"nowhere\.npz: no such file"),
    ("''", 2, r"a file name is empty.*"),
    ("ratings.csv", 65, r"ratings\.csv: expected .*NPZ.*"),
    ("cut.npz", 65, r"cut\.npz: .*truncated.*"),
    ("pickled.npz", 65, r"pickled\.npz: array P: .*pickled objects.*"),
    ("terabyte.npz", 65, r"terabyte\.npz: array P: .*1000000000000 bytes; 60 are there"),
    ("newer.npz", 65, r"newer\.npz: expected factors/1 .*, found factors/99.*"),
    ("interactions.npz", 65, r"interactions\.npz: expected an artifact of kind factors, found interactions"),
    ("foreign.npz", 65, r"foreign\.npz: expected an NPZ written by recli.*"),
    ("model.npz -k 6", 2, r"-k 6: the model has 5 items: give at most -k 5"),
    ("model.npz -k 6 --dry-run", 2, r"-k 6: the model has 5 items: give at most -k 5"),
    ("model.npz -k 0", 2, r"--?k 0: expected a value from 1 .*"),
    ("model.npz --users nobody.txt", 65, r"nobody\.txt: no users"),
    ("model.npz --users empty.csv", 65, r"empty\.csv: .* empty file"),
    ("model.npz --users nowhere.txt", 66, r"nowhere\.txt: no such file"),
    ("model.npz --users ''", 2, r"a file name is empty.*"),  # and does not score everyone
    ("model.npz --truth names.csv", 65, r"names\.csv: no column looks like the user; .*"),
    ("model.npz --truth ''", 2, r"a file name is empty.*"),
    ("model.npz --truth-where 'rating > 3'", 2, r"--truth-where 'rating > 3': there is no --truth.*"),
    ("- --users -", 2, r"only one of FACTORS, --users and --truth can be - \(stdin\)"),
    ("model.npz --output-format xml", 2, r"--output-format xml: expected parquet, csv or ndjson"),
    ("model.npz -o lists.xls", 2, r"-o lists\.xls: expected a suffix out of .*"),
    ("model.npz -o model.npz --output-format csv", 73, r"model\.npz: the output is also an input.*"),
    ("model.npz -o truth.csv --truth truth.csv", 73, r"truth\.csv: the output is also an input.*"),
    ("model.npz --truth truth.csv --stats ./truth.csv", 73, r"\./truth\.csv: --stats would replace an input.*"),
    ("model.npz --memory-limit 1M", 75, r".*--memory-limit.*"),
    ("model.npz more.npz", 2, r".*more\.npz.*"),
]
CASES = [
    *((f"factorize {case} -o old.npz", code, line) for case, code, line in INPUT),
    *((f"factorize ratings.csv -o old.npz {case}", code, line) for case, code, line in USAGE),
    *((f"factorize ratings.csv {case}", code, line) for case, code, line in OUTPUT),
    *((f"score -o old.csv -k 2 {case}", code, line) for case, code, line in SCORE),
]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("command", "code", "line"), CASES, ids=[case[0] for case in CASES])
def test_an_error_is_one_line_and_every_file_stays_as_it_was(
    command: str, code: int, line: str, recli: Recli, folder: Folder
) -> None:
    before = folder()
    outcome = recli(*shlex.split(command), "-q")
    assert re.fullmatch(rf"recli: error: {line}\n", outcome.err), outcome.err
    assert outcome.code == code
    assert outcome.out == ""
    assert folder() == before


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("", r"Missing command; the commands are factorize, score \(see recli --help\)"),
        ("recommend", r"No such command 'recommend'.*; the commands are factorize, score \(see recli --help\)"),
        ("--rank 3", r"No such option: --rank.*"),
        ("factorize", r"Missing argument 'INPUT' \(see recli factorize --help\)"),
        ("score", r"Missing argument 'FACTORS' \(see recli score --help\)"),
    ],
)
def test_a_command_line_without_sense_says_where_help_is(command: str, line: str, recli: Recli) -> None:
    outcome = recli(*command.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert re.fullmatch(rf"recli: error: {line}\n", outcome.err), outcome.err


def test_a_gpu_that_is_not_there_is_said_and_nothing_else_is_used(
    ratings: Path, recli: Recli, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recli.kernels.gpu_problem", lambda *number: "no driver here")
    before = folder()
    outcome = recli("factorize", ratings, "--device", "gpu", "-q")
    assert outcome == (DeviceError.exit_code, "", "recli: error: --device gpu: no driver here; use --device cpu\n")
    assert folder() == before


def test_users_who_have_everything_get_short_lists_and_it_is_said(model: Path, recli: Recli) -> None:
    outcome = recli("score", model, "-k", 3, "-o", "lists.csv")
    rows = pl.read_csv("lists.csv")
    assert outcome.code == 0
    assert dict(rows.group_by("user").len().iter_rows()) == {"a": 2, "b": 2, "c": 3, "e": 3}  # d has all five
    assert "recli score: 3 lists are shorter than 3: nothing else is left to recommend\n" in outcome.err


def test_users_whom_the_model_does_not_know_get_popular_items_and_it_is_said(model: Path, recli: Recli) -> None:
    Path("some.txt").write_text("zoe\na\nyan\n")
    outcome = recli("score", model, "-k", 2, "--users", "some.txt", "-o", "lists.csv")
    rows = pl.read_csv("lists.csv")
    assert outcome.code == 0
    assert rows.filter(reason="popular")["user"].to_list() == ["zoe", "zoe", "yan", "yan"]
    assert "users that are not in the model get the most popular items: 2\n" in outcome.err
