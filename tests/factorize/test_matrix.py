"""Any matrix as factors, and the report of what that costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recli.artifacts import Factors, Provenance
from recli.config import FactorizeConfig
from recli.errors import DataError
from recli.factorize import factorize_matrix
from recli.kernels import load
from tests.test_linalg import to_csr, with_spectrum

SPECTRUM = 0.8 ** np.arange(50)
DENSE = with_spectrum(180, 120, SPECTRUM)
SPARSE = sp.random(180, 120, 0.1, random_state=np.random.default_rng(0), format="csr", dtype=np.float32)


def run(matrix: Any, rank: int, **settings: Any) -> tuple[Factors, dict[str, Any]]:
    config = FactorizeConfig(solver="svd", **settings)
    with load("cpu", 1) as kernels:
        return factorize_matrix(matrix, 120, rank, config, kernels, Provenance(inputs=["abc"]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_a_dense_matrix_is_reported_as_measured(dtype: type) -> None:
    factors, report = run(DENSE.astype(dtype), 10)
    error = np.linalg.norm(DENSE - factors.P[:] @ factors.Q[:].T) / np.linalg.norm(DENSE)
    assert report["relative_error"] == pytest.approx(error, rel=2e-2)
    assert report["relative_error"] == pytest.approx(
        np.sqrt(np.sum(SPECTRUM[10:] ** 2) / np.sum(SPECTRUM**2)), rel=2e-2
    )
    assert (report["rank"], report["parameters"], report["parameters_after"]) == (10, 180 * 120, 300 * 10)
    assert (report["bytes"], report["bytes_after"]) == (180 * 120 * np.dtype(dtype).itemsize, 300 * 10 * 4)


def test_a_sparse_matrix_is_reported_without_being_made_dense() -> None:
    factors, report = run(to_csr(SPARSE), 30)
    error = np.linalg.norm(SPARSE.toarray() - factors.P[:] @ factors.Q[:].T) / sp.linalg.norm(SPARSE)
    assert report["relative_error"] == pytest.approx(error, rel=1e-4)
    assert report["parameters"] == SPARSE.nnz
    np.testing.assert_array_equal(factors.item_counts, np.bincount(SPARSE.indices, minlength=120))


def test_rows_and_columns_are_users_and_items_by_number() -> None:
    factors, _ = run(DENSE, 3)
    assert factors.user_ids.values.tolist() == list(range(180))
    assert factors.item_ids.values.tolist() == list(range(120))
    assert factors.provenance.columns == {"user": "row", "item": "column"}
    assert factors.provenance.inputs == ["abc"]
    assert factors.seen is None
    assert (factors.item_counts == 180).all()


def test_energy_finds_the_rank() -> None:
    _, report = run(DENSE, 120, energy=0.95)
    kept = np.cumsum(SPECTRUM**2) / np.sum(SPECTRUM**2)
    assert report["rank"] == int(np.searchsorted(kept, 0.95)) + 1
    assert report["kept_energy"] == pytest.approx(kept[report["rank"] - 1], rel=1e-4)


@pytest.mark.parametrize("matrix", [0 * DENSE, to_csr(0 * SPARSE)], ids=["dense", "sparse"])
def test_nothing_but_zeros_is_refused(matrix: Any) -> None:
    with pytest.raises(DataError, match="all entries are zero"):
        run(matrix, 3)
