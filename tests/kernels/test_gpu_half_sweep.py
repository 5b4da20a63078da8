"""Half-sweeps on a GPU: every way that a row can take, against the CPU's after as many steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from recli.kernels import halves, load
from recli.kernels.spec import Kernels
from tests.kernels.problems import Problem, problem

SCHEDULES = ([1, 1], [2, 7])  # of the shim; [0, 1] is the usual one
LENGTHS = [0, 1, 2, 5, 17, 30, 31, 32, 33, 40, 63, 64, 65, 100, 119]


@pytest.fixture(scope="module")
def gpu() -> Iterator[Kernels]:
    with load("gpu", 2) as kernels:
        yield kernels


@pytest.fixture
def long_rows(gpu: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 33 entries or more are long ones, of several chunks, a few at a time."""
    from recli.kernels.gpu import half_sweep

    for name, value in {"DENSE_ENTRIES": 32, "DENSE_RANKS": 0, "CHUNK": 40, "DENSE_BYTES": 4 * 24**2 * 4}.items():
        monkeypatch.setattr(half_sweep, name, value)


def of_lengths(rank: int, **changes: object) -> Problem:
    return problem(rank, LENGTHS, 120, **changes)


def assert_as_cpu(of: Problem, gpu: Kernels, atol: float = 2e-5, **how: Any) -> Any:
    """Scores, what the kernel says it saw, in units of the largest score; returns what the GPU gave."""
    with load("cpu", 1) as cpu:
        expected = of.sweep(cpu, **how)
    found = of.sweep(gpu, **how)
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=atol * np.abs(expected[0]).max())
    assert found[3] == pytest.approx(expected[3], rel=max(1e-5, atol))
    return found


@pytest.mark.parametrize("rank", [1, 8, 24, 65, 200])
@pytest.mark.parametrize("steps", [1, 3])
def test_short_rows_take_the_cpus_steps(gpu: Kernels, rank: int, steps: int) -> None:
    assert_as_cpu(of_lengths(rank), gpu, steps=steps, relaxation=1.5)


@pytest.mark.parametrize("schedule", [[0, 1], *SCHEDULES], ids=str)
def test_rows_of_several_batches(gpu: Kernels, monkeypatch: pytest.MonkeyPatch, schedule: list[int]) -> None:
    """Of 256 entries: no warp may be a batch ahead."""
    monkeypatch.setattr(pytest.importorskip("cupy"), "SCHEDULE", schedule, raising=False)
    assert_as_cpu(problem(9, [257, 300, 512, 3], 700), gpu, steps=2)


@pytest.mark.usefixtures("long_rows")
@pytest.mark.parametrize("rank", [1, 24, 65, 140])
@pytest.mark.parametrize("steps", [1, 3])
def test_long_rows_do_too(gpu: Kernels, rank: int, steps: int) -> None:
    assert_as_cpu(of_lengths(rank, shift=0.3), gpu, steps=steps, relaxation=1.5)


@pytest.mark.parametrize("long", [False, True])
def test_frozen_columns_and_no_gram_matrix(gpu: Kernels, request: pytest.FixtureRequest, long: bool) -> None:
    if long:
        request.getfixturevalue("long_rows")
    found = assert_as_cpu(of_lengths(23, alpha0=0.0, shift=1.0), gpu, steps=3, frozen=(0, 22))
    stored = np.array(LENGTHS) > 0
    np.testing.assert_array_equal(found[1][:, [0, 22]], of_lengths(23).X[:, [0, 22]])
    assert not found[1][~stored][:, 1:22].any()


@pytest.mark.parametrize("long", [False, True])
def test_a_tolerance_ends_rows_where_it_ends_the_cpus(gpu: Kernels, request: pytest.FixtureRequest, long: bool) -> None:
    if long:
        request.getfixturevalue("long_rows")
    assert_as_cpu(of_lengths(40, alpha0=1e-3), gpu, steps=30, tolerance=1e-2)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("rank", [17, 72])
def test_half_precision_rounds_the_same_rows(
    gpu: Kernels, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, rank: int, long: bool
) -> None:
    """As the CPU does but for numbers at an edge, since the bases differ in the last bits; and what long ones' products
    lose on tensor cores, as much again.
    """
    if long:
        request.getfixturevalue("long_rows")
    of = of_lengths(rank)
    whole = of.sweep(gpu, steps=3)[0]
    monkeypatch.setattr(halves, "WHOLE_BYTES", 0)
    found = assert_as_cpu(of, gpu, atol=1e-3 if long else 2e-4, steps=3)
    assert np.abs(found[0] - whole).max() > 1e-6 * np.abs(whole).max()


def test_rows_that_do_not_fit_in_shared_memory_are_read_again(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    of = of_lengths(33)
    kept = of.sweep(gpu, steps=3)
    monkeypatch.setattr(gpu._cuda, "shared_limit", 12 << 10)
    again = of.sweep(gpu, steps=3)
    for one, other in zip(kept[:3], again[:3], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("half", [False, True])
def test_no_bit_depends_on_the_order_of_threads(
    gpu: Kernels, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, schedule: list[int], half: bool
) -> None:
    cupy = pytest.importorskip("cupy")
    if half:
        monkeypatch.setattr(halves, "WHOLE_BYTES", 0)
    of = of_lengths(19)
    usual = [of.sweep(gpu, steps=2)]
    request.getfixturevalue("long_rows")
    usual.append(of.sweep(gpu, steps=2))
    monkeypatch.setattr(cupy, "SCHEDULE", schedule, raising=False)  # which a real GPU does not know
    again = [of.sweep(gpu, steps=2)]
    monkeypatch.undo()
    if half:
        monkeypatch.setattr(halves, "WHOLE_BYTES", 0)
    monkeypatch.setattr(cupy, "SCHEDULE", schedule, raising=False)
    again.insert(0, of.sweep(gpu, steps=2))
    for one, other in zip(usual, again, strict=True):
        for a, b in zip(one[:3], other[:3], strict=True):
            np.testing.assert_array_equal(a, b)
        assert one[3] == other[3]


def test_a_rank_of_thousands(gpu: Kernels) -> None:
    """Alpha0 = 0, since half of the time would go into the eigenvectors of the Gram matrix."""
    assert_as_cpu(problem(2048, [0, 1, 3, 9], 12, alpha0=0.0, shift=1.0), gpu, steps=2, atol=1e-4)


def test_what_overflows_shows_in_the_terms(gpu: Kernels, request: pytest.FixtureRequest) -> None:
    of = of_lengths(9, alpha0=0.0)
    of = Problem(of.matrix, of.X * np.float32(1e30), of.Y * np.float32(1e30), of.regularization, 0.0)
    assert not np.isfinite(of.sweep(gpu, steps=2)[3].data)
    request.getfixturevalue("long_rows")
    assert not np.isfinite(of.sweep(gpu, steps=2)[3].data)
