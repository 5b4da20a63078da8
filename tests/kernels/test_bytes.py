"""What top-K rests on: products of bytes on any processor, a rotation, bounds on its rounding, keys that rank."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from recli.kernels.cpu.byte_tile import ITEM_LEVELS, ITEMS
from recli.kernels.cpu.item_index import ItemIndex
from recli.kernels.cpu.keys import key_of, score_of
from recli.kernels.cpu.rotation import rotate

# Random bytes and the extremes, whose pairs of products come nearest to overflowing.
TILE = """
import numba, numpy as np
from recli.kernels.cpu.byte_tile import ITEM_LEVELS, ITEMS, USERS, byte_tile

@numba.njit
def run(users, items, groups, least, sums, hits):
    addresses = np.empty(USERS, np.uint64)
    for u in range(USERS):
        addresses[u] = np.uint64(users.ctypes.data) + np.uint64(4 * groups * u)
    return byte_tile(addresses.ctypes.data, items.ctypes.data, groups, least.ctypes.data, sums.ctypes.data,
                     hits.ctypes.data)

rng = np.random.default_rng(0)
for groups in (1, 4, 33):
    for extreme in (False, True):
        users = rng.integers(-127, 128, (USERS, 4 * groups)).astype(np.int8)
        items = rng.integers(1, 2 * ITEM_LEVELS + 2, (ITEMS, 4 * groups)).astype(np.uint8)
        if extreme:
            users[:], items[:] = np.where(users > 0, 127, -127), 2 * ITEM_LEVELS + 1
            users[0] = 127
        expected = users.astype(np.int64) @ items.astype(np.int64).T
        least = expected[:, 5].astype(np.int32)
        sums, hits = np.empty((USERS, ITEMS), np.int32), np.empty(USERS, np.uint64)
        laid_out = np.ascontiguousarray(items.reshape(ITEMS, groups, 4).transpose(1, 0, 2))
        assert run(users, laid_out, groups, least, sums, hits)
        np.testing.assert_array_equal(sums, expected)
        for u in range(USERS):
            assert [i for i in range(ITEMS) if int(hits[u]) >> i & 1] == np.flatnonzero(
                expected[u] >= least[u]).tolist()
        least[:] = 2**31 - 1
        assert not run(users, laid_out, groups, least, sums, hits)
        assert not hits.any()
print("same", USERS, ITEMS, ITEM_LEVELS)
"""
AVX2 = "+avx2,+avx,+fma,+f16c,+bmi,+bmi2,+lzcnt,+popcnt,+sse4.2,+ssse3"


@pytest.mark.parametrize(
    "features",
    [
        None,
        "",
        AVX2,
        AVX2 + ",+avx512f,+avx512bw,+avx512vl,+avx512dq",
        AVX2 + ",+avxvnni",
        AVX2 + ",+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512vnni",
    ],
    ids=["this processor", "none", "avx2", "avx512bw", "avxvnni", "avx512vnni"],
)
def test_products_of_bytes_are_exact_on_every_processor(features: str | None) -> None:
    """Those that this one can run, compiled for another."""
    environment = dict(os.environ)
    if features is not None:
        here = dict(llvm_features())
        if not all(here.get(name[1:]) for name in features.split(",") if name):
            pytest.skip("this processor lacks it")
        environment |= {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features, "NUMBA_DISABLE_JIT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", TILE], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.startswith("same"), done.stderr


def llvm_features() -> dict[str, bool]:
    import llvmlite.binding as llvm

    return dict(llvm.get_host_cpu_features())


@pytest.mark.parametrize("width", [16, 112, 128, 144, 320])
def test_a_rotation_keeps_products_and_evens_out_entries(width: int) -> None:
    rng = np.random.default_rng(width)
    x, y = rng.standard_normal((2, 5, width))
    np.testing.assert_allclose(rotate(x) @ rotate(y).T, x @ y.T, atol=1e-10)
    one = rotate(np.eye(width)[:1])
    assert np.abs(one).max() < np.sqrt(4 / min(width, 64))
    np.testing.assert_allclose(rotate(x.astype(np.float32)), rotate(x), atol=1e-5)


def test_rounded_rows_are_off_by_no_more_than_their_bounds_say() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((3 * ITEMS - 5, 48)) * np.linspace(9, 1e-3, 3 * ITEMS - 5)[:, None]).astype(np.float32)
    rows += np.float32(4)  # that all have in common
    norms = np.linalg.norm(rows.astype(float), axis=1)
    index = ItemIndex(rows, norms, np.arange(len(rows), dtype=np.int32))
    tiles = index.tiles(0, 3)
    left = rotate(rows.astype(float)) - index.centre
    codes = tiles.codes.transpose(0, 2, 1, 3).reshape(-1, 48)
    assert (codes[len(rows) :] == ITEM_LEVELS + 1).all()
    levels = codes[: len(rows)].astype(float) - (ITEM_LEVELS + 1)
    assert np.abs(levels).max() == ITEM_LEVELS
    for tile, (scale, longest, worst) in enumerate(tiles.bounds):
        span = slice(tile * ITEMS, min((tile + 1) * ITEMS, len(rows)))
        assert np.linalg.norm(left[span], axis=1).max() == pytest.approx(longest, rel=1e-4)
        assert np.linalg.norm(left[span] - scale * levels[span], axis=1).max() == pytest.approx(worst, rel=1e-3)
        assert longest <= index.reach
        assert worst < longest / 20


def test_keys_rank_as_scores_then_lower_item_numbers() -> None:
    scores = np.array([3e38, 1.5, 1e-45, 0.0, -1e-45, -2, -3e38], np.float32)
    pairs = [(score, item) for score in scores for item in (0, 1, 2**31 - 1)]
    keys = [int(key_of(score, np.int32(item))) for score, item in pairs]
    assert keys == sorted(keys, reverse=True)
    assert len(set(keys)) == len(keys)
    assert [score_of(np.uint64(key)) for key in keys] == [score for score, _ in pairs]
    assert key_of(np.float32(-0.0), np.int32(3)) == key_of(np.float32(0.0), np.int32(3))
