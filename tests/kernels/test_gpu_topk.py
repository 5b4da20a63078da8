"""The GPU's search for the best items, on the shim: spans, blocks, buffers that run over, and bounds that must hold."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from recli.ids import Csr
from recli.kernels.reference import ReferenceKernels
from recli.kernels.spec import Floats, Nums
from tests.kernels.test_topk import lists

# Several spans and blocks of users, a grid that is high, buffers that run over, keys sorted in the device's memory.
SMALL = {"CANDIDATES": 128, "PER_K": 2, "USERS": 128, "TILES": 1, "SHARED_BYTES": 0}


@pytest.fixture(scope="module")
def gpu() -> SimpleNamespace:
    """topk, item_index: the modules under test; cupy: what it runs on; cuda: of that."""
    cupy = pytest.importorskip("cupy")  # conftest.py says which
    from recli.kernels.gpu import item_index, topk
    from recli.kernels.gpu.cuda import Cuda

    return SimpleNamespace(topk=topk, item_index=item_index, cupy=cupy, cuda=Cuda(0, None))


@pytest.fixture(params=[False, True], ids=["usual", "small"])
def sizes(request: pytest.FixtureRequest, gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        shrink(monkeypatch, gpu.topk)
    return bool(request.param)


def shrink(patch: pytest.MonkeyPatch, topk: ModuleType) -> None:
    for name, value in SMALL.items():
        patch.setattr(topk, name, value)


def search(gpu: SimpleNamespace, users: Floats, items: Floats, k: int, out: Csr | None = None) -> tuple[Nums, Floats]:
    found: tuple[Nums, Floats] = gpu.topk.topk(gpu.cuda, gpu.item_index.index_items(gpu.cuda, items), users, k, out)
    return found


def is_exact(gpu: SimpleNamespace, users: Floats, items: Floats, k: int, out: Csr | None = None) -> bool:
    nums, scores = search(gpu, users, items, k, out)
    expected_nums, expected_scores = ReferenceKernels().topk(items, users, k, out)
    assert (nums.dtype, scores.dtype) == (np.int32, np.float32)
    return bool((nums == expected_nums).all() and (scores.view(np.uint32) == expected_scores.view(np.uint32)).all())


def normal(rng: np.random.Generator, *shape: int) -> Floats:
    return rng.standard_normal(shape).astype(np.float32)


def some_of(rng: np.random.Generator, users: int, items: int, most: int) -> Csr:
    """Exclusions: of the first user none, of the last all, of the others up to so many."""
    counts = [0, *rng.integers(0, most, users - 2), items]
    return lists([sorted(rng.choice(items, count, replace=False).tolist()) for count in counts])


def spy(gpu: SimpleNamespace, patch: pytest.MonkeyPatch, kernel: str, argument: int) -> list[Any]:
    """What an argument is at each launch of a kernel; one on the device, what it holds after it."""
    launch, seen = gpu.cuda.launch, []

    def noted(name: str, *arguments: Any, shared: int = 0) -> None:
        launch(name, *arguments, shared=shared)
        if name == kernel:
            value = arguments[2 + argument]
            seen.append(value if isinstance(value, int) else gpu.cuda.download(value))

    patch.setattr(gpu.cuda, "launch", noted)
    return seen


@pytest.mark.parametrize("schedule", [(0, 1), (1, 1), (2, 1), (2, 2), (2, 3)])
def test_any_order_of_threads(
    gpu: SimpleNamespace, sizes: bool, schedule: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.cupy, "SCHEDULE", list(schedule), raising=False)  # which a real GPU does not know
    rng = np.random.default_rng(0)
    users, items = normal(rng, 140, 20), normal(rng, 700, 20)
    users[3] = 0
    items[::3] = np.round(items[::3])
    assert is_exact(gpu, users, items, 9, some_of(rng, 140, 700, 60))


@pytest.mark.parametrize("rank", [1, 3, 17, 64, 130])
@pytest.mark.parametrize("k", [1, 2, 70, 200])
def test_any_rank_and_k(gpu: SimpleNamespace, sizes: bool, rank: int, k: int) -> None:
    rng = np.random.default_rng(rank)
    users, items = normal(rng, 5, rank), normal(rng, 900, rank)
    assert is_exact(gpu, users, items, k, some_of(rng, 5, 900, 300))


def test_columns_that_shared_memory_does_not_hold(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    users, items = normal(rng, 130, 200), normal(rng, 1000, 200)
    monkeypatch.setattr(gpu.cuda, "shared_limit", 64 << 10)
    assert is_exact(gpu, users, items, 5)


@pytest.mark.parametrize("k", [1, 40, 64])
def test_ties(gpu: SimpleNamespace, sizes: bool, k: int) -> None:
    """Of all items, and of so many that no buffer holds them: the lower numbers win, of users of zeros too."""
    rng = np.random.default_rng(k)
    users = rng.integers(-1, 2, (9, 4)).astype(np.float32)
    users[2], users[3] = 0, -0.0
    few = rng.integers(-1, 2, (1200, 4)).astype(np.float32)
    for items in (few, np.ones((1200, 4), np.float32), np.zeros((1200, 4), np.float32)):
        assert is_exact(gpu, users, items, k)
        assert is_exact(gpu, users, items, k, some_of(rng, 9, 1200, 900))


@pytest.mark.parametrize("gap", [2.0**-23, 2.0**-16, 2.0**-11])
def test_near_ties(gpu: SimpleNamespace, sizes: bool, gap: float) -> None:
    rng = np.random.default_rng(0)
    users, row = normal(rng, 6, 24), normal(rng, 24)
    items = (row * (1 + gap * rng.uniform(-1, 1, (1500, 24)))).astype(np.float32)
    assert is_exact(gpu, users, items, 30)


@pytest.mark.parametrize("user", [1e-44, 1e-38, 1e-30, 1.0, 1e18, 1e38])
@pytest.mark.parametrize("item", [1e-44, 1e-38, 1e-30, 1.0, 1e18])
def test_any_scale(gpu: SimpleNamespace, user: float, item: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of users and items, down to float32's smallest numbers; items of all scales together, and zeros."""
    if user * item > 1e36:
        pytest.skip("scores would overflow")
    shrink(monkeypatch, gpu.topk)
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((6, 30)) * user / 20, rng.standard_normal((600, 30)) * item / 20
    users[1] *= np.logspace(0, -10, 30)
    for spread in (0, -12, -60):
        some = (items * np.logspace(0, spread, 600)[:, None]).astype(np.float32)
        some[::7] = 0
        assert is_exact(gpu, users.astype(np.float32), some, 11)


def test_the_largest_numbers(gpu: SimpleNamespace) -> None:
    """Rows whose norms are beyond float32."""
    rng = np.random.default_rng(0)
    big, one = np.full((3, 40), 3e38, np.float32), (rng.standard_normal((300, 40)) / 200).astype(np.float32)
    assert is_exact(gpu, big * rng.choice([-1, 1], big.shape).astype(np.float32), one, 7)
    assert is_exact(gpu, one[:5], np.vstack([one, big]), 7)


def test_items_out_of_reach_are_not_looked_at(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cauchy-Schwarz: nothing is nominated behind the first span where norms fall a thousandfold."""
    shrink(monkeypatch, gpu.topk)
    rng = np.random.default_rng(0)
    users, items = np.abs(normal(rng, 128, 8)), np.abs(normal(rng, 1000, 8))
    items[100:] *= 1e-3
    index = gpu.item_index.index_items(gpu.cuda, items)
    with index.on_device() as copies:
        copies.halves[128:].set(np.full((872, 16), 0x7BFF, np.uint16))  # as large as can be: whoever looks sees
    counts = spy(gpu, monkeypatch, "nominate.nominate", 14)
    nums, _ = gpu.topk.topk(gpu.cuda, index, users, 5, None)
    np.testing.assert_array_equal(nums, ReferenceKernels().topk(items, users, 5, None)[0])
    assert len(counts) > 3
    assert (counts[0] == 128).all()
    assert max(count.max() for count in counts[1:]) < 128


def test_best_items_that_come_last_run_over_and_are_found(
    gpu: SimpleNamespace, sizes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores rise as norms fall, so that all of each span pass the limit: first the span again, then exactly."""
    rng = np.random.default_rng(0)
    items = np.abs(normal(rng, 3000, 6)) * np.logspace(2, -2, 3000, dtype=np.float32)[:, None]
    users = -np.abs(normal(rng, 4, 6))
    again = spy(gpu, monkeypatch, "topk.compress", 4)
    assert is_exact(gpu, users, items, 5, some_of(rng, 4, 3000, 500))
    assert any(flags.any() for flags in again)


def test_exclusions_that_look_alike(gpu: SimpleNamespace) -> None:
    """A filter has 4096 bits: the items that share those of the ones left out stay in."""
    rng = np.random.default_rng(0)
    users, items = normal(rng, 3, 4), normal(rng, 4700, 4)
    items[4096:] = items[:604] * np.float32(1 + 2.0**-20)
    best = ReferenceKernels().topk(items[:604], users, 50, None)[0]
    assert is_exact(gpu, users, items, 30, lists([sorted(row) for row in best.tolist()]))


def adversaries() -> tuple[Floats, Floats]:
    """A user, and items the last of which is the best, though float16 takes from it, and gives to the 128 before it, as
    much as it can of numbers of their size: relative to the norms, 0.7 of the margin.
    """
    lower, higher = 1 + 0.99 * 2.0**-11, 1 + 1.01 * 2.0**-11  # become 1, and 1 + 2^-10
    user = np.concatenate([np.full(64, lower), np.full(64, higher), [0]])
    best = np.concatenate([np.full(64, lower), np.zeros(65)])
    other = np.concatenate([np.zeros(64), np.full(61, higher), np.ones(3), [0.3]])  # longer, by what no score shows
    return user[None].astype(np.float32), np.vstack([np.repeat(other[None], 128, axis=0), best]).astype(np.float32)


@pytest.mark.parametrize("behind", [0, 400], ids=["one span", "two spans"])
def test_the_margin_is_needed_and_is_enough(gpu: SimpleNamespace, behind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one span it keeps the best in, in the second it nominates it."""
    monkeypatch.setattr(gpu.topk, "CANDIDATES", 128)
    users, items = adversaries()
    items = np.vstack([items, items[:behind] / 2, items[: behind and 200] / 4])
    assert search(gpu, users, items, 1)[0] == 128
    assert is_exact(gpu, users, items, 1)
    margins = gpu.topk.margins
    for share in (0.0, 0.6):
        monkeypatch.setattr(gpu.topk, "margins", lambda width, s=share: tuple(s * part for part in margins(width)))
        assert search(gpu, users, items, 1)[0] == 0


def test_scores_are_within_their_bounds(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate's bound is above its exact score, by twice the margin at most; rows of very different numbers."""
    rng = np.random.default_rng(0)
    users = normal(rng, 30, 100) * (10.0 ** rng.uniform(-9, 0, (30, 100))).astype(np.float32)
    items = normal(rng, 128, 100) * (10.0 ** rng.uniform(-9, 0, (128, 100))).astype(np.float32)
    index = gpu.item_index.index_items(gpu.cuda, items)
    found = spy(gpu, monkeypatch, "nominate.nominate", 15)
    facts = spy(gpu, monkeypatch, "nominate.begin", 9)
    gpu.topk.topk(gpu.cuda, index, users, 128, None)
    places = (found[0][:, :128] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    bits = (found[0][:, :128] >> np.uint64(32)).astype(np.uint32)
    most = np.where(bits >> np.uint32(31), bits & np.uint32(0x7FFFFFFF), ~bits).astype(np.uint32).view(np.float32)
    assert (np.sort(places, axis=1) == np.arange(128)).all()
    margin, extra, norm, unit = facts[0][:, :, None].transpose(1, 0, 2).astype(np.float64)
    with index.on_device() as copies:
        pass
    scale = gpu.cuda.download(copies.scales)[places].astype(np.float64)
    exact = np.einsum("ur,upr->up", users.astype(np.float64), index.rows[places].astype(np.float64))
    exact *= unit * 2.0**-copies.exponent
    assert (exact < most).all()
    assert (exact > most - 2 * (margin * scale + extra)).all()
    true_norm = np.linalg.norm(users.astype(np.float64), axis=1, keepdims=True) * unit
    assert (norm >= true_norm).all()
    assert (norm < true_norm * (1 + 2.0**-14)).all()


def test_little_memory_makes_small_blocks(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    rng = np.random.default_rng(0)
    users, items = normal(rng, 600, 10), normal(rng, 300, 10)
    index = gpu.item_index.index_items(gpu.cuda, items)
    with index.on_device():
        pass
    ran = spy(gpu, monkeypatch, "nominate.begin", 9)
    pool = gpu.cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + (1 << 20))
    request.addfinalizer(lambda: pool.set_limit(size=gpu.cuda.limit))
    nums, _ = gpu.topk.topk(gpu.cuda, index, users, 5, None)
    np.testing.assert_array_equal(nums, ReferenceKernels().topk(items, users, 5, None)[0])
    assert len(ran) > 1
    assert index.evictable
    index.evict()
    assert not index.evictable
    np.testing.assert_array_equal(gpu.topk.topk(gpu.cuda, index, users[:9], 5, None)[0], nums[:9])


def test_an_index_from_a_file(gpu: SimpleNamespace, tmp_path: Path) -> None:
    """Its rows wider than the users', and memory-mapped."""
    rng = np.random.default_rng(0)
    users, items = normal(rng, 9, 10), normal(rng, 300, 10)
    arrays = gpu.item_index.index_items(gpu.cuda, items).arrays
    np.save(tmp_path / "rows.npy", np.pad(arrays["rows"], ((0, 0), (0, 54))))
    arrays["rows"] = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for name in ("norms", "order"):
        arrays[name].flags.writeable = False
    index = gpu.item_index.index_from(gpu.cuda, arrays)
    found = gpu.topk.topk(gpu.cuda, index, users, 8, None)
    for one, other in zip(found, ReferenceKernels().topk(items, users, 8, None), strict=True):
        np.testing.assert_array_equal(one, other)
    assert gpu.topk.topk(gpu.cuda, index, users[:0], 8, None)[0].shape == (0, 8)


def test_a_block_goes_through_many_tiles(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is work for all processors: one tile's products while the next one's rows are on their way."""
    monkeypatch.setattr(gpu.topk, "CANDIDATES", 128)
    monkeypatch.setattr(gpu.topk, "PER_K", 2)
    monkeypatch.setattr(gpu.topk, "BLOCKS", 1)
    monkeypatch.setattr(gpu.cuda, "processors", 1)
    tiles = spy(gpu, monkeypatch, "nominate.nominate", 11)
    rng = np.random.default_rng(0)
    for rank in (70, 9):  # columns in two chunks, and in one
        assert is_exact(gpu, normal(rng, 5, rank), normal(rng, 1500, rank), 6)
    assert max(tiles) > 3


@pytest.mark.parametrize("schedule", [(0, 1), (1, 1), (2, 5)])
def test_scores_that_rise_from_item_to_item(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, schedule: tuple[int, int]
) -> None:
    """Each is better than all before it, so buffers run over again and again, at any moment."""
    shrink(monkeypatch, gpu.topk)
    monkeypatch.setattr(gpu.cupy, "SCHEDULE", list(schedule), raising=False)
    items = np.linspace(3, 1, 700, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    for k in (40, 55, 60):
        assert is_exact(gpu, -np.ones((3, 3), np.float32), items, k)
