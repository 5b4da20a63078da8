"""Models of implicit, as it saves them: its scores to the last bit that matters, and no file that is something else."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from implicit.lmf import LogisticMatrixFactorization
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors, Interactions, Provenance
from recli.config import ReadConfig
from recli.errors import DataError, UsageError
from recli.ids import Csr, Ids
from recli.io import read_interactions, read_model, source, with_seen, write_npz

USERS, ITEMS = 30, 20
SETTINGS: dict[str, Any] = {"factors": 4, "iterations": 3, "random_state": 5, "num_threads": 1}
MODELS: dict[str, Callable[[], Any]] = {
    "ALS": lambda: AlternatingLeastSquares(**SETTINGS),
    "ALS float64": lambda: AlternatingLeastSquares(**SETTINGS, dtype=np.float64),
    "BPR": lambda: BayesianPersonalizedRanking(**SETTINGS),
    "LMF": lambda: LogisticMatrixFactorization(**SETTINGS),
}


def liked() -> sp.csr_matrix[Any]:
    """Users and items without any entry are among them: implicit zeroes their factors."""
    dense = np.random.default_rng(3).random((USERS, ITEMS)) < 0.25
    dense[4], dense[:, 7] = False, False
    return sp.csr_matrix(dense.astype(np.float32))


def saved(name: str, path: str = "model.npz") -> Any:
    with threadpool_limits(1, "blas"):  # implicit warns otherwise
        model = MODELS[name]()
        model.fit(liked(), show_progress=False)
    model.save(path)
    return model


def read(path: str = "model.npz") -> Factors:
    with source([path]) as found:
        return read_model(found)


@pytest.mark.parametrize("name", MODELS)
def test_the_scores_are_those_of_implicit(name: str) -> None:
    theirs = saved(name)
    ours = read()
    scores = ours.user_rows(np.arange(USERS)) @ ours.item_rows().T
    np.testing.assert_allclose(scores, theirs.user_factors @ theirs.item_factors.T, atol=1e-6)
    assert ours.P.shape[1] == ours.Q.shape[1] == 4
    assert (ours.b_u.any(), ours.b_v.any()) == (name == "LMF", name in ("BPR", "LMF"))
    assert ours.provenance.config == {"solver": "imported", "imported_from": f"implicit {name.split()[0]}"}
    assert len(ours.provenance.inputs) == 1
    np.testing.assert_array_equal(ours.user_ids.values, np.arange(USERS))
    assert ours.seen is None
    assert not ours.item_counts.any()


def test_order_precision_and_compression_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    P, Q = rng.integers(-9, 9, (USERS, 3)) / 4, rng.integers(-9, 9, (ITEMS, 3)) / 4  # exact in float16
    for dtype in (np.float16, np.float32, np.float64):
        for order in (np.ascontiguousarray, np.asfortranarray):
            for save in (np.savez, np.savez_compressed):
                save("model.npz", user_factors=order(P.astype(dtype)), item_factors=order(Q.astype(dtype)))
                model = read()
                np.testing.assert_array_equal(model.P, P)
                np.testing.assert_array_equal(model.Q, Q)
                assert model.provenance.config["imported_from"] == "implicit"


def test_bias_columns_without_ones_beside_them_stay_factors() -> None:
    P, Q = np.random.default_rng(0).random((2, 5, 3), np.float32)
    np.savez("model.npz", user_factors=P, item_factors=Q, verify_negative_samples=True)
    np.testing.assert_array_equal(read().P, P)


def test_a_model_of_recli_comes_back_as_it_is() -> None:
    saved("BPR")
    model = read()
    with open("ours.npz", "wb") as file:
        write_npz(model, file)
    again = read("ours.npz")
    assert again.provenance == model.provenance
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def good(**more: Any) -> bytes:
    return npz(**{"user_factors": np.ones((4, 3)), "item_factors": np.ones((2, 3)), **more})


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, user_factors=np.array([[{}]], object), item_factors=np.ones((2, 3)))
    return file.getvalue()


def zipped(content: bytes, compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return file.getvalue()


def with_directory(field: int, value: int, layout: str = "<I", content: bytes = b"") -> bytes:
    """A file whose directory says something else about its first member (APPNOTE.TXT 4.3.12)."""
    data = bytearray(content or zipped(good(), zipfile.ZIP_DEFLATED))
    struct.pack_into(layout, data, data.index(b"PK\x01\x02") + field, value)
    return bytes(data)


def claiming(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("user_factors.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
        archive.writestr("item_factors.npy", b"")
    return file.getvalue()


def interactions() -> bytes:
    file = io.BytesIO()
    matrix = Csr(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.float32))
    write_npz(Interactions(matrix=matrix, user_ids=Ids(np.arange(1)), item_ids=Ids(np.arange(1))), file)
    return file.getvalue()


ARRAYS = "with arrays user_factors and item_factors; found "
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "implicit's item neighbours": (
        lambda: npz(K=20, shape=[2, 2], data=np.ones(1), indptr=[0, 1, 1], indices=[0]),
        ARRAYS + "K, data, indices, indptr, shape",
    ),
    "half a model": (lambda: npz(user_factors=np.ones((4, 3))), ARRAYS + "user_factors"),
    "another artifact of recli": (interactions, "expected an artifact of kind factors, found interactions"),
    "other ranks": (lambda: good(item_factors=np.ones((2, 5))), "expected rows of one length, found 3 and 5"),
    "one-dimensional": (
        lambda: good(item_factors=np.ones(3)),
        r"array item_factors: expected a table of .*float64\[3\]",
    ),
    "integers": (lambda: good(item_factors=np.ones((2, 3), int)), r"item_factors: .* found int64\[2, 3\]"),
    "no users": (lambda: good(user_factors=np.ones((0, 3))), r"user_factors: .* found float64\[0, 3\]"),
    "NaN": (lambda: good(user_factors=np.full((4, 3), np.nan)), "user_factors: expected numbers that float32 holds"),
    "too large": (
        lambda: good(user_factors=np.full((4, 3), 1e39)),
        "user_factors: expected numbers that float32 holds",
    ),
    "pickled": (pickled, "array user_factors: expected numbers, found pickled objects, which are never loaded"),
    "terabyte": (
        lambda: claiming("(250000, 1000000)"),
        r"its header asks for shape .* 1000000000000 bytes; 64 are there",
    ),
    "deflated terabyte": (lambda: with_directory(24, 0xFFFFFFF0), "promises 4294967280 bytes from"),
    "more than the file": (lambda: with_directory(20, 0x7FFFFFF0), "the file has"),
    "longer than it is": (lambda: with_directory(24, 5000), "array user_factors: the file ends before it does"),
    "shorter than it is": (lambda: with_directory(24, 100), "expected an NPZ file"),
    "other checksum": (lambda: with_directory(16, 12345), "expected an NPZ file, .*CRC"),
    "encrypted": (lambda: with_directory(8, 1, "<H"), "array user_factors: it is encrypted"),
    "lzma": (lambda: zipped(good(), zipfile.ZIP_LZMA), "expected a stored or deflated member, found compression 14"),
    "cut": (lambda: good()[:-40], "expected an NPZ file, found something else or a truncated one"),
    "table": (lambda: b"user,item\n1,2\n", "expected a model that implicit or recli saved .NPZ., found 1 csv"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_model_is_refused_with_its_reason_and_without_allocating_what_it_claims(name: str) -> None:
    make, reason = BAD[name]
    data = make()
    Path("model").write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"^model: .*{reason}"):
            read("model")
        assert tracemalloc.get_traced_memory()[1] < 2e6 + 10 * len(data)
    finally:
        tracemalloc.stop()


@settings(max_examples=200)
@given(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]), st.data())
def test_damaged_bytes_never_raise_anything_but_a_data_error(compression: int, data: st.DataObject) -> None:
    damaged = bytearray(zipped(good(), compression))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    Path("damaged.npz").write_bytes(damaged)
    with contextlib.suppress(DataError):
        np.testing.assert_array_equal(read("damaged.npz").P, np.ones((4, 3)))


def ratings(text: str) -> tuple[Interactions, str]:
    Path("ratings.csv").write_text(text)
    with source(["ratings.csv"]) as found:
        return read_interactions(found, ReadConfig())[0], found.name


def imported() -> Factors:
    np.savez("model.npz", user_factors=np.ones((4, 3)), item_factors=np.ones((3, 3)))
    return read()


def test_seen_lists_and_counts_come_from_a_table_of_row_numbers() -> None:
    model = with_seen(imported(), *ratings("uid,sku\n3,2\n0,2\n3,0\n"))
    assert model.seen is not None
    assert model.seen.indptr.tolist() == [0, 1, 1, 1, 3]
    assert model.seen.indices.tolist() == [2, 0, 2]
    assert model.item_counts.tolist() == [1, 0, 2]
    assert model.provenance.columns == {"user": "uid", "item": "sku"}
    assert len(model.provenance.inputs) == 2
    assert model.provenance.config["imported_from"] == "implicit"
    counted = with_seen(imported(), *ratings("uid,sku\n3,2\n0,2\n3,0\n"), seen=False)
    assert counted.seen is None
    assert counted.item_counts.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("1,2\n4,0\n7,0\n", "column 'user': expected row numbers of the imported model, 0 to 3, found 4"),
        ("1,2\n2,-1\n", "column 'item': expected row numbers of the imported model, 0 to 2, found -1"),
        ("ann,2\n", "column user: expected whole numbers like the model's ids, found 'ann'"),
    ],
)
def test_ids_that_are_no_rows_of_the_model_are_named(rows: str, reason: str) -> None:
    table = ratings("user,item\n" + rows)
    with pytest.raises(DataError, match=rf"^ratings\.csv: {reason}"):
        with_seen(imported(), *table)


def test_a_model_of_recli_keeps_the_seen_lists_that_it_was_trained_on() -> None:
    model = imported()
    ours = Factors(**{**vars(model), "provenance": Provenance(config={"solver": "ials"})})
    with pytest.raises(UsageError, match=r"^ratings\.csv: the imported model is recli's own"):
        with_seen(ours, *ratings("user,item\n0,0\n"))
