"""Products on a GPU: beyond a tile, a segment and a wave of them, on every kind of tensor core, in any order of
threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from recli.kernels import load
from tests.kernels.problems import csr

SCHEDULES = ([0, 1], [1, 1], [2, 7])  # of the shim


@pytest.fixture(scope="module", params=["tf32", "turing"])
def gpu(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Also with what Turing has in place of tf32, where a shim can be told to have no better."""
    with load("gpu", 2) as kernels:
        if request.param == "turing":
            if not hasattr(pytest.importorskip("cupy"), "SCHEDULE"):
                pytest.skip("this GPU is what it is")
            from recli.kernels.gpu import cuda

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cuda, "OPTIONS", (*cuda.OPTIONS, "-DTURING"))
                for file in ("gram", "product"):
                    kernels._cuda._load(f"{file}.{'gram_64' if file == 'gram' else 'multiply'}")
        yield kernels


@pytest.fixture(params=SCHEDULES, ids=str)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest.importorskip("cupy"), "SCHEDULE", request.param, raising=False)


def rows(n: int, rank: int, seed: int = 0) -> Any:
    """Columns of very different size, as in an eigenbasis."""
    sizes = np.logspace(0, -4, rank)
    return (np.random.default_rng(seed).standard_normal((n, rank)) * sizes).astype(np.float32)


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize(("n", "ranks", "s"), [(50, (3,), 3), (130, (70, 8), 70), (33, (5, 1), 140)])
def test_gram_matrices(gpu: Any, monkeypatch: pytest.MonkeyPatch, n: int, ranks: tuple[int, ...], s: int) -> None:
    """To 1e-5 of the product of absolute values, as spec.py promises; both of one table with itself and of two."""
    monkeypatch.setattr("recli.kernels.gpu.products.GRAM_ROWS", 40)
    monkeypatch.setattr("recli.kernels.gpu.products.GRAM_BYTES", 1)
    left, right = [rows(n, rank, rank) for rank in ranks], rows(n, s, 9)
    handles, other = [gpu.table(side) for side in left], gpu.table(right)
    for sides, of, host in (([*handles, other], other, [*left, right]), ([other], handles[0], [right])):
        wide, with_ = np.hstack(host).astype(float), (right if of is other else left[0]).astype(float)
        found = gpu.gram(sides, of)
        assert np.all(np.abs(found - wide.T @ with_) <= 1e-5 * (np.abs(wide).T @ np.abs(with_)))


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize(("n", "ranks", "s"), [(5, (3,), 2), (150, (40, 9), 70)])
def test_tables_times_coefficients(gpu: Any, n: int, ranks: tuple[int, ...], s: int) -> None:
    sides, coefficients = [rows(n, rank, rank) for rank in ranks], rows(sum(ranks), s, 5).astype(float)
    wide = np.hstack(sides).astype(float)
    bound = 1e-5 * (np.abs(wide) @ np.abs(coefficients))
    found = gpu.combine([gpu.table(side) for side in sides], coefficients)
    assert np.all(np.abs(gpu.host(found) - wide @ coefficients) <= bound)
    gpu.add_product(found, gpu.table(sides[0]), coefficients[: ranks[0]])
    twice = wide @ coefficients + sides[0].astype(float) @ coefficients[: ranks[0]]
    assert np.all(np.abs(gpu.host(found) - twice) <= 2 * bound)


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("rank", [1, 9, 131])
def test_entries_in_segments(gpu: Any, monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setattr("recli.kernels.gpu.products.SEGMENT", 7)
    matrix, table = csr(np.random.default_rng(0), [0, 1, 6, 7, 8, 14, 15, 40, 0], 50), rows(50, rank)
    dense = np.zeros((9, 50))
    dense[np.repeat(np.arange(9), np.diff(matrix.indptr)), matrix.indices] = matrix.values
    found = gpu.host(gpu.product(gpu.matrix(matrix), gpu.table(table)))
    np.testing.assert_allclose(found, dense @ table.astype(float), rtol=0, atol=1e-5 * np.abs(dense).sum(1).max())


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.int16])
def test_dense_matrices_in_blocks(gpu: Any, monkeypatch: pytest.MonkeyPatch, order: Any, dtype: Any) -> None:
    monkeypatch.setattr("recli.kernels.gpu.products.DENSE_BYTES", 1000)
    matrix = np.asarray(np.random.default_rng(0).integers(-9, 9, (70, 45)), dtype, order=order)
    table = rows(45, 6)
    found = gpu.host(gpu.product(gpu.matrix(matrix), gpu.table(table)))
    np.testing.assert_allclose(found, matrix @ table.astype(float), rtol=0, atol=1e-4)
