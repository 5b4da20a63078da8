"""Flops and bytes, counted by hand."""

from __future__ import annotations

import pytest

from recli.bench.machine import Machine, environment, measure
from recli.bench.roofline import STEPS, Work, als_iteration, exhaustive_topk, sparse_product

MACHINE = Machine("", 2, 2, 1 << 20, 100.0, 10.0)


def test_the_floor_is_the_dearer_of_arithmetic_and_traffic() -> None:
    assert Work(1e9, 0).floor(MACHINE) == pytest.approx(0.01)
    assert Work(0, 1e9).floor(MACHINE) == pytest.approx(0.1)
    assert Work(1e9, 1e9).floor(MACHINE) == pytest.approx(0.1)
    assert Work(1, 2) + Work(3, 4) == Work(4, 6)


def test_an_iteration_of_ials() -> None:
    """3 users, 2 items, 4 pairs, rank 8, everything in the cache."""
    work = als_iteration("ials", 3, 2, 4, 8, 1 << 20)
    passes = STEPS["ials"] + 1
    entries = 2 * (4 * 8 * 4 * passes)  # two half-sweeps; a dot product and a sum are 2 x 2 x 8 flops an entry
    gram, rotations = 2 * 8**2 * (2 + 3), 2 * 2 * 8**2 * (3 + 2)
    assert work.flops == entries + gram + rotations
    assert work.bytes == 2 * 12 * 4 + 4 * 8 * ((2 * 3 + 2) + (2 * 2 + 3))


def test_als_has_no_rotations_and_a_step_more() -> None:
    assert als_iteration("als", 3, 2, 4, 8, 1 << 20).flops == 2 * 4 * 8 * 4 * (STEPS["als"] + 1)


def test_rows_that_do_not_fit_in_the_cache_are_gathered_from_memory() -> None:
    table = 4 * 64 * 10_000
    inside = als_iteration("ials", 10_000, 10_000, 10**6, 64, table)
    half = als_iteration("ials", 10_000, 10_000, 10**6, 64, table // 2)
    assert half.bytes - inside.bytes == pytest.approx(2 * 4 * 64 * 10**6 / 2)
    assert half.flops == inside.flops


def test_lists_and_products() -> None:
    assert exhaustive_topk(10, 20, 8, 5) == Work(2 * 10 * 20 * 8, 4 * 8 * 30 + 8 * 10 * 5)
    assert sparse_product(10, 20, 50, 8, 1 << 20) == Work(2 * 50 * 8, 8 * 50 + 4 * 8 * 30)


def test_the_machine_is_measured() -> None:
    machine = measure(1)
    assert machine.threads == 1
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.gemm_gflops > 0.1
    assert machine.copy_gbs > 0.1
    assert machine.cache_bytes > 1 << 16


def test_the_environment_names_what_is_installed() -> None:
    assert {"recli", "python", "system", "numpy", "scipy", "numba", "implicit"} <= environment().keys()
