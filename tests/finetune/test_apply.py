"""Base and delta are the model that training had, for every adapter; and what does not fit is refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors, Provenance, text_ids, texts
from recli.config import FinetuneConfig
from recli.errors import DataError, UsageError
from recli.finetune import Adapter, NewData, Watch, apply, chain_problem, check_mergeable, finetune
from recli.finetune.apply import joined
from recli.finetune.base import Base
from recli.finetune.features import Attributes
from recli.finetune.learner import Learner
from recli.finetune.solve import solve_lora, solve_rows
from recli.ids import Csr, Ids
from recli.kernels import load
from recli.kernels.spec import Kernels
from tests.finetune.models import (
    CHAIN,
    ITEMS,
    NEW_ITEMS,
    NEW_USERS,
    RANK,
    SETTINGS,
    USERS,
    csr,
    dense,
    fitted,
    new_data,
    predictions,
    task_of,
    tuned,
)
from tests.finetune.test_closed import form

F = np.float32
GRADIENT = ("bias", "rows", "scale", "bilinear", "lora", "features", "full")
KNOWN = USERS, ITEMS


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 2) as kernels, threadpool_limits(1):  # small products are slower on more
        yield kernels


def attributes(rows: int, columns: int, seed: int) -> Attributes:
    """Of every other id, random numbers, and ones."""
    rng = np.random.default_rng(seed)
    there = np.arange(rows) % 2 == 0
    table = np.column_stack([rng.standard_normal((rows, columns)), np.ones(rows)])
    matrix = csr({n: dict(enumerate(table[n])) for n in np.flatnonzero(there).tolist()}, rows)
    return Attributes(matrix, there, tuple(f"f{column}" for column in range(columns)))


def both_attributes(data: NewData) -> dict[str, Attributes]:
    return {"user": attributes(data.users, 4, 0), "item": attributes(data.items, 3, 1)}


@pytest.mark.parametrize("name", ["rendle", "als"])
@pytest.mark.parametrize("adapter", GRADIENT)
def test_the_model_is_what_training_had(adapter: str, name: str, cpu: Kernels) -> None:
    """The learner's rows after the last epoch, of known and new ids."""
    factors, data, seen = fitted(cpu, **SETTINGS[name]), new_data(), list[Learner]()

    def watch(base: Base) -> Watch:
        def validate(learner: Learner) -> float:
            seen.append(learner)
            return float(len(seen))  # each epoch is the best

        return Watch(validate=validate)

    config = FinetuneConfig(adapter=adapter, fit="gradient", epochs=3, learning_rate=0.05, rank=2)
    task = task_of(factors, data, both_attributes(data) if adapter == "features" else None)
    delta, _ = finetune(task, config, cpu, watch)
    found, learner = apply(factors, delta), seen[-1]
    users, items = np.arange(data.users), np.arange(data.items)
    b_u, b_v, b = learner.biases.take(users, items)
    P, Q = cpu.host(learner.users.take(users)).astype(float), cpu.host(learner.items.take(items)).astype(float)
    wanted = P @ Q.T + b_u[:, None] + b_v + b
    np.testing.assert_allclose(predictions(found), wanted, atol=1e-5 * np.abs(wanted).max())
    before = predictions(factors)
    assert np.abs(predictions(found)[:USERS, :ITEMS] - before).max() > 1e-3 * np.abs(before).max()
    assert (found.P.shape, found.Q.shape) == ((data.users, RANK), (data.items, RANK))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("adapter", ["rows", "lora"])
def test_the_model_is_what_the_closed_form_had(adapter: str, settings: dict[str, Any], cpu: Kernels) -> None:
    factors, data = fitted(cpu, **settings), new_data()
    delta, outcome = tuned(factors, data, cpu, adapter=adapter, fit="closed", epochs=2, rank=2)
    closed = form(factors, data, cpu)
    users, items = data.touched
    nums = users[users < USERS], items[items < ITEMS]
    if adapter == "rows":
        solve_rows(closed, nums, KNOWN, data, 2)
    else:
        solve_lora(closed, nums, KNOWN, data, FinetuneConfig(rank=2), 2)
    found = apply(factors, delta)
    P, Q = closed.tables
    biased = closed.biased
    np.testing.assert_allclose(found.P[:], P[:, :RANK], atol=1e-5)
    np.testing.assert_allclose(found.Q[:], Q[:, :RANK], atol=1e-5)
    np.testing.assert_allclose(found.b_u, closed.biases(0), atol=1e-5)
    np.testing.assert_allclose(found.b_v, closed.biases(1), atol=1e-5)
    if not biased:
        np.testing.assert_array_equal(found.b_u[:USERS], factors.b_u)
        np.testing.assert_array_equal(found.b_v[:ITEMS], factors.b_v)
    assert float(found.b) == float(factors.b)
    assert outcome.fit == "closed"
    untouched = np.setdiff1d(np.arange(USERS), nums[0])
    np.testing.assert_array_equal(found.P[untouched], factors.P[untouched])


def test_a_head_leaves_the_model_below_it_as_it_is(cpu: Kernels) -> None:
    factors, data = fitted(cpu, solver="ials"), new_data()
    delta, _ = tuned(factors, data, cpu, adapter="head", epochs=1)
    found = apply(factors, delta)
    np.testing.assert_array_equal(found.P[:USERS], factors.P)
    np.testing.assert_array_equal(found.Q[:ITEMS], factors.Q)
    with pytest.raises(UsageError, match=r"--merge: d.npz is a head, which is no low-rank model and cannot be merged"):
        check_mergeable(delta, "d.npz")
    check_mergeable(tuned(factors, data, cpu)[0], "d.npz")


def test_new_ids_and_their_pairs_are_in_the_model(cpu: Kernels) -> None:
    factors, data = fitted(cpu, solver="ials"), new_data(ones=True)
    delta, _ = tuned(factors, data, cpu)
    found = apply(factors, delta)
    assert found.user_ids.values.tolist() == list(range(data.users))
    assert found.item_ids.values.tolist() == list(range(data.items))
    assert found.seen is not None
    assert factors.seen is not None
    old = np.full((data.users, data.items), np.nan)
    old[:USERS, :ITEMS] = dense(with_ones(factors.seen), ITEMS)
    united = ~np.isnan(old) | ~np.isnan(dense(data.matrix, data.items))
    assert found.seen_values is None  # all are ones
    np.testing.assert_array_equal(~np.isnan(dense(with_ones(found.seen), data.items)), united)
    np.testing.assert_array_equal(found.item_counts, united.sum(axis=0))
    assert found.provenance.inputs == ["new"]
    assert found.provenance.config["adapters"] == ["rows"]
    assert found.provenance.config["solver"] == "ials"


def with_ones(matrix: Csr) -> Csr:
    return matrix._replace(values=np.ones(len(matrix.indices), F))


@pytest.mark.parametrize("name", ["als", "rendle, weights, nu", "rendle"])
def test_of_a_pair_that_is_there_again_the_new_value_counts(name: str, cpu: Kernels) -> None:
    factors, data = fitted(cpu, **SETTINGS[name]), new_data()
    found = apply(factors, tuned(factors, data, cpu)[0])
    assert found.seen is not None
    assert factors.seen is not None
    wanted = np.full((data.users, data.items), np.nan)
    old = factors.seen if factors.seen_values is not None else with_ones(factors.seen)
    wanted[:USERS, :ITEMS] = dense(old, ITEMS)
    new = dense(data.matrix, data.items)
    assert (~np.isnan(new) & ~np.isnan(wanted)).any()
    wanted[~np.isnan(new)] = new[~np.isnan(new)]
    np.testing.assert_array_equal(dense(found.seen, data.items), wanted)
    np.testing.assert_array_equal(found.item_counts, (~np.isnan(wanted)).sum(axis=0))


def test_a_base_without_seen_lists_stays_without(cpu: Kernels) -> None:
    factors, data = fitted(cpu, solver="ials", seen=False), new_data()
    found = apply(factors, tuned(factors, data, cpu)[0])
    assert found.seen is None
    assert found.seen_values is None
    counts = (~np.isnan(dense(data.matrix, data.items))).sum(axis=0)
    counts[:ITEMS] += factors.item_counts
    np.testing.assert_array_equal(found.item_counts, counts)


@pytest.mark.parametrize("adapters", [("rows", "lora"), ("lora", "bias"), ("bias", "bilinear"), ("scale", "rows")])
def test_a_delta_is_trained_on_top_of_another(adapters: tuple[str, str], cpu: Kernels) -> None:
    """The second one's base is the first one's model: its changes add to those, and so do its ids."""
    factors = fitted(cpu, solver="ials")
    first, _ = tuned(factors, new_data(0), cpu, adapter=adapters[0], epochs=1)
    between = apply(factors, first)
    larger = new_data(1, (NEW_USERS + 2, NEW_ITEMS + 1))
    task = dataclasses.replace(task_of(between, larger), chain=(*CHAIN, "first"))
    second, _ = finetune(task, FinetuneConfig(adapter=adapters[1], epochs=1), cpu)
    found = apply(between, second)
    assert (len(found.user_ids), len(found.item_ids)) == (larger.users, larger.items)
    assert found.provenance.config["adapters"] == list(adapters)
    assert second.chain == ("base", "first")
    assert len(second.new_user_ids) == 2
    assert np.isfinite(predictions(found)).all()
    assert found.seen is not None
    united = [*zip(*np.nonzero(~np.isnan(dense(found.seen, larger.items))), strict=True)]
    for data in (new_data(0), larger):
        there = ~np.isnan(dense(data.matrix, data.items))
        assert {*zip(*np.nonzero(there), strict=True)} <= {*united}


def plain(**changes: Any) -> Adapter:
    """Of the base of `base_of`: two users and one item are new."""
    fields: dict[str, Any] = {
        "adapter": "rows",
        "chain": CHAIN,
        "parts": {
            "users": np.array([0, 4]),
            "items": np.array([2]),
            "P": np.ones((2, 2), F),
            "Q": np.ones((1, 2), F),
        },
        "new_user_ids": Ids(np.array([10, 11])),
        "new_item_ids": Ids(np.array([12])),
        "P": np.full((2, 2), 3, F),
        "Q": np.full((1, 2), 4, F),
        "b_u": np.zeros(2, F),
        "b_v": np.zeros(1, F),
        "seen": Csr(np.array([0, 0, 0, 0, 1, 2]), np.array([3, 0], np.int32), np.ones(2, F)),
    }
    return Adapter(**{**fields, **changes})


def base_of(**changes: Any) -> Factors:
    """Three users and three items."""
    fields: dict[str, Any] = {
        "P": np.ones((3, 2), F),
        "Q": np.ones((3, 2), F),
        "b_u": np.zeros(3, F),
        "b_v": np.zeros(3, F),
        "b": np.array(0, F),
        "user_ids": Ids(np.arange(3)),
        "item_ids": Ids(np.arange(3)),
        "item_counts": np.array([1, 1, 0]),
        "seen_indptr": np.array([0, 1, 2, 2]),
        "seen_indices": np.array([0, 1], np.int32),
    }
    return Factors(**{**fields, **changes})


def test_rows_are_added_to_those_of_known_and_new_ids() -> None:
    found = apply(base_of(), plain())
    np.testing.assert_array_equal(found.P, [[2, 2], [1, 1], [1, 1], [3, 3], [4, 4]])
    np.testing.assert_array_equal(found.Q, [[1, 1], [1, 1], [2, 2], [4, 4]])
    assert found.item_counts.tolist() == [2, 1, 0, 1]


def parts(**changes: Any) -> dict[str, Any]:
    return {"parts": {name: part for name, part in {**plain().parts, **changes}.items() if part is not None}}


LORA: dict[str, NDArray[Any]] = {
    "users": np.array([0, 4]),
    "items": np.array([2]),
    "A_P": np.ones((2, 1), F),
    "B_P": np.ones((1, 2), F),
    "A_Q": np.ones((1, 1), F),
    "B_Q": np.ones((1, 2), F),
}
LINKS = {
    "F_user_indptr": np.array([0, 1, 1, 1, 1, 2]),
    "F_user_indices": np.array([0, 1], np.int32),
    "F_user_values": np.ones(2, F),
    "D_user": np.ones((2, 2), F),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"P": np.zeros((2, 3), F), "Q": np.zeros((1, 3), F)},
            "array P: expected rows of 2 numbers, as the model has, found 3",
        ),
        (
            {"seen": Csr(np.zeros(4, np.int64), np.zeros(0, np.int32), np.zeros(0, F))},
            "array seen_indptr: expected 6 numbers, found 4",
        ),
        (
            {"seen": Csr(np.array([0, 0, 0, 0, 0, 1]), np.array([4], np.int32), np.ones(1, F))},
            "array seen_indices: expected numbers below 4, found 4 to 4",
        ),
        ({"new_user_ids": text_ids(["a", "b"])}, "expected ids of the model's type"),
        ({"new_item_ids": text_ids(["12"])}, "expected ids of the model's type"),
        (parts(users=np.array([0, 5])), "array users: expected ascending numbers below 5"),
        (parts(users=np.array([-1, 0])), "array users: expected ascending numbers below 5"),
        (parts(users=np.array([1, 1])), "array users: expected ascending numbers below 5"),
        (parts(users=np.array([1, 0])), "array users: expected ascending numbers below 5"),
        (parts(users=np.array([0, 4], np.int32)), "array users: expected int64 numbers, found int32[2]"),
        (parts(users=np.array(0)), "array users: expected int64 numbers, found int64[]"),
        (parts(items=np.array([4])), "array items: expected ascending numbers below 4"),
        (parts(items=None), "array part_items is missing"),
        (parts(P=None), "array part_P is missing"),
        (parts(P=np.ones((2, 3), F)), "array P: expected float32[2, 2], found float32[2, 3]"),
        (parts(Q=np.full((1, 2), np.nan, F)), "array Q: expected finite numbers"),
        (parts(P=np.full((2, 2), 3e38, F)), None),
        (parts(b_u=np.zeros((2, 1), F)), "array part_b_v is missing"),
        (
            parts(b_u=np.zeros((2, 1), F), b_v=np.zeros((1, 1), F), b=np.zeros(1, F)),
            "array b: expected float32[1, 1], found float32[1]",
        ),
        ({"adapter": "scale", "parts": {"m": np.ones(2, F)}}, "array m: expected float32[1, 2], found float32[2]"),
        ({"adapter": "scale", "parts": {}}, "array part_A is missing"),
        (
            {"adapter": "bilinear", "parts": {"A": np.ones((2, 1), F), "B": np.ones((2, 2), F)}},
            "array B: expected float32[2, 1], found float32[2, 2]",
        ),
        ({"adapter": "bilinear", "parts": {"A": np.array(0, F), "B": np.ones((2, 2), F)}}, "array A: expected"),
        ({"adapter": "lora", "parts": {**LORA, "B_P": np.array(1, F)}}, "array B_P: expected float32[1, 2]"),
        ({"adapter": "lora", "parts": {**LORA, "B_P": np.ones((1, 4), F)}}, "array B_P: expected float32[1, 2]"),
        ({"adapter": "lora", "parts": {**LORA, "A_Q": np.ones((2, 1), F)}}, "array A_Q: expected float32[1, 1]"),
        ({"adapter": "lora", "parts": {**LORA, "A_P": np.ones(2, F)}}, "array A_P: expected float32[2, -1]"),
        ({"adapter": "features", "parts": {**LINKS, "D_user": np.array(0, F)}}, "array D_user: expected float32"),
        ({"adapter": "features", "parts": {**LINKS, "D_user": np.ones((2, 3), F)}}, "array D_user: expected float32"),
        (
            {"adapter": "features", "parts": {**LINKS, "D_user": np.ones((1, 2), F)}},
            "array F_user_indices: expected numbers below 1",
        ),
        (
            {"adapter": "features", "parts": {**LINKS, "F_user_indptr": np.array([0, 1, 2])}},
            "array F_user_indptr: expected int64[6], found int64[3]",
        ),
        (
            {"adapter": "features", "parts": {**LINKS, "F_user_values": np.ones(3, F)}},
            "array F_user_values: expected float32[2], found float32[3]",
        ),
        ({"adapter": "head", "parts": {}}, "array part_V is missing"),
    ],
)
def test_a_delta_that_does_not_fit_is_refused(changes: dict[str, Any], message: str | None) -> None:
    delta = plain(**changes)
    if message is None:
        message = "the model with the adapter overflows float32"
        base = base_of(P=np.full((3, 2), 3e38, F))
    else:
        base = base_of()
    with pytest.raises(DataError, match=re.escape(message)):
        apply(base, delta)


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": "scale", "parts": {"m": np.full((1, 2), 1e30, F)}},
        {"adapter": "bilinear", "parts": {"A": np.full((2, 1), 3e38, F), "B": np.full((2, 1), 3e38, F)}},
        {"adapter": "lora", "parts": {**LORA, "A_P": np.full((2, 1), 3e38, F), "B_P": np.full((1, 2), 3e38, F)}},
        {"adapter": "features", "parts": {**LINKS, "D_user": np.full((2, 2), 3e38, F)}},
        {"adapter": "bias"}
        | parts(P=None, Q=None, b_u=np.full((2, 1), 3e38, F), b_v=np.zeros((1, 1), F), b=np.zeros((1, 1), F)),
        {"adapter": "bias"}
        | parts(P=None, Q=None, b_u=np.zeros((2, 1), F), b_v=np.zeros((1, 1), F), b=np.full((1, 1), 3e38, F)),
    ],
    ids=["scale", "bilinear", "lora", "features", "bias", "level"],
)
def test_what_overflows_is_refused(changes: dict[str, Any]) -> None:
    large = np.full(3, 3e38, F)
    base = base_of(P=np.full((3, 2), 3e38, F), Q=np.full((3, 2), 3e38, F), b_u=large, b=np.array(3e38, F))
    with pytest.raises(DataError, match="the model with the adapter overflows float32"):
        apply(base, plain(**changes))


def test_text_ids_are_joined() -> None:
    known, new = text_ids(["a", "", "éé"]), text_ids(["b", "ç"])
    assert texts("ids", joined(known, new)) == ("a", "", "éé", "b", "ç")
    assert joined(known, text_ids([])) is known
    with pytest.raises(DataError, match="expected ids of the model's type"):
        joined(known, Ids(np.array([1])))


@pytest.mark.parametrize(
    ("trained_on", "given", "message"),
    [
        (("a",), ("a",), None),
        (("a", "b"), ("a", "b"), None),
        (("a",), ("x",), "an adapter for another base"),
        (("a", "b"), ("x", "b"), "an adapter for another base"),
        (("a", "b"), ("a",), "trained on the base and 1 adapter before it, found 0"),
        (("a",), ("a", "b", "c"), "trained on the base and 0 adapters before it, found 2"),
        (("a", "b", "c"), ("a", "c", "b"), "on other adapters before it, or on these in another order"),
    ],
)
def test_what_a_delta_was_not_trained_on(
    trained_on: tuple[str, ...], given: tuple[str, ...], message: str | None
) -> None:
    found = chain_problem(plain(chain=trained_on, provenance=Provenance()), given)
    assert found is None if message is None else message in (found or "")


@pytest.mark.parametrize(
    ("known", "new", "wide"),
    [(np.int32, np.int64, np.int64), (np.int64, np.int32, np.int64), (np.uint8, np.int16, np.int16)],
)
def test_integer_ids_of_two_widths_are_joined(known: type, new: type, wide: type) -> None:
    found = joined(Ids(np.array([3, 1], known)), Ids(np.array([7, 9], new)))
    assert found.values.tolist() == [3, 1, 7, 9]
    assert found.values.dtype == wide


def test_ids_that_no_integer_type_holds_together_are_refused() -> None:
    with pytest.raises(DataError, match="expected ids of the model's type"):
        joined(Ids(np.array([2**63], np.uint64)), Ids(np.array([-1], np.int64)))


@pytest.mark.parametrize(("policy", "expected"), [("last", 2), ("first", 18), ("sum", 20), ("max", 18), ("mean", 2)])
def test_a_pair_that_is_there_again_counts_as_the_model_s_data_says(policy: str, expected: int, cpu: Kernels) -> None:
    factors = fitted(cpu, solver="ials", alpha=1.0)
    assert factors.seen is not None
    item = int(factors.seen.indices[0])
    values = np.full(len(factors.seen.indices), 18, F)
    config = {**factors.provenance.config, "reading": {"duplicates": policy}}
    factors = dataclasses.replace(factors, seen_values=values, provenance=Provenance(config=config))
    matrix = csr({0: {item: 2.0}}, USERS)
    delta, _ = tuned(factors, NewData(matrix, matrix, USERS, ITEMS), cpu, adapter="rows")
    found = apply(factors, delta)
    assert found.seen is not None
    assert found.seen_values is not None
    at = int(np.flatnonzero(found.seen.indices[: found.seen.indptr[1]] == item)[0])
    assert found.seen_values[at] == expected
