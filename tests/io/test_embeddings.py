"""Two towers of a network, as NumPy, PyTorch and TensorFlow save them: their dot products, and no file that is
something else.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import struct
import sys
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save, save_file

from recli.artifacts import Factors
from recli.config import ReadConfig
from recli.errors import DataError, MissingInputError, UsageError
from recli.io import read_artifact, read_embeddings, read_interactions, source, to_series, with_seen, write_npz

USERS, ITEMS, RANK = 6, 4, 3


def towers() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Numbers that float16 and bfloat16 hold, so that the formats can be compared."""
    rng = np.random.default_rng(7)
    P, Q = rng.integers(-9, 9, (USERS, RANK)) / 4, rng.integers(-9, 9, (ITEMS, RANK)) / 4
    return P.astype(np.float32), Q.astype(np.float32)


P, Q = towers()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(compressed: bool = False, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def tensors(specs: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file by hand, which may claim anything."""
    header = specs if isinstance(specs, bytes) else json.dumps(specs).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def bfloat16(*tables: NDArray[np.float32]) -> bytes:
    halves = [(table.view(np.uint32) >> 16).astype("<u2").tobytes() for table in tables]
    ends = np.cumsum([0, *map(len, halves)]).tolist()
    specs = {
        f"tower.{at}": tensor("BF16", list(table.shape), ends[at], ends[at + 1]) for at, table in enumerate(tables)
    }
    return tensors(specs, b"".join(halves))


def assert_is_the_network(model: Factors) -> None:
    np.testing.assert_array_equal(np.asarray(model.P), P)
    np.testing.assert_array_equal(np.asarray(model.Q), Q)
    assert np.asarray(model.P).dtype == np.asarray(model.Q).dtype == np.float32
    np.testing.assert_array_equal(model.user_rows(slice(None)) @ model.item_rows().T, P @ Q.T)
    assert model.seen is None
    for zeros in (model.b_u, model.b_v, model.b, model.item_counts):
        assert not zeros.any()
    assert model.provenance.config == {"solver": "imported", "imported_from": "embeddings"}


FILES: dict[str, tuple[dict[str, bytes], str, str]] = {
    "npy": ({"u.npy": npy(P), "i.npy": npy(Q)}, "u.npy", "i.npy"),
    "npy, float16 and float64": (
        {"u.npy": npy(P.astype(np.float16)), "i.npy": npy(Q.astype(np.float64))},
        "u.npy",
        "i.npy",
    ),
    "npy, by columns": ({"u.npy": npy(np.asfortranarray(P)), "i": npy(np.asfortranarray(Q))}, "u.npy", "i"),
    "npz of one array each": ({"u.npz": npz(x=P), "i.npz": npz(compressed=True, y=Q)}, "u.npz", "i.npz"),
    "npz of several": ({"m.npz": npz(user=P, item=Q, step=1)}, "m.npz:user", "m.npz:item"),
    "implicit's": ({"m.npz": npz(user_factors=P, item_factors=Q, factors=3)}, "m.npz", "m.npz"),
    "implicit's, beside another": ({"m.npz": npz(user_factors=P, item_factors=Q), "i.npy": npy(Q)}, "m.npz", "i.npy"),
    "safetensors of one each": (
        {"u.safetensors": save({"x": P}, {"format": "pt"}), "i": save({"y": Q.astype(np.float64)})},
        "u.safetensors",
        "i",
    ),
    "safetensors of several": (
        {"m.safetensors": save({"user.weight": P.astype(np.float16), "item.weight": Q, "step": np.ones(1, int)})},
        "m.safetensors:user.weight",
        "m.safetensors:item.weight",
    ),
    "safetensors, implicit's names": (
        {"m": save({"user_factors": P, "item_factors": Q, "other": np.ones(1)})},
        "m",
        "m",
    ),
    "bfloat16": ({"m": bfloat16(P, Q)}, "m:tower.0", "m:tower.1"),
    "numbers at odd addresses": (
        {"m": tensors(json.dumps({"u": tensor("F32", list(P.shape), 0, P.nbytes)}).encode() + b" ", P.tobytes())}
        | {"i.npy": npy(Q)},
        "m",
        "i.npy",
    ),
    "colons in names": (
        {"m:1": save({"user/embeddings:0": P, "item/embeddings:0": Q})},
        "m:1:user/embeddings:0",
        "m:1:item/embeddings:0",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_the_scores_are_those_of_the_network(name: str) -> None:
    files, users, items = FILES[name]
    for path, data in files.items():
        Path(path).write_bytes(data)
    model = read_embeddings(users, items)
    assert_is_the_network(model)
    assert model.provenance.inputs == [hashlib.sha256(data).hexdigest() for data in files.values()]
    np.testing.assert_array_equal(model.user_ids.values, np.arange(USERS))
    np.testing.assert_array_equal(model.item_ids.values, np.arange(ITEMS))
    with open("ours.npz", "wb") as file:
        write_npz(model, file)
    with source(["ours.npz"]) as found:
        assert_is_the_network(read_artifact(found, Factors))


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_tables_of_float32_stay_on_disk(suffix: str) -> None:
    table = np.ones((1 << 17, 16), np.float32)
    np.save("u.npy", table)
    save_file({"x": table}, "u.safetensors")
    np.save("i.npy", table[:5])
    tracemalloc.start()
    try:
        model = read_embeddings(f"u.{suffix}", "i.npy")
        # a bool a number, where it is looked for NaN, and the ids and biases
        assert tracemalloc.get_traced_memory()[1] < table.nbytes * 0.7
    finally:
        tracemalloc.stop()
    assert not np.asarray(model.P).flags.writeable


def test_both_towers_come_from_one_pipe() -> None:
    os.mkfifo("pipe")
    data = save({"u": P, "i": Q})
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(data))
    writer.start()
    model = read_embeddings("pipe:u", "pipe:i")
    writer.join()
    assert_is_the_network(model)


NAMES = [f"ü{at}" for at in range(USERS)]
LISTS: dict[str, tuple[bytes | pl.DataFrame, list[Any], str]] = {
    "list.txt": ("\n".join(NAMES).encode(), NAMES, "user"),
    "list": (("userId\r\n" + "\r\n".join(NAMES) + "\r\n\r\n").encode(), NAMES, "userId"),
    "numbers.csv": (b"30\n10\n-20\n7\n0\n5\n", [30, 10, -20, 7, 0, 5], "user"),
    "id.csv": (b"id\n30\n10\n20\n7\n0\n5\n", [30, 10, 20, 7, 0, 5], "id"),
    "zeros.csv": (b"id\n030\n10\n20\n7\n0\n5\n", ["030", "10", "20", "7", "0", "5"], "id"),
    "several.csv": (b"name,uid\na,3\nb,1\nc,2\nd,7\ne,0\nf,5\n", [3, 1, 2, 7, 0, 5], "uid"),
    "a.ndjson": (b"".join(b'{"who": "%d"}\n' % at for at in range(9, 3, -1)), list(range(9, 3, -1)), "who"),
    "text.parquet": (pl.DataFrame({"x": ["6", "5", "4", "3", "2", "1"]}), list("654321"), "x"),
    "small.parquet": (pl.DataFrame({"x": pl.Series([6, 5, 4, 3, 2, 1], dtype=pl.UInt8)}), [6, 5, 4, 3, 2, 1], "x"),
    "category.parquet": (pl.DataFrame({"x": pl.Series(NAMES, dtype=pl.Categorical)}), NAMES, "x"),
}


def write(path: str, data: bytes | pl.DataFrame) -> None:
    if isinstance(data, pl.DataFrame):
        data.write_parquet(path)
    else:
        Path(path).write_bytes(data)


def network() -> None:
    np.save("u.npy", P)
    np.save("i.npy", Q)


@pytest.mark.parametrize("path", LISTS)
def test_ids_come_in_the_order_of_the_rows(path: str) -> None:
    network()
    data, ids, column = LISTS[path]
    write(path, data)
    model = read_embeddings("u.npy", "i.npy", user_ids=path)
    assert to_series(model.user_ids, "user").to_list() == ids
    assert model.provenance.columns == {"user": column, "item": "item"}
    assert model.provenance.inputs[2:] == [hashlib.sha256(Path(path).read_bytes()).hexdigest()]
    np.testing.assert_array_equal(model.item_ids.values, np.arange(ITEMS))


def test_small_integers_keep_their_type() -> None:
    network()
    write("a.parquet", LISTS["small.parquet"][0])
    assert read_embeddings("u.npy", "i.npy", user_ids="a.parquet").user_ids.values.dtype == np.uint8


def test_columns_of_one_name_are_called_as_usual() -> None:
    network()
    Path("users").write_text("id\n" + "\n".join(NAMES))
    Path("items").write_text("id\n4\n3\n2\n1\n")
    model = read_embeddings("u.npy", "i.npy", user_ids="users", item_ids="items")
    assert model.provenance.columns == {"user": "user", "item": "item"}
    assert model.item_ids.values.tolist() == [4, 3, 2, 1]
    assert len(model.provenance.inputs) == 4


def seen(text: str) -> Factors:
    network()
    Path("users").write_text("\n".join(NAMES))
    Path("items").write_text("40\n30\n20\n10\n")
    model = read_embeddings("u.npy", "i.npy", user_ids="users", item_ids="items")
    Path("ratings.csv").write_text(text)
    with source(["ratings.csv"]) as found:
        return with_seen(model, read_interactions(found, ReadConfig())[0], found.name)


def test_seen_lists_come_by_the_ids() -> None:
    model = seen("uid,sku\nü5,10\nü0,40\nü5,40\n")
    assert model.seen is not None
    assert model.seen.indptr.tolist() == [0, 1, 1, 1, 1, 1, 3]
    assert model.seen.indices.tolist() == [0, 0, 3]
    assert model.item_counts.tolist() == [2, 0, 0, 1]
    assert model.provenance.columns == {"user": "uid", "item": "sku"}
    assert len(model.provenance.inputs) == 5
    np.testing.assert_array_equal(np.asarray(model.P), P)


def test_interactions_with_other_ids_are_refused_in_the_models_terms() -> None:
    with pytest.raises(
        DataError, match=r"^ratings\.csv: column 'user': expected ids of the imported model, found 'eve'"
    ):
        seen("user,item\nü5,10\neve,40\n")


def test_row_numbers_are_called_so() -> None:
    network()
    Path("ratings.csv").write_text("user,item\n6,1\n")
    with source(["ratings.csv"]) as found:
        interactions = read_interactions(found, ReadConfig())[0]
    with pytest.raises(DataError, match="expected row numbers of the imported model, 0 to 5, found 6"):
        with_seen(read_embeddings("u.npy", "i.npy"), interactions, "ratings.csv")


BAD_IDS: dict[str, tuple[bytes | pl.DataFrame, str]] = {
    "too few": (b"1\n2\n3\n", "list: expected 6 ids, one a row of u.npy, found 3"),
    "too many": (b"id\n1\n2\n3\n4\n5\n6\n7\n", "column 'id': expected 6 ids, one a row of u.npy, found 7"),
    "another heading": (b"who\n1\n2\n3\n4\n5\n6\n", "expected 6 ids, one a row of u.npy, found 7"),
    "twice": (b"a\nb\nc\nb\ne\nb\n", "list: expected ids that occur once, found 'b' in rows 2 and 4"),
    "missing": (b"id,x\na,1\nb,1\n,1\nd,1\ne,1\nf,1\n", "column 'id': 1 ids are missing, first in row 3"),
    "several": (b"x,y\n1,2\n", "expected one column, or one of the users' ids that is named user or id; found x, y"),
    "floats": (pl.DataFrame({"id": [0.5] * 6}), r"column 'id': expected ids \(integers or text\), found Float64"),
    "latin1": ("id\nä\nb\nc\nd\ne\nf\n".encode("latin1"), "line 2: expected UTF-8, found the bytes"),
    "an array": (npy(np.arange(6)), r"expected a table \(parquet, csv, ndjson\), found npy"),
    "tensors": (save({"x": np.arange(6)}), r"expected a table \(parquet, csv, ndjson\), found safetensors"),
    "empty": (b"", "expected a table, found an empty file"),
}


@pytest.mark.parametrize("name", BAD_IDS)
def test_ids_that_do_not_fit_are_refused(name: str) -> None:
    network()
    data, reason = BAD_IDS[name]
    write("ids", data)
    with pytest.raises(DataError, match=rf"^ids: [^\n]*{reason}[^\n]*$"):
        read_embeddings("u.npy", "i.npy", user_ids="ids")


def pytorch() -> bytes:
    """As torch.save lays it out."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"weight": 1}))
        archive.writestr("model/data/0", P.tobytes())
    return file.getvalue()


def claiming(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([[{}]], object), allow_pickle=True)
    return file.getvalue()


F32 = tensor("F32", [4, 3], 0, 48)
CHECKPOINT = r"expected a table of embeddings \(.npy, .npz, .safetensors\), found a checkpoint.*: save its tables as"
DAMAGED = "expected a safetensors file, found something else or a damaged one"
# the content of the file `bad`, and what is said of it
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "other ranks": (lambda: npy(np.ones((4, 5))), r"array of the file: expected rows of 3 numbers, as .*found 5"),
    "one-dimensional": (lambda: npy(np.ones(3)), r"array of the file: expected a table of .*found float64\[3\]"),
    "no dimension": (lambda: npy(np.float32(1)), r"found float32\[\]"),
    "three": (lambda: npy(np.ones((4, 3, 1))), r"found float64\[4, 3, 1\]"),
    "integers": (lambda: npy(np.ones((4, 3), int)), r"found int64\[4, 3\]"),
    "no rows": (lambda: npy(np.ones((0, 3))), r"found float64\[0, 3\]"),
    "no columns": (lambda: npy(np.ones((4, 0))), r"found float64\[4, 0\]"),
    "NaN": (lambda: npy(np.full((4, 3), np.nan)), "expected numbers that float32 holds, found NaN"),
    "infinity": (lambda: npy(np.full((4, 3), -np.inf, np.float16)), "expected numbers that float32 holds"),
    "too large": (lambda: npy(np.full((4, 3), 1e39)), "expected numbers that float32 holds"),
    "big-endian": (lambda: npy(np.ones((4, 3), ">f4")), "expected little-endian numbers, found type >f4"),
    "complex": (lambda: npy(np.ones((4, 3), complex)), "expected little-endian numbers, found type <c16"),
    "pickled npy": (pickled, "expected numbers, found pickled objects, which are never loaded"),
    "terabyte": (lambda: claiming("(250000, 1000000)"), "asks for shape .* 1000000000000 bytes; 64 are there"),
    "cut npy": (lambda: npy(Q)[:-8], "48 bytes; 40 are there"),
    "several arrays": (lambda: npz(a=Q, b=Q), "expected one array, or FILE:NAME that says which; found a, b"),
    "integers in npz": (lambda: npz(x=np.ones((4, 3), int)), r"array x: .* found int64\[4, 3\]"),
    "cut npz": (lambda: npz(x=Q)[:-30], "expected an NPZ file, found something else or a truncated one"),
    "several tensors": (lambda: save({"a": Q, "b": Q}), "expected one array, or FILE:NAME .*; found a, b"),
    "no tensor": (lambda: tensors({}), "found none"),
    "integer tensor": (lambda: save({"x": np.ones((4, 3), int)}), r"array x: .* BF16, F32 or F64, found I64\[4, 3\]"),
    "float8": (
        lambda: tensors({"x": tensor("F8_E4M3", [4, 3], 0, 12)}, bytes(12)),
        rf"array x: .* found F8_E4M3\[4, 3\]|{DAMAGED}",  # old libraries do not know it
    ),
    "tensor of one dimension": (lambda: save({"x": np.ones(3, np.float32)}), r"array x: .* found float32\[3\]"),
    "empty tensor": (lambda: tensors({"x": tensor("F32", [0, 3], 0, 0)}), r"array x: .* found float32\[0, 3\]"),
    "NaN in bfloat16": (lambda: bfloat16(np.full((4, 3), np.nan, np.float32)), "array tower.0: expected numbers that"),
    "tensor of other rank": (lambda: save({"x": np.ones((4, 2), np.float32)}), "array x: expected rows of 3 numbers"),
    "long header": (lambda: tensors({"x": F32}, bytes(48), 99_999_999), DAMAGED),
    "begins too late": (lambda: tensors({"x": tensor("F32", [4, 3], 8, 56)}, bytes(56)), DAMAGED),
    "offsets outside": (lambda: tensors({"x": tensor("F32", [4, 3], 1 << 40, (1 << 40) + 48)}, bytes(48)), DAMAGED),
    "more than there is": (lambda: tensors({"x": tensor("F32", [1 << 20, 1 << 20], 0, 1 << 42)}, bytes(48)), DAMAGED),
    "shape overflows": (lambda: tensors({"x": tensor("F32", [1 << 62, 1 << 62], 0, 48)}, bytes(48)), DAMAGED),
    "negative": (lambda: tensors({"x": tensor("F32", [-4, -3], 0, 48)}, bytes(48)), DAMAGED),
    "offsets reversed": (lambda: tensors({"x": tensor("F32", [4, 3], 48, 0)}, bytes(48)), DAMAGED),
    "overlapping": (lambda: tensors({"x": F32, "y": F32}, bytes(48)), DAMAGED),
    "cut tensors": (lambda: save({"x": Q})[:-4], DAMAGED),
    "no JSON": (lambda: tensors(b"{" * 5000), DAMAGED),
    "PyTorch": (pytorch, CHECKPOINT),
    "PyTorch's old format": (lambda: pickle.dumps({"weight": [1.0]}), CHECKPOINT),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), CHECKPOINT),
    "a table": (lambda: b"user,item\n1,2\n", r"expected a table of embeddings .* found 1 csv"),
    "nothing": (lambda: b"", "found an empty file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_table_is_refused_in_one_line_and_without_allocating_what_it_claims(name: str) -> None:
    make, reason = BAD[name]
    np.save("u.npy", P)
    Path("bad").write_bytes(data := make())
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"^bad: [^\n]*({reason})[^\n]*$"):
            read_embeddings("u.npy", "bad")
        assert tracemalloc.get_traced_memory()[1] < 2e6 + 10 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [1 << 40, (1 << 64) - 1])
def test_a_header_of_any_claimed_length_is_refused(length: int) -> None:
    """By suffix, since its first bytes are nobody's."""
    np.save("u.npy", P)
    Path("bad.safetensors").write_bytes(tensors({"x": F32}, bytes(48), length))
    with pytest.raises(DataError, match=rf"^bad\.safetensors: {DAMAGED}"):
        read_embeddings("u.npy", "bad.safetensors")


def test_an_npz_without_arrays() -> None:
    np.save("u.npy", P)
    Path("bad.npz").write_bytes(npz())
    with pytest.raises(DataError, match=r"^bad\.npz: expected one array, or FILE:NAME that says which; found none$"):
        read_embeddings("u.npy", "bad.npz")


@pytest.mark.parametrize(
    "path",
    [
        "m.pt",
        "m.pth",
        "m.PT:user",
        "m.h5",
        "m.keras",
        "m.pkl",
        "m.ckpt",
        "m.ckpt-100.index",
        "m.ckpt.data-00000-of-00001",
    ],
)
def test_checkpoints_are_refused_by_their_names(path: str) -> None:
    np.save("u.npy", P)
    file = path.split(":")[0]
    Path(file).write_bytes(pytorch())
    with pytest.raises(DataError, match=rf"^{file}: {CHECKPOINT} .safetensors or .npy$"):
        read_embeddings(path, "u.npy")


def test_a_folder_may_be_called_as_a_checkpoint() -> None:
    os.mkdir("m.ckpt")
    np.save("m.ckpt/u.npy", P)
    np.save("m.ckpt/i.npy", Q)
    assert_is_the_network(read_embeddings("m.ckpt/u.npy", "m.ckpt/i.npy"))


@pytest.mark.parametrize("path", ["m.npz", "m.safetensors"])
def test_names_that_are_not_there_are_refused_with_those_that_are(path: str) -> None:
    Path("m.npz").write_bytes(npz(user=P, item=Q))
    Path("m.safetensors").write_bytes(save({"user": P, "item": Q}))
    with pytest.raises(DataError, match=rf"^{path}: array users: no such array; found item, user$"):
        read_embeddings(f"{path}:users", f"{path}:item")


def test_an_npy_file_has_no_names() -> None:
    network()
    with pytest.raises(UsageError, match=r"^u\.npy: its array has no name: leave out :user$"):
        read_embeddings("u.npy:user", "i.npy")


@pytest.mark.parametrize("path", ["gone.npy", "gone.npz:user"])
def test_a_file_that_is_not_there(path: str) -> None:
    network()
    with pytest.raises(MissingInputError, match=rf"^{path}: no such file$"):
        read_embeddings(path, "i.npy")


def test_remote_files_are_refused() -> None:
    network()
    with pytest.raises(DataError, match=r"^s3://bucket/u\.npy: .*on this machine, found 1 remote files of npy"):
        read_embeddings("s3://bucket/u.npy", "i.npy")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m.safetensors").write_bytes(save({"user": P, "item": Q}))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UsageError, match=r"^m\.safetensors: .*pip install 'recli\[safetensors\]'[^\n]*$"):
        read_embeddings("m.safetensors:user", "m.safetensors:item")
    network()
    assert_is_the_network(read_embeddings("u.npy", "i.npy"))


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_never_raise_anything_but_a_data_error(data: st.DataObject) -> None:
    good = save({"user": P, "item": Q})
    damaged = bytearray(good[: data.draw(st.sampled_from([len(good), len(good) - 1, 60, 9, 3]))])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, min(len(damaged), 130) - 1))] = data.draw(st.integers(0, 255))
    Path("damaged.safetensors").write_bytes(damaged)
    with contextlib.suppress(DataError):
        model = read_embeddings("damaged.safetensors:user", "damaged.safetensors:item")
        assert np.isfinite(np.asarray(model.P)).all()
