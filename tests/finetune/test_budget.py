"""--trainable: never more than the share, as much as fits, and what cannot fit is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from recli.config import FinetuneConfig
from recli.errors import UsageError
from recli.finetune import NewData
from recli.finetune.base import Base, Side
from recli.finetune.budget import choose
from recli.finetune.rows import bias_learner, rows_learner
from recli.ids import Csr
from recli.kernels import load
from recli.kernels.reference import ReferenceKernels
from recli.kernels.spec import Kernels
from tests.finetune.models import ITEMS, SETTINGS, USERS, fitted, new_data, tuned

ADAPTERS = ("bias", "rows", "scale", "bilinear", "lora", "head")


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 2) as kernels, threadpool_limits(1):  # small products are slower on more
        yield kernels


@pytest.mark.parametrize("share", [0.04, 0.15, 0.4, 0.97])
@pytest.mark.parametrize(
    ("adapter", "fit"), [("rows", "closed"), ("lora", "closed"), *((adapter, "gradient") for adapter in ADAPTERS)]
)
@pytest.mark.parametrize("name", ["rendle", "als", "svd, bias"])
def test_what_is_trained_is_never_above_the_budget(
    name: str, adapter: str, fit: str, share: float, cpu: Kernels
) -> None:
    factors, data = fitted(cpu, **SETTINGS[name]), new_data(new=(0, 0))
    try:
        delta, outcome = tuned(factors, data, cpu, adapter=adapter, fit=fit, trainable=share, epochs=1)
    except UsageError:
        assert share < 0.3
        return
    biases = 0 if name == "rendle" else USERS + ITEMS + 1
    assert outcome.total == (USERS + ITEMS) * 5 + biases
    assert 0 < outcome.trained <= share * outcome.total
    constants = ("users", "items", "scale")
    held = sum(part.size for part_name, part in delta.parts.items() if part_name not in constants)
    fixed = 1 if fit == "closed" and adapter == "rows" and name == "als" else 0  # b, which is zero
    assert held - fixed == outcome.trained


def base_of(users: int, items: int, rank: int, touched: Any, biased: bool = False) -> Base:
    level = np.float32(biased)
    return Base(
        Side(np.ones((users, rank), np.float32), np.zeros((0, rank), np.float32), np.full(users, level), touched[0]),
        Side(np.ones((items, rank), np.float32), np.zeros((0, rank), np.float32), np.full(items, level), touched[1]),
        float(level),
    )


def data_of(counts: list[int], items: int) -> NewData:
    """So many pairs a user, of the first items."""
    indices = [np.arange(count) for count in counts]
    indptr = np.append(0, np.cumsum(counts)).astype(np.int64)
    matrix = Csr(indptr, np.concatenate(indices).astype(np.int32), np.ones(indptr[-1], np.float32))
    return NewData(matrix, matrix, len(counts), items)


@settings(max_examples=150)
@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=40).filter(any),
    rank=st.integers(1, 12),
    share=st.floats(0.001, 1),
    biased=st.booleans(),
    adapter=st.sampled_from([*ADAPTERS, "full"]),
)
def test_the_choice_is_the_largest_that_fits(
    counts: list[int], rank: int, share: float, biased: bool, adapter: str
) -> None:
    data = data_of(counts, 6)
    base = base_of(len(counts), 6, rank, data.touched, biased)
    limit = int(share * base.parameters)
    kernels, config = ReferenceKernels(), FinetuneConfig(adapter=adapter, trainable=share, fit="gradient")
    known = sum(map(len, data.touched))
    sizes = {
        "lora": lambda chosen: chosen * (known + 2 * rank),
        "bilinear": lambda chosen: chosen * 2 * rank,
        "head": lambda chosen: (3 * rank + 1) * (chosen + 1) + 1 + 2 * chosen,
    }
    try:
        found = choose(base, data, config)
    except UsageError:
        least = sizes[adapter](1) if adapter in sizes else {"scale": rank}.get(adapter)
        if adapter in ("rows", "bias", "full"):
            learner = (bias_learner if adapter == "bias" else rows_learner)(base, data.touched, config, kernels)
            b = int(biased or adapter == "bias")
            width = 1 if adapter == "bias" else rank + biased
            least = base.parameters if adapter == "full" else width + b
            assert learner.size == known * width + b
        assert least is not None
        assert least > limit
        return
    if adapter in sizes:
        chosen = found.config.hidden if adapter == "head" else found.config.rank
        assert sizes[adapter](chosen) <= limit
        assert sizes[adapter](chosen + 1) > limit or (chosen == rank and adapter != "head")
        assert str(chosen) in found.text
    elif adapter in ("rows", "bias"):
        learner = (bias_learner if adapter == "bias" else rows_learner)(base, found.nums, config, kernels)
        assert learner.size <= limit
        count = sum(map(len, found.nums))
        width = 1 if adapter == "bias" else rank + biased
        assert count == known or learner.size + width > limit
        assert f"{len(found.nums[0]):,} users and {len(found.nums[1]):,} items" in found.text
    else:
        assert found.config == config


def test_the_rows_with_the_most_new_pairs_are_kept() -> None:
    """Of users with 1 to 5 pairs of the first items: item 0 has five, item 4 one. Ties go to users, then lower
    numbers.
    """
    data = data_of([1, 5, 3, 2, 4, 0], 6)
    base = base_of(6, 6, 2, data.touched)
    found = choose(base, data, FinetuneConfig(adapter="rows", trainable=5 * 2 / base.parameters + 1e-9))
    assert [nums.tolist() for nums in found.nums] == [[1, 2, 4], [0, 1]]
    assert found.text == "3 users and 2 items with the most new pairs"


def test_new_ids_come_on_top(cpu: Kernels) -> None:
    """Their rows are none of the base's: they are trained as well, whatever the budget."""
    factors, data = fitted(cpu, solver="ials"), new_data()
    base = base_of(USERS, ITEMS, 5, data.touched)
    found = choose(base, data, FinetuneConfig(adapter="rows", trainable=0.05))
    assert all(nums.max(initial=0) < count for nums, count in zip(found.nums, (USERS, ITEMS), strict=True))
    delta, _ = tuned(factors, data, cpu, adapter="rows", trainable=0.05)
    assert len(delta.parts["users"]) + len(delta.parts["items"]) == 5
    assert delta.P.any(axis=1).all()
    assert delta.Q.any(axis=1).all()


def test_without_a_budget_all_that_is_touched_is_trained() -> None:
    data = data_of([1, 0, 2], 6)
    base = base_of(3, 6, 2, data.touched)
    found = choose(base, data, FinetuneConfig(adapter="rows"))
    assert [nums.tolist() for nums in found.nums] == [[0, 2], [0, 1]]
    assert found.text == ""
    found = choose(base, data, FinetuneConfig(adapter="full"))
    assert [len(nums) for nums in found.nums] == [3, 6]


@pytest.mark.parametrize(
    ("adapter", "share", "message"),
    [
        ("rows", 0.009, "--trainable 0.9%: allows 4 numbers, --adapter rows takes 5 at least"),
        ("bias", 0.001, "allows 0 numbers, --adapter bias takes 2 at least"),
        ("lora", 0.01, "too little for rank 1 of --adapter lora, which takes"),
        ("bilinear", 0.001, "too little for rank 1 of --adapter bilinear, which takes 10 numbers"),
        ("head", 0.05, "allows 25 numbers, a head takes 35 at least"),
        ("scale", 0.005, "allows 2 numbers, --adapter scale trains 5"),
        ("full", 0.99, "--adapter full trains 500"),
    ],
)
def test_what_cannot_fit_is_said(adapter: str, share: float, message: str) -> None:
    data = data_of([3] * 60, 40)
    base = base_of(60, 40, 5, data.touched)
    with pytest.raises(UsageError, match=message):
        choose(base, data, FinetuneConfig(adapter=adapter, trainable=share))


def test_hidden_units_stay_below_what_the_settings_allow() -> None:
    data = data_of([1], 6)
    base = base_of(1, 6, 1, data.touched)
    huge = dataclasses.replace(base, users=dataclasses.replace(base.users, rows=np.zeros((10_000_000, 1), np.float32)))
    found = choose(huge, data, FinetuneConfig(adapter="head", trainable=1.0))
    assert found.config.hidden == 65536
    assert found.text == "65536 hidden units"
