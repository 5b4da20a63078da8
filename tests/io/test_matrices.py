"""Matrices of other programs: sparse .npz and dense .npy, whole or refused in one line."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recli.errors import DataError
from recli.io.matrices import is_matrix, read_matrix
from recli.io.sources import source

SPARSE = sp.random(30, 20, 0.2, random_state=np.random.default_rng(0), format="csr", dtype=np.float32)


def read(path: str) -> tuple[Any, int]:
    with source([path]) as found:
        assert is_matrix(found)
        return read_matrix(found)


def dense(matrix: Any, columns: int) -> np.ndarray[Any, Any]:
    whole = sp.csr_array((matrix.values, matrix.indices, matrix.indptr), shape=(len(matrix.indptr) - 1, columns))
    return np.asarray(whole.toarray())


@pytest.mark.parametrize("layout", ["csr", "csc", "coo"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.bool_])
def test_sparse_matrices_of_every_layout_are_read(layout: str, compressed: bool, dtype: type) -> None:
    matrix = (SPARSE * 10).astype(dtype)
    sp.save_npz("m.npz", matrix.asformat(layout), compressed=compressed)
    found, columns = read("m.npz")
    np.testing.assert_array_equal(dense(found, columns), matrix.toarray().astype(np.float32))
    assert found.values.dtype == np.float32


def test_repeated_entries_are_added() -> None:
    sp.save_npz("m.npz", sp.coo_array(([1.0, 2.0, 4.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 3)))
    found, columns = read("m.npz")
    assert dense(found, columns).tolist() == [[0, 3, 0], [4, 0, 0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8, np.uint64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_dense_matrices_are_mapped_and_read_only(dtype: type, order: str) -> None:
    matrix = np.asarray(np.arange(12).reshape(3, 4), dtype=dtype, order=order)  # type: ignore[call-overload]
    np.save("m.npy", matrix)
    found, columns = read("m.npy")
    assert columns == 4
    assert found.dtype == dtype
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, matrix)
    Path("m.bin").write_bytes(Path("m.npy").read_bytes())  # by its first bytes
    np.testing.assert_array_equal(read("m.bin")[0], matrix)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5, np.float32), "expected a matrix, found an array of shape"),
        (np.zeros((2, 2, 2), np.float32), "expected a matrix, found an array of shape"),
        (np.zeros((0, 4), np.float32), "expected a matrix, found an array of shape"),
        (np.array([[1, np.nan]]), "expected finite numbers"),
        (np.array([[1, 1e300]]), "expected finite numbers that float32 has"),
        (np.array([["a", "b"]]), "expected little-endian numbers"),
        (np.array([[1j]]), "expected little-endian numbers"),
        (np.array([[None]], object), "pickled objects, which are never loaded"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray[Any, Any], message: str) -> None:
    np.save("m.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=rf"^m\.npy: .*{message}"):
        read("m.npy")


@pytest.mark.parametrize("size", [10, 100, 130])
def test_a_truncated_file_is_refused(size: int) -> None:
    np.save("m.npy", np.zeros((9, 9)))
    Path("m.npy").write_bytes(Path("m.npy").read_bytes()[:size])
    with pytest.raises(DataError, match=r"^m\.npy: "):
        read("m.npy")


def damaged(**changes: Any) -> None:
    """The sparse matrix's file with some arrays replaced, or left out (None)."""
    sp.save_npz("m.npz", SPARSE, compressed=False)
    with zipfile.ZipFile("m.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, array in changes.items():
        members.pop(f"{name}.npy")
        if array is not None:
            buffer = io.BytesIO()
            np.save(buffer, array)
            members[f"{name}.npy"] = buffer.getvalue()
    with zipfile.ZipFile("m.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": np.array(b"dia")}, "expected a matrix saved as csr, csc, coo, found 'dia'"),
        ({"indptr": None}, "arrays indptr are missing"),
        ({"indices": np.full(SPARSE.nnz, 99, np.int32)}, "not a csr matrix"),
        ({"indices": np.full(SPARSE.nnz, -1, np.int32)}, "not a csr matrix"),
        ({"indptr": np.zeros(4, np.int32)}, "array indptr: expected 31 numbers, found 4"),
        ({"indptr": np.arange(31, dtype=np.int32)[::-1].copy()}, "not a csr matrix"),
        ({"data": SPARSE.data[:3]}, "not a csr matrix"),
        ({"data": SPARSE.data * np.float32(np.inf)}, "expected finite numbers"),
        ({"shape": np.array([30, 2**40])}, "expected a matrix, found shape"),
        ({"shape": np.array([30])}, "expected a matrix, found shape"),
    ],
)
def test_damaged_sparse_matrices_are_refused(changes: dict[str, Any], message: str) -> None:
    damaged(**changes)
    with pytest.raises(DataError, match=rf"^m\.npz: .*{message}"):
        read("m.npz")


def test_tables_and_artifacts_are_no_matrices(sample: Path) -> None:
    np.savez("other.npz", a=np.zeros(3))
    for path in ("other.npz", str(sample / "ratings.parquet"), str(sample / "ratings.csv")):
        with source([path]) as found:
            assert not is_matrix(found)
