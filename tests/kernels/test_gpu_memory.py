"""What a GPU's memory makes of the work: blocks that are copied while others are worked with, and what does not fit."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from recli.errors import BusyError
from recli.ids import Csr
from recli.kernels import load
from tests.kernels.problems import csr, problem

LENGTHS = [0, 1, 40, 3, 0, 0, 7, 33, 2, 2, 28, 5, 0]


@pytest.fixture
def gpu() -> Iterator[Any]:
    with load("gpu", 2) as kernels:
        yield kernels


def limited(limit: int) -> Any:
    """A backend that may use so many bytes more than tests before it still hold."""
    import cupy  # type: ignore[import-not-found]

    gc.collect()
    return load("gpu", 2, limit + cupy.get_default_memory_pool().used_bytes())


def test_pieces_of_a_stream_arrive_as_they_are(gpu: Any) -> None:
    """One after the other, none before its time and none too late."""
    from recli.kernels.gpu.transfers import arriving

    rng = np.random.default_rng(0)
    pieces = [[rng.standard_normal(n).astype(np.float32), rng.integers(0, 9, 2 * n)] for n in (5, 0, 900, 1, 70, 70)]
    sums = []
    for arrays, expected in zip(arriving(gpu._cuda, pieces), pieces, strict=True):
        doubled = gpu._cuda.zeros(arrays[0].shape)
        gpu._cuda.launch(
            "rows.add_rows",
            -(-arrays[0].size // 256),
            256,
            doubled,
            arrays[0],
            gpu._cuda.upload(np.arange(arrays[0].size)),
            2.0,
            arrays[0].size,
            1,
        )
        sums.append((doubled, 2 * expected[0], arrays[1].get(), expected[1]))
    for found, expected_sum, numbers, expected_numbers in sums:
        np.testing.assert_array_equal(found.get(), expected_sum)
        np.testing.assert_array_equal(numbers, expected_numbers)


def of_blocks(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    """Matrices are not kept on the device, and come so many entries at a time."""
    from recli.kernels.gpu.matrices import SparseMatrix

    def evict(self: SparseMatrix) -> int:
        self._block = self._block or entries
        return 0

    monkeypatch.setattr(SparseMatrix, "evict", evict)
    monkeypatch.setattr("recli.kernels.gpu.matrices.KEPT_SHARE", 0)


@pytest.mark.parametrize("entries", [1, 9, 45, 60])
def test_blocks_of_a_matrix_change_no_bit(gpu: Any, monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    of = problem(12, LENGTHS, 50, shift=0.2)
    monkeypatch.setattr("recli.kernels.gpu.half_sweep.DENSE_ENTRIES", 30)
    monkeypatch.setattr("recli.kernels.gpu.half_sweep.DENSE_RANKS", 0)
    monkeypatch.setattr("recli.kernels.gpu.products.SEGMENT", 16)
    found = []
    for blocks in (False, True):
        if blocks:
            of_blocks(monkeypatch, entries)
        matrix = gpu.matrix(of.matrix)
        product = gpu.host(gpu.product(matrix, gpu.table(of.Y)))
        again = gpu.host(gpu.product(matrix, gpu.table(of.Y)))
        assert len(list(matrix.parts())) > blocks
        found.append([product, again, *of.sweep(gpu, steps=3)[:3]])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def large(rows: int = 3000, columns: int = 500, each: int = 60) -> Csr:
    return csr(np.random.default_rng(0), [each] * rows, columns)


def test_a_matrix_that_does_not_fit_is_sent_in_blocks() -> None:
    matrix, rank = large(), 16
    rows = np.random.default_rng(1).standard_normal((500, rank)).astype(np.float32)
    with load("cpu", 1) as cpu:
        expected = cpu.host(cpu.product(cpu.matrix(matrix), cpu.table(rows)))
    with limited(1 << 20) as gpu:  # of entries there are 2 MB
        handle = gpu.matrix(matrix)
        found = gpu.host(gpu.product(handle, gpu.table(rows)))
        assert gpu._cuda.left > 0
        assert len(list(handle.parts())) > 2
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_is_kept_makes_room_for_what_must_be_there() -> None:
    """A matrix fits and stays, until a table needs its place; then it is sent in blocks."""
    matrix = large()
    with limited(6 << 20) as gpu:
        handle = gpu.matrix(matrix)
        assert len(list(handle.parts())) == 1
        rows = np.random.default_rng(1).standard_normal((500, 16)).astype(np.float32)
        before = gpu.host(gpu.product(handle, gpu.table(rows)))
        table = gpu.zeros(80_000, 16)
        assert len(list(handle.parts())) > 1
        np.testing.assert_array_equal(gpu.host(gpu.product(handle, gpu.table(rows))), before)
        assert len(table) == 80_000


def test_blocks_are_halved_until_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with limited(1 << 20) as gpu:
        assert len(gpu._cuda.scratch(1000, 10, 1000)) == 250
        assert len(gpu._cuda.scratch(100, 10, 1000)) == 100
        matrix = large()
        handle = gpu.matrix(matrix)
        handle._block = len(matrix.indices)  # as if there had been room for it
        assert len(list(handle.parts())) > 1


def test_what_does_not_fit_at_all_is_said_with_what_would_do() -> None:
    with limited(1 << 20) as gpu, pytest.raises(BusyError, match=r"GPU's memory: 0\.12 GiB are needed at once, 0\.00"):
        gpu.zeros(1_000_000, 32)


def test_blocks_return_as_they_were_when_they_were_sent(gpu: Any) -> None:
    """Kernels fill the same memory again, and the host's is not read before it is there."""
    from recli.kernels.gpu.transfers import Returning

    returning = Returning(gpu._cuda, [(50, 4), (50,)], [np.float32, np.float32])
    found = np.full((160, 6), -1, np.float32)
    sums = np.empty(160, np.float32)
    for start in (0, 50, 100, 150):
        count = min(50, 160 - start)
        rows, line = returning.room()
        values = np.arange(4 * count, dtype=np.float32).reshape(count, 4) + start
        nums = gpu._cuda.upload(np.arange(count))
        for to, of, width in ((rows, values, 4), (line, values[:, 0].copy(), 1)):
            gpu._cuda.launch("rows.take", 1, 256, gpu._cuda.upload(of), nums, None, None, to, count, width)
        returning.send([found[start : start + count, :4], sums[start : start + count]])
    returning.finish()
    starts = np.repeat([0, 50, 100, 150], 50)[:160]
    expected = 4 * (np.arange(160) - starts)[:, None] + np.arange(4) + starts[:, None]
    np.testing.assert_array_equal(found[:, :4], expected)
    np.testing.assert_array_equal(sums, expected[:, 0])
    assert (found[:, 4:] == -1).all()
