"""What finetune refuses: one line that says where and what, the exit code of its kind, the old delta intact."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recli.io.atomic import output
from tests.cli.made import fill, whole
from tests.conftest import Outcome

Recli = Callable[..., Outcome]
Change = Callable[[Any], Any]
USERS, ITEMS, RANK = 12, 9, 4
HEAD = "user,item,rating\n"
OLD = [(u, i, 1 + u * i % 5) for u in range(USERS) for i in range(ITEMS) if (u + i) % 3]
NEW = [(u, i, 1 + (u + 2 * i) % 5) for u in range(USERS) for i in range(ITEMS) if not (u + i) % 3]
LATER = "nina,i0,4\nnina,i3,2\nu0,jam,5\nu4,jam,1\n"


def table(rows: list[tuple[int, int, int]]) -> str:
    return HEAD + "".join(f"u{user},i{item},{value}\n" for user, item, value in rows)


TABLES = {
    "ratings.csv": table(OLD),
    "new.csv": table(NEW) + LATER,
    "ones.csv": table([(user, item, 1) for user, item, _ in NEW]),
    "labels.csv": table([(user, item, (user + item) // 3 % 2) for user, item, _ in NEW]),
    "strangers.csv": HEAD + "x,y,1\nz,w,2\n",
    "huge.csv": HEAD + "u0,i0,3e38\nu1,i2,3e38\nu2,i1,-3e38\nu3,i3,1\n",
    "heavy.csv": HEAD + "u0,i0,3e38\nu1,i2,3e38\nu2,i1,3e38\nu3,i3,1\n",
    "items.csv": "item,price,kind\n" + "".join(f"i{i},{i * 1.5},k{i % 3}\n" for i in range(ITEMS)) + "cold,3,k1\n",
    "sizes.csv": "item,size\n" + "".join(f"i{i},{i % 4}\n" for i in range(ITEMS)),
    "hollow/notes.md": "",
    "users.txt": "\n".join(f"u{user}" for user in range(USERS)),
    "none.csv": HEAD,
    "blank.csv": "",
    "names.csv": "who,what\n1,2\n",
    "nan.csv": HEAD + "u0,i0,1\nu1,i1,NaN\n",
    "inf.csv": HEAD + "u0,i0,1\nu1,i1,-inf\n",
    "large.csv": HEAD + "u0,i0,1\nu1,i1,1e99\n",
    "nobody.csv": HEAD + "u0,i0,1\n,i1,2\n",
    "negative.csv": HEAD + "u0,i0,1\nu1,i1,-2\n",
    "twice.csv": HEAD + "u0,i0,1\nu0,i0,2\n",
}
COMMANDS = [
    *(f"factorize ratings.csv --rank 4 --solver {solver} -o {solver}.npz" for solver in ("ials", "als", "svd")),
    "factorize ratings.csv --solver pop -o pop.npz",
    "factorize ratings.csv --rank 4 --seed 1 -o other.npz",
    "featurize ratings.csv --items items.csv -o attributes",
    "featurize ratings.csv --items sizes.csv -o sizes",
    "featurize ratings.csv -o bare",
    "finetune ials.npz --adapter features --features attributes -o features.npz",
    "finetune ials.npz new.csv --adapter features --fit gradient --features attributes -o mapped.npz",
    "finetune ials.npz new.csv -o rows.npz",
    "finetune ials.npz new.csv --adapter lora --rank 2 -o lora.npz",
    *(f"finetune ials.npz new.csv --adapter {name} -o {name}.npz" for name in ("bilinear", "scale", "bias", "head")),
    "finetune ials.npz new.csv --adapter-file rows.npz --adapter bias -o second.npz",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, attributes, deltas, and what they were made of."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    rows = {"u": rng.normal(size=(USERS, RANK)), "i": rng.normal(size=(ITEMS, RANK)), "w": rng.normal(size=(ITEMS, 5))}
    for name, array in rows.items():
        np.save(folder / f"{name}.npy", array)
    np.savez(folder / "net.npz", **rows)
    fill(folder, TABLES, COMMANDS)
    return folder


@pytest.fixture(autouse=True)
def here(_clean: None, made: Path) -> None:
    shutil.copytree(made, ".", dirs_exist_ok=True)


F, G = "finetune ials.npz new.csv -o out.npz", "finetune ials.npz new.csv -o out.npz --fit gradient"
A, P, L = (f"finetune {base}.npz -o out.npz" for base in ("ials", "pop", "als"))
M = "finetune ials.npz --merge -o out.npz"
R = f"{M} --adapter-file rows.npz"
S = "score ials.npz -k 2 -o out.csv"
N = "finetune --base-users u.npy --base-items i.npy -o out.npz"
Z = "finetune --base-users net.npz:u --base-items net.npz:i --merge -o"
X = "finetune other.npz --adapter-file rows.npz -o out.npz"
H = f"{S} --adapter head.npz"
C = "finetune ials.npz --adapter features -o out.npz --features"
D = f"{F} --adapter head"
TINY = ("rows", "lora", "bilinear", "scale", "bias", "head", "full")  # 1% of 84 numbers are none
GRADIENT = ("--loss bpr", "--negatives 2", "--batch 9", "--dropout 0.5", "--clip 1", "--l2 1", "--checkpoint-every 1")
BEYOND = ("--adapter tree", "--loss hinge", "--optimizer lion", "--sampling zipf", "--metric mae", "--epochs 0")
BELOW = ("--batch 0", "--dropout 1", "--stay -1", "--device tpu", "--rank 0", "--seed -1", "--learning-rate 0")
# exit code, what is said, and the commands of which it is, divided by |; %flag is the last of a command's flags
TABLE: list[tuple[int, str, str]] = [
    # no input
    (66, r"no\.npz: no such file", f"finetune no.npz new.csv -o out.npz | {F} --valid no.npz | {F} --old no.npz"),
    (66, r"no\.npz: no such file", f"{F} --adapter-file no.npz | {S} --adapter no.npz"),
    (66, r"no(where\*)?\.csv: no such file", f"{A} no.csv | {A} nowhere*.csv"),
    (66, r"no/\w+\.npz: no such file", f"{C} no | {S} --adapter features.npz --features no"),
    (66, r"no\.(npy|txt): no such file", f"{N} --merge --base-users no.npy | {N} --merge --base-user-ids no.txt"),
    # the new data
    (65, r"none\.csv: no rows", f"{A} none.csv | {F} --valid none.csv | {F} --old none.csv"),
    (65, r"blank\.csv: expected a table, found an empty file", f"{A} blank.csv"),
    (65, r"new\.csv: no rows are left by --where", f"{F} --where 'rating > 9'"),
    (65, r"strangers\.csv: none of its 2 users and 2 items is in the model: ", f"{A} strangers.csv"),
    (65, r"strangers\.csv: no pair of a user and an item that", f"{F} --valid strangers.csv | {F} --old strangers.csv"),
    (65, r"names\.csv: no column looks like the user; found who, what: name it", f"{A} names.csv"),
    (65, r"nobody\.csv: column 'user': .*missing, first in row 2", f"{A} nobody.csv"),
    (65, r"csv: column 'rating': .*finite numbers.*row 2", f"{A} nan.csv | {A} inf.csv | {A} large.csv | {L} nan.csv"),
    (65, r"negative\.csv: expected weights.*-2", f"{A} negative.csv --weight rating"),
    (65, r"new\.csv: no column 'no' \(--weight\); found user, item, rating", f"{F} --weight no"),
    (65, r"twice\.csv: ", f"{A} twice.csv --duplicates error"),
    (66, r"hollow: ", f"{A} hollow"),
    (65, r"other\.npz: .*interactions, found factors", f"{A} other.npz"),
    (65, r"ones\.csv: all \d+ labels are 1: .*: give --negatives", f"{A} ones.csv --adapter head --negatives 0"),
    # numbers that overflow
    (70, "overflows float32: are the new values as large as", f"{L} huge.csv | {A} heavy.csv --weight rating"),
    (70, "overflows float32: are the new values as large as", "finetune svd.npz huge.csv -o out.npz"),
    (70, r"in step \d+ \(epoch 1\) at learning rate .*: give a smaller", f"{L} huge.csv --fit gradient"),
    (70, r"in step \d+ \(epoch 1\) at learning rate .*: give a smaller", f"{L} huge.csv --adapter bias --fit gradient"),
    # the base
    (65, r"new\.csv: expected a model that implicit or recli saved", "finetune new.csv new.csv -o out.npz"),
    (65, r"rows\.npz: .*kind factors, found adapter", "finetune rows.npz new.csv -o out.npz"),
    (65, r"rank 0 \(solver pop\): .*but --adapter bias can", f"{P} new.csv | {P} new.csv --adapter head"),
    (65, r"rank 0 \(solver pop\): .*but --adapter bias can", f"{P} new.csv --dry-run | {P} new.csv --adapter scale"),
    (2, r"--fit closed: the base .*: give --fit gradient", f"{P} new.csv --fit closed | {N} new.csv --fit closed"),
    (2, "--rank 5: the model has rank 4: give at", f"{F} --adapter lora --rank 5 | {F} --adapter bilinear --rank 5"),
    (2, "--rank 5: the model has rank 4: give at", f"{F} --dry-run --adapter lora --rank 5"),
    (65, r"w\.npy: .*rows of 4 numbers.*found 5", f"{N} --merge --base-items w.npy"),
    (65, r"users\.txt: .*expected 9 ids, .*found 12", f"{N} --merge --base-item-ids users.txt"),
    (65, r"net\.npz: array no: no such array; found i, u, w", f"{N} --merge --base-items net.npz:no"),
    # deltas that are not for what comes before them
    (65, r"rows\.npz: it is an adapter for another base: apply it to", "score other.npz --adapter rows.npz -o out.csv"),
    (65, r"rows\.npz: it is an adapter for another base: apply it to", f"{X} new.csv | {X} --merge"),
    (65, r"second\.npz: .* the base and 1 adapter.* before it, found 0", f"{M} --adapter-file second.npz"),
    (65, r"second\.npz: .*: give them in order", f"{M} --adapter-file second.npz --adapter-file rows.npz"),
    (65, r"second\.npz: .*: give them in order", f"{F} --adapter-file second.npz | {S} --adapter second.npz"),
    (65, r"second\.npz: .*: give them in order", f"{S} --adapter second.npz --adapter rows.npz"),
    (65, r"second\.npz: it was trained on other adapters before it", f"{S} --adapter lora.npz --adapter second.npz"),
    (65, r"rows\.npz: .*: give them in order", f"{S} --adapter rows.npz --adapter rows.npz"),
    (65, r"other\.npz: .*kind adapter, found factors", f"{F} --adapter-file other.npz | {S} --adapter other.npz"),
    (65, r"new\.csv: expected one local NPZ file of adapter", f"{F} --adapter-file new.csv | {S} --adapter new.csv"),
    (2, r"--merge: head\.npz is a head.*: give it to recli score --adapter", f"{M} --adapter-file head.npz"),
    (2, "--adapter-file: a head can only be the last adapter", f"{F} --adapter-file head.npz"),
    (2, r"--adapter-file rows\.npz: nothing can come behind", f"{M} --adapter-file head.npz --adapter-file rows.npz"),
    (2, r"--adapter rows\.npz: nothing can come behind a head", f"{S} --adapter head.npz --adapter rows.npz"),
    # attributes
    (2, "no attributes: give --features FOLDER", f"{F} --adapter features"),
    (66, r"new\.csv/users\.npz: no such file", f"{C} new.csv"),
    (65, r"no attributes of users or items", f"{C} bare"),
    (2, "--fit gradient: .*NEW", f"{C} attributes --fit gradient"),
    (2, "%flag: a ridge solves features at once", f"{C} attributes --stay 1 | {C} attributes --epochs 2"),
    (2, "--trainable", f"{C} attributes --trainable 1%"),
    (65, r"sizes/items\.npz: its columns are not those that", f"{S} --adapter features.npz --features sizes"),
    (2, "--features: none of the adapters maps attributes", f"{S} --adapter rows.npz --features attributes"),
    (2, "--features: there is no --adapter that maps attributes", f"{S} --features attributes"),
    # flags that contradict each other, or would do nothing
    (2, "--old: not for --adapter head", f"{D} --old new.csv"),
    (2, "--sampling: --negatives 0 draws none", f"{G} --loss logistic --negatives 0 --sampling uniform"),
    (2, r"labels\.csv: 18 values of 0 or less, which looks like labels", f"{A} labels.csv --adapter head"),
    (
        2,
        r"labels\.csv: [0-9]+ values? of 0 or less, which looks like",
        f"{A} labels.csv --fit gradient --loss logistic",
    ),
    (2, r"labels\.csv: [0-9]+ values? of 0 or less, which", f"{A} ones.csv --adapter head --valid labels.csv"),
    (2, "nothing to do: give MODEL and NEW, or --base-users and --base-items", "finetune -o out.npz"),
    (2, "nothing to learn from: give NEW", f"{A} | {A} --adapter bias"),
    (2, r"--merge: it trains nothing: leave new\.csv out", f"{R} new.csv"),
    (2, "--merge: there is nothing to merge: give --adapter-file", M),
    (2, "--adapter: --merge trains nothing; --adapter-file names what is to be", f"{R} --adapter rows"),
    (2, "%flag: --merge trains nothing: leave", f"{R} --epochs 3 | {R} --loss bpr | {R} --valid none | {R} --seed 2"),
    (2, "--base-users and --base-items: give both", "finetune --base-users u.npy new.csv -o out.npz"),
    (2, "--base-user-ids: there are no --base-users and --base-items for it", f"{F} --base-user-ids users.txt"),
    (2, "a file name is empty", f"{F} --adapter-file '' | {N} --merge --base-users '' | {C} '' | {F} --old ''"),
    (2, "a file name is empty", f"{S} --adapter features.npz --features '' | {S} --adapter ''"),
    (2, "%flag: not for --adapter rows, but", f"{F} --rank 3 | {F} --hidden 3 | {F} --reg 3 | {F} --features sizes"),
    (2, "%flag: not for --adapter head, whose rows are", f"{D} --stay 1 | {D} --dropout 0.1"),
    (2, "--loss bpr: a head predicts probabilities: --loss logistic", f"{D} --loss bpr"),
    (2, "%flag [a-z@10]+: a head is measured by logloss", f"{D} --metric ndcg@10 | {F} --metric logloss"),
    (2, "--hidden and --trainable exclude each other", f"{D} --hidden 3 --trainable 5%"),
    (2, "--rank and --trainable exclude each other", f"{F} --adapter lora --rank 3 --trainable 5%"),
    (2, "--trainable .*: expected a share", f"{F} --trainable 0 | {F} --trainable 200% | {F} --trainable nan%"),
    (2, "--trainable 1%: ", " | ".join(f"{F} --trainable 1% --adapter {name}" for name in TINY)),
    (2, "--fit closed: --adapter scale has no closed form", f"{F} --fit closed --adapter scale"),
    (2, "%flag: --fit closed solves, and takes no", " | ".join(f"{F} --fit closed {flag}" for flag in GRADIENT)),
    (2, "%flag: .*closed form here.*: leave it out, or give", " | ".join(f"{F} {flag}" for flag in GRADIENT)),
    (2, "--momentum: for --optimizer sgd, not adam", f"{G} --momentum 0.5"),
    (2, "--negatives 0: --loss (softmax|bpr) compares pairs", f"{G} --negatives 0 | {G} --loss bpr --negatives 0"),
    (2, "%flag: there is no --valid for it", f"{G} --valid none --metric ndcg@10 | {G} --valid none --patience 3"),
    (2, "%flag .*%: expected a file, or a share", f"{F} --valid 0% | {F} --valid 200% | {F} --valid x%"),
    (2, "--checkpoint-every 0: expected a value from 1 up", f"{G} --checkpoint-every 0"),
    (2, "a checkpoint lies beside the output", "finetune ials.npz new.csv --fit gradient -o - --checkpoint-every 1"),
    (2, "%flag .*: expected ", " | ".join(f"{F} {flag}" for flag in BEYOND + BELOW)),
    (2, "--memory-limit lots: expected a size such as 4G", f"{F} --memory-limit lots | {R} --memory-limit lots"),
    (
        2,
        "%flag does not go with a head",
        f"{H} --explain 2 | {H} --history new.csv | {H} --items items.csv --max-per kind=1",
    ),
    # stdin once
    (2, r"only one of .* can be - \(stdin\)", "finetune - - -o out.npz | score - --adapter - -o out.csv"),
    (2, r"only one of .* can be - \(stdin\)", f"{A} - --valid - | {A} - --old - | {A} - --adapter-file -"),
    (2, r"only one of .* can be - \(stdin\)", f"{N} - --base-user-ids -"),
    # the device and the machine
    (69, "--device gpu:1: no driver; use --device cpu", f"{F} --device gpu:1 | {R} --device gpu:1"),
    (75, r"--memory-limit is 10M: give --memory-limit [0-9.]+G", f"{F} --memory-limit 10M | {R} --memory-limit 10M"),
    # outputs
    (2, r"-o out\.csv: it is an NPZ file: give it a name that ends in \.npz", "finetune ials.npz new.csv -o out.csv"),
    (73, r"gone/out\.npz: the folder gone does not exist", "finetune ials.npz new.csv -o gone/out.npz"),
    (73, "expected a file to write, found a folder", "finetune ials.npz new.csv -o ."),
    (73, r"out\.npz: exists already \(--no-clobber\)", f"{F} --no-clobber | {R} --no-clobber"),
    (73, "is also an input", f"finetune ials.npz new.csv -o ials.npz | {F} --valid other.npz -o ./other.npz"),
    (73, "is also an input", "finetune ials.npz new.csv --adapter-file rows.npz -o rows.npz"),
    (73, "is also an input", "finetune ials.npz --adapter-file rows.npz --merge -o rows.npz"),
    (73, "is also an input", "finetune ials.npz attributes -o attributes/interactions.npz"),
    (73, "is also an input", "finetune ials.npz --adapter features --features attributes -o attributes/users.npz"),
    (73, "is also an input", f"{N} --merge -o u.npy | {Z} net.npz"),
    (73, "is also an input", "score ials.npz --adapter rows.npz -k 2 --output-format csv -o rows.npz"),
    (
        73,
        "is also an input",
        f"{S} --adapter features.npz --features attributes --output-format csv -o attributes/items.npz",
    ),
    (73, r"out\.npz: two outputs of this run have the same name", f"{F} --stats out.npz"),
    (73, "--stats would replace an input", f"{F} --stats new.csv | {F} --stats ials.npz | {R} --stats rows.npz"),
    (73, "--stats would replace an input", f"{N} --merge --stats i.npy | {Z} out.npz --stats net.npz"),
    (73, "--stats would replace an input", f"{C} attributes --stats attributes/users.npz"),
]
CASES = [(line.strip(), code, pattern) for code, pattern, lines in TABLE for line in lines.split(" | ")]


@pytest.mark.parametrize(("line", "code", "pattern"), CASES, ids=[f"{code} {line}" for line, code, _ in CASES])
def test_an_error_is_one_line_and_the_old_files_stay(
    line: str, code: int, pattern: str, recli: Recli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recli.kernels.gpu_problem", lambda number: "no driver")  # also where there is one
    for name in ("out.npz", "out.csv"):
        Path(name).write_bytes(b"the output of last night")
    before = whole()
    got = recli(*shlex.split(line))
    said = [said for said in got.err.splitlines() if not said.startswith(("recli finetune: ", "recli score: "))]
    assert got.code == code, got.err
    assert len(said) == 1, got.err
    assert said[0].startswith("recli: error: ")
    assert re.search(pattern.replace("%flag", (re.findall(r"--[\w-]+", line) or [""])[-1]), said[0]), said[0]
    assert got.out == ""
    assert whole() == before


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def nan(array: Any) -> Any:
    return np.full_like(array, np.nan)


def text(value: str) -> Change:
    return lambda old: np.frombuffer(value.encode(), np.uint8)


DELTA = Path("rows.npz")
ASCENDING = "array users: expected ascending numbers"
FLOAT32, FINITE, MISSING = "expected float32", "expected finite numbers", "is missing"
# a delta, and its arrays with what becomes of them (None: they are left out); what is said
CHANGED: list[tuple[str, dict[str, Change | None], str]] = [
    (
        "rows",
        {"header": lambda old: np.append(old[:-2], [ord("9"), old[-1]]).astype(np.uint8)},
        "found adapter/9: upgrade",
    ),
    ("rows", {"part_P": lambda old: old[1:]}, f"array P: {FLOAT32}"),
    ("rows", {"part_Q": lambda old: old.astype(np.float64)}, f"array Q: {FLOAT32}"),
    ("rows", {"part_P": None}, f"array part_P {MISSING}"),
    ("rows", {"part_users": None}, f"array part_users {MISSING}"),
    ("rows", {"seen_indptr": None}, f"array seen_indptr {MISSING}"),
    ("rows", {"P": None}, f"array P {MISSING}"),
    ("rows", {"chain_utf8": None, "chain_offsets": None}, f"chain.* {MISSING}"),
    ("rows", {"part_P": nan}, f"array P: {FINITE}"),
    ("rows", {"P": nan}, f"array P: {FINITE}"),
    ("rows", {"seen_values": nan}, f"array seen_values: {FINITE}"),
    ("lora", {"part_A_P": lambda old: old + 3e38, "part_B_P": lambda old: old + 3e38}, "overflows float32"),
    ("rows", {"new_user_ids_utf8": text("u10"), "new_user_ids_offsets": lambda old: old * 3 // 4}, "new_user_ids"),
    ("rows", {"new_item_ids_utf8": text("i1"), "new_item_ids_offsets": lambda old: old * 2 // 3}, "new_item_ids"),
    ("rows", {"new_user_ids_utf8": lambda old: old.astype(np.int64)}, "new_user_ids"),
    ("rows", {name: lambda old: old[:, :3].copy() for name in "PQ"}, "rows of 4 numbers, as the model has, found 3"),
    ("rows", {"seen_indptr": lambda old: old[:-1]}, "array seen_indptr: "),
    ("rows", {"seen_indices": lambda old: old + 2}, "array seen_indices: "),
    ("rows", {"part_users": lambda old: old + 9}, ASCENDING),
    ("rows", {"part_users": lambda old: old - 1}, ASCENDING),
    ("rows", {"part_users": lambda old: old[::-1].copy()}, ASCENDING),
    ("rows", {"adapter_utf8": text("rats")}, "adapter: expected one of bias, rows, .*found 'rats'"),
    ("rows", {"adapter_utf8": text("lora")}, f"array part_[AB]_[PQ] {MISSING}"),
    ("lora", {"part_B_P": lambda old: old[:1]}, f"array [AB]_P: {FLOAT32}"),
    ("lora", {"part_A_Q": nan}, f"array A_Q: {FINITE}"),
    ("bilinear", {"part_A": lambda old: old[:3]}, f"array A: {FLOAT32}"),
    ("bilinear", {"part_B": nan}, f"array B: {FINITE}"),
    ("scale", {"part_m": lambda old: old[:, :3].copy()}, f"array m: {FLOAT32}"),
    ("bias", {"part_b": lambda old: old[0]}, f"array b: {FLOAT32}"),
    ("bias", {"part_b_v": None}, f"array part_b_v {MISSING}"),
    ("mapped", {"part_D_item": lambda old: old[:, 1:].copy()}, f"array D_item: {FLOAT32}"),
    ("mapped", {"part_F_item_values": None}, f"array part_F_item_values {MISSING}"),
    ("mapped", {"part_F_item_indices": lambda old: old + 1}, "F_item_indices: "),
    ("head", {"part_w": lambda old: old[1:]}, f"array w: {FLOAT32}"),
    ("head", {"part_V": nan}, f"array V: {FINITE}"),
    ("head", {"part_o": None}, f"array part_o {MISSING}"),
    ("head", {"part_scale": np.zeros_like}, "array scale: expected numbers above 0"),
]
# other bytes in the place of a delta
REPLACED: list[tuple[Callable[[], bytes], str]] = [
    (lambda: DELTA.read_bytes()[:-300], "expected an NPZ file, found .*a truncated one"),
    (lambda: DELTA.read_bytes()[:900], "expected an NPZ file, found .*a truncated one"),
    (lambda: b"", "empty file"),
    (lambda: npz(x=np.ones(3)), "expected an NPZ written by recli, found no header"),
    (lambda: npz(header=np.array([{}], object)), "pickled objects, which are never loaded"),
]


def changed(name: str, changes: dict[str, Change | None]) -> bytes:
    with np.load(f"{name}.npz") as arrays:
        found = dict(arrays)
    assert changes.keys() <= found.keys()
    for array, change in changes.items():
        old = found.pop(array)
        if change is not None:
            found[array] = change(old)
    return npz(**found)


def assert_refused(content: bytes, pattern: str, recli: Recli) -> None:
    """By all that read deltas."""
    Path("bad.npz").write_bytes(content)
    Path("out.npz").write_bytes(b"the output of last night")
    before = whole()
    for line in (
        f"{S} --adapter bad.npz",
        "score ials.npz --adapter bad.npz --pairs new.csv -o out.csv",
        "score ials.npz --adapter bad.npz --index made.npz -o out.csv",
        f"{M} --adapter-file bad.npz",
        f"{F} --adapter-file bad.npz --adapter bias",
    ):
        got = recli(*line.split(), "-q")
        assert (got.code, got.err.count("\n")) == (65, 1), (line, got.err)
        assert re.match(rf"recli: error: bad\.npz: .*{pattern}", got.err), got.err
    assert whole() == before


@pytest.mark.parametrize(("name", "changes", "pattern"), CHANGED)
def test_a_delta_with_other_arrays_is_refused(
    name: str, changes: dict[str, Change | None], pattern: str, recli: Recli
) -> None:
    assert_refused(changed(name, changes), pattern, recli)


@pytest.mark.parametrize(("make", "pattern"), REPLACED)
def test_what_is_no_delta_is_refused(make: Callable[[], bytes], pattern: str, recli: Recli) -> None:
    assert_refused(make(), pattern, recli)


def test_a_bit_that_flips_is_noticed_wherever_it_is(recli: Recli) -> None:
    """In rows, ids, pairs and the chain, which neither zip's directory nor NumPy's headers have."""
    with np.load(DELTA) as arrays:
        members = {
            name: arrays[name].tobytes() for name in ("part_P", "Q", "new_user_ids_utf8", "seen_indices", "chain_utf8")
        }
    for name, content in members.items():
        data = bytearray(DELTA.read_bytes())
        data[data.index(content) + len(content) // 2] ^= 1
        assert_refused(bytes(data), f"array {name}: ", recli)


def test_a_map_that_is_damaged_is_refused_where_it_maps(recli: Recli) -> None:
    for name, change in {"short": lambda old: old[1:], "nan": nan}.items():
        Path(f"{name}.npz").write_bytes(changed("features", {"part_W_item": change}))
        got = recli(*f"{S} --adapter {name}.npz --features attributes -q".split())
        assert got.code == 65
        assert re.fullmatch(r"recli: error: [\w./]+: .*array part_W_item: expected .*\n", got.err), got.err


def test_biases_of_a_base_without_any_start_from_zero(recli: Recli) -> None:
    """Also of a base that has nothing else."""
    for base in ("ials", "pop"):
        got = recli("finetune", f"{base}.npz", "new.csv", "--adapter", "bias", "-q", "-o", "out.npz")
        assert got == (0, "", "")
        with np.load("out.npz") as arrays:
            assert not arrays["b_u"].any()
            assert arrays["part_b_v"].any()


def test_labels_of_both_kinds_are_enough_where_those_held_out_are_of_one(recli: Recli) -> None:
    got = recli(*f"{L} labels.csv --adapter head --negatives 0 --valid ones.csv -q".split())
    assert got == (0, "", "")


def test_a_run_that_diverges_keeps_the_old_delta_and_the_last_good_state(recli: Recli) -> None:
    Path("out.npz").write_bytes(old := Path("rows.npz").read_bytes())
    got = recli(*f"{G} --optimizer sgd --learning-rate 1e6 --epochs 3 -q".split())
    assert (got.code, got.err.count("\n")) == (70, 1)
    assert re.search(r"in step \d+ \(epoch \d\) .*; the state after epoch \d is in out\.last-good\.npz$", got.err), (
        got.err
    )
    assert Path("out.npz").read_bytes() == old
    assert recli(*f"{M} --adapter-file out.last-good.npz -q".split()) == (0, "", "")


def test_a_full_disk_leaves_the_old_delta(recli: Recli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(artifact: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recli.io.write_npz", full)
    Path("out.npz").write_bytes(b"the output of last night")
    before = whole()
    for line in (F, R):
        got = recli(*line.split(), "-q")
        assert got.code == 74
        assert got.err == "recli: error: out.npz: writing failed: No space left on device; the old file is intact\n"
        assert whole() == before


def test_two_runs_do_not_write_one_delta(process: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    with output("out.npz"):
        done = process(*F.split(), "-q")
    assert done.returncode == 75
    assert re.fullmatch(r"recli: error: out\.npz: another recli run .*\n", done.stderr.decode())


def test_the_memory_limit_that_an_error_advises_is_enough() -> None:
    """In processes of their own: what a process holds counts."""
    run = [sys.executable, "-m", "recli", *F.split(), "--memory-limit"]
    refused = subprocess.run([*run, "10M"], capture_output=True, text=True, check=False)
    assert refused.returncode == 75
    (advice,) = re.findall(r"give --memory-limit ([0-9.]+G)\b", refused.stderr)
    allowed = subprocess.run([*run, advice], capture_output=True, text=True, check=False)
    assert allowed.returncode == 0, allowed.stderr
