"""What a GPU's memory makes of the work: blocks that are copied while others are worked with, and what does not fit."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import pairwise
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


def test_parts_arrive_and_return_as_they_are(gpu: Any) -> None:
    """One after the other, none before its time and none too late: of what is there, of neighbouring rows and of rows
    by number, read, changed and written.
    """
    from recli.kernels.gpu.transfers import Moving, moving

    rng, cuda = np.random.default_rng(0), gpu._cuda
    cuts = [0, 5, 5, 905, 906, 976, 1046]
    rows = [slice(a, b) for a, b in pairwise(cuts)]
    there, here, changed = (rng.standard_normal((cuts[-1], 3)).astype(np.float32) for _ in range(3))
    source, nums = rng.standard_normal((50, 3)).astype(np.float32), rng.integers(0, 50, cuts[-1])
    apart, own = rng.permutation(2000)[: cuts[-1]], np.zeros((2000, 3), np.float32)
    expected, written = [here + there, changed + 2 * there, own.copy()], np.zeros_like(here)
    expected[2][apart] = source[nums]
    arrays = [
        Moving(cuda.upload(there), rows),
        Moving(here, rows),
        Moving(changed, rows, written=True),
        Moving(written, rows, read=False, written=True),
        Moving(source, [nums[span] for span in rows]),
        Moving(own, [apart[span] for span in rows], written=True),
    ]

    def add(to: Any, of: Any, scale: float) -> None:
        every = cuda.upload(np.arange(len(to)))
        cuda.launch("rows.add_rows", -(-to.size // 256), 256, to, of, every, scale, len(to), 3)

    for one, two, three, four, five, six in moving(cuda, arrays):
        cuda.clear(four)
        add(four, one, 1.0)
        add(four, two, 1.0)
        add(three, one, 2.0)
        add(six, five, 1.0)
    for found, wanted in zip((written, changed, own), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def of_parts(gpu: Any, monkeypatch: pytest.MonkeyPatch, part_bytes: int, far: bool, block_bytes: int = 1 << 16) -> None:
    """Matrices come so many bytes at a time; far: tables, too."""
    from recli.kernels.gpu.memory import Shares

    matrix = gpu.matrix

    def evicted(csr: Csr) -> Any:
        handle = matrix(csr)
        handle.evict()
        return handle

    monkeypatch.setattr(gpu, "matrix", evicted)
    shares = Shares(kept=0 if far else 0.5, block_bytes=block_bytes, part=1, part_bytes=part_bytes)
    monkeypatch.setattr(gpu._cuda, "shares", shares)


@pytest.fixture
def long_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows are long ones, in half-sweeps and in products."""
    monkeypatch.setattr("recli.kernels.gpu.half_sweep.DENSE_ENTRIES", 30)
    monkeypatch.setattr("recli.kernels.gpu.half_sweep.DENSE_RANKS", 0)
    monkeypatch.setattr("recli.kernels.gpu.products.SEGMENT", 16)


@pytest.mark.usefixtures("long_rows")
@pytest.mark.parametrize("far", [False, True], ids=["tables there", "tables on the host"])
@pytest.mark.parametrize("half", [False, True], ids=["whole", "half"])
@pytest.mark.parametrize("part_bytes", [1, 300, 900])
def test_parts_change_no_bit(gpu: Any, monkeypatch: pytest.MonkeyPatch, part_bytes: int, far: bool, half: bool) -> None:
    of = problem(12, LENGTHS, 50, shift=0.2)
    if half:
        monkeypatch.setattr("recli.kernels.halves.WHOLE_BYTES", 0)
    found = []
    for parts in (False, True):
        if parts:
            of_parts(gpu, monkeypatch, part_bytes, far)
        matrix, tables = gpu.matrix(of.matrix), [gpu.table(side) for side in (of.Y, of.X)]
        assert all(table.travels == (parts and far) for table in tables)
        assert (len(list(matrix.parts(*(table.rows for table in tables)))) > 1) == parts
        product = gpu.host(gpu.product(matrix, tables[0]))
        again = gpu.host(gpu.product(matrix, tables[0]))
        found.append([product, again, *of.sweep(gpu, steps=3)[:3]])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def large(rows: int = 3000, columns: int = 500, each: int = 60) -> Csr:
    return csr(np.random.default_rng(0), [each] * rows, columns)


def parts_of(handle: Any, table: Any) -> int:
    return len(list(handle.parts(table.rows, np.empty((len(handle), table.width), np.float32))))


def test_a_matrix_that_does_not_fit_is_sent_in_parts() -> None:
    matrix, rank = large(), 16
    rows = np.random.default_rng(1).standard_normal((500, rank)).astype(np.float32)
    with load("cpu", 1) as cpu:
        expected = cpu.host(cpu.product(cpu.matrix(matrix), cpu.table(rows)))
    with limited(1 << 20) as gpu:  # of entries there are 2 MB
        handle, table = gpu.matrix(matrix), gpu.table(rows)
        assert not table.travels
        found = gpu.host(gpu.product(handle, table))
        assert gpu._cuda.left > 0
        assert parts_of(handle, table) > 2
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_is_kept_makes_room_for_what_must_be_there() -> None:
    """A matrix fits and stays, until a table needs its place; then it is sent in parts."""
    matrix = large()
    with limited(6 << 20) as gpu:
        handle = gpu.matrix(matrix)
        rows = np.random.default_rng(1).standard_normal((500, 16)).astype(np.float32)
        before = gpu.host(gpu.product(handle, gpu.table(rows)))
        assert handle.evictable
        table = gpu._cuda.empty((80_000, 16))
        assert not handle.evictable
        np.testing.assert_array_equal(gpu.host(gpu.product(handle, gpu.table(rows))), before)
        assert len(table) == 80_000


def test_blocks_of_tables_change_no_bit(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sums over rows, if they hold whole pieces of them: 1024 rows."""
    rng, found = np.random.default_rng(0), []
    factors = rng.standard_normal((28, 8))
    one, two = (rng.standard_normal((3000, rank)).astype(np.float32) for rank in (20, 8))
    for far in (False, True):
        if far:
            of_parts(gpu, monkeypatch, 1, far, block_bytes=1500 * 4 * 32)
        tables = [gpu.table(one), gpu.table(two)]
        mixed = gpu.combine(tables, factors)
        found.append([gpu.gram(tables, tables[1]), gpu.gram([tables[0]], tables[0]), gpu.host(mixed)])
    for here, there in zip(*found, strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize(("alpha0", "atol"), [(0.0, 2e-5), (0.1, 1e-3)])
def test_tables_that_do_not_fit_travel(monkeypatch: pytest.MonkeyPatch, alpha0: float, atol: float) -> None:
    """Half-sweeps with more of everything than fits: 0.5 MB of each side's rows, 0.6 MB of entries, 0.6 MB of room.
    Where there is an alpha0, in half precision.
    """
    monkeypatch.setattr("recli.kernels.halves.WHOLE_BYTES", 1000)
    rng = np.random.default_rng(0)
    of = problem(32, rng.integers(0, 24, 4000), 4200, alpha0=alpha0, shift=0.1)
    with load("cpu", 1) as cpu:
        expected = of.sweep(cpu, steps=2)
    with limited(600 << 10) as gpu:
        assert gpu.table(of.X).travels
        found = of.sweep(gpu, steps=2)
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=atol * np.abs(expected[0]).max())
    assert found[3] == pytest.approx(expected[3], rel=atol)


def test_a_catalogue_that_does_not_fit_is_searched_run_by_run() -> None:
    rng, m = np.random.default_rng(0), 9000
    items, users = (rng.standard_normal((n, 16)).astype(np.float32) for n in (m, 40))
    items[rng.integers(0, m, 500)] = items[0]  # ties in many runs
    excluded = csr(rng, [*range(39), 8995], m)
    with limited(700 << 10) as gpu:  # of items there are 1 MB
        index = gpu.index_items(items)
        found = gpu.topk(index, users, 20, excluded)
        assert index.run < m / 2
        assert not index.evictable
    with load("cpu", 1) as cpu:
        expected = cpu.topk(cpu.index_items(items), users, 20, excluded)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_are_halved_until_they_fit() -> None:
    with limited(1 << 20) as gpu:
        assert len(gpu._cuda.scratch(1000, 10, 1000)) == 250
        assert len(gpu._cuda.scratch(100, 10, 1000)) == 100
        matrix = large()
        handle, table = gpu.matrix(matrix), gpu.zeros(500, 16)
        handle._part_bytes = 12 * len(matrix.indices)  # as if there had been room for it
        assert parts_of(handle, table) > 1


def test_what_does_not_fit_at_all_is_said_with_what_would_do() -> None:
    with limited(1 << 20) as gpu, pytest.raises(BusyError, match=r"GPU's memory: 0\.12 GiB are needed at once, 0\.00"):
        gpu._cuda.zeros((1_000_000, 32))


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
        span = slice(start, start + count)
        returning.send([(found[:, :4], span), (sums, span)])
    returning.finish()
    starts = np.repeat([0, 50, 100, 150], 50)[:160]
    expected = 4 * (np.arange(160) - starts)[:, None] + np.arange(4) + starts[:, None]
    np.testing.assert_array_equal(found[:, :4], expected)
    np.testing.assert_array_equal(sums, expected[:, 0])
    assert (found[:, 4:] == -1).all()
