"""features: the ridge regression against float64 least squares, planted maps, and ids that nobody has met."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors, Features, Provenance
from recli.errors import DataError
from recli.finetune import NewData, apply, features, with_attributes
from recli.finetune.artifact import Parts
from recli.finetune.features import Attributes, apply_features, features_parts, learned_map, ridge
from recli.finetune.tables import Tables
from recli.ids import Csr, Ids
from recli.kernels import load
from recli.kernels.spec import Kernels
from tests.finetune.models import ITEMS, SETTINGS, csr, dense, fitted, new_data, predictions, tuned
from tests.models import bare

F = np.float32


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 2) as kernels, threadpool_limits(1):  # small products are slower on more
        yield kernels


def known_of(rows: int = 6, **changes: Any) -> Features:
    """Two sparse columns and three dense ones, of which one is a statistic; id 2 has no attributes."""
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {
        "ids": Ids(np.arange(rows)),
        "sparse": csr({0: {0: 1.0}, 3: {0: 2.0, 1: 3.0}, 5: {1: 1.0}}, rows),
        "dense": rng.standard_normal((rows, 3)).astype(F),
        "sparse_names": ("genre=a", "genre=b"),
        "dense_names": ("age", "statistics.count", "price"),
        "has_row": np.arange(rows) != 2,
    }
    return Features(**{**fields, **changes})


def test_attributes_are_sparse_and_dense_columns_and_a_constant() -> None:
    """In the order of the ids asked for; statistics are left out, and ids without attributes have nothing."""
    known = known_of()
    found = Attributes.of(known, np.array([3, -1, 2, 0, 5]))
    assert found.names == ("genre=a", "genre=b", "age", "price")
    assert found.columns == 5
    assert found.there.tolist() == [True, False, False, True, True]
    whole = np.nan_to_num(dense(found.matrix, 5))
    rows = known.dense[:, [0, 2]]
    expected = np.zeros((5, 5))
    expected[0] = [2, 3, *rows[3], 1]
    expected[3] = [1, 0, *rows[0], 1]
    expected[4] = [0, 1, *rows[5], 1]
    np.testing.assert_allclose(whole, expected)
    assert found.matrix.indptr.dtype == np.int64
    assert found.matrix.indices.dtype == np.int32
    assert found.matrix.values.dtype == F
    W = np.random.default_rng(1).standard_normal((5, 3)).astype(F)
    np.testing.assert_allclose(found.times(W), expected @ W, atol=1e-5)
    assert not found.times(W)[1].any()


def test_values_that_stand_for_missing_ones_are_no_attributes() -> None:
    """A sparse row of an id without attributes counts as little as its dense one."""
    known = known_of(sparse=csr({2: {0: 1.0}}, 6))
    found = Attributes.of(known, np.array([2]))
    assert not found.there[0]
    assert not found.times(np.ones((5, 2), F)).any()


def test_too_many_columns_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MOST_COLUMNS", 5)
    Attributes.of(known_of(), np.array([0]))
    monkeypatch.setattr(features, "MOST_COLUMNS", 4)
    with pytest.raises(DataError, match="4 columns of features, expected fewer than 4: featurize --reduce or --select"):
        Attributes.of(known_of(), np.array([0]))


@given(
    n=st.integers(2, 30),
    columns=st.integers(0, 8),
    reg=st.sampled_from([1e-3, 1.0, 100.0]),
    seed=st.integers(0, 1000),
)
def test_ridge_is_least_squares_with_a_row_for_each_penalty(n: int, columns: int, reg: float, seed: int) -> None:
    """The constant's own weights are free; numbers of interactions weigh as they are to their mean."""
    rng = np.random.default_rng(seed)
    table = np.column_stack([rng.standard_normal((n, columns)), np.ones(n)])
    rows, weights = rng.standard_normal((n, 3)), rng.uniform(0.1, 10, n)
    found = ridge(sp.csr_array(table), rows, weights, reg)
    root = np.sqrt(weights / weights.mean())[:, None]
    penalty = np.sqrt(reg) * np.eye(columns + 1)[:columns]
    squares = np.vstack([root * table, penalty])
    wanted = np.linalg.lstsq(squares, np.vstack([root * rows, np.zeros((columns, 3))]), rcond=None)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
    np.testing.assert_allclose(ridge(sp.csr_array(table), rows, weights * 7, reg), found, atol=1e-8)


Planted = tuple[Attributes, NDArray[np.float32], NDArray[np.float64], NDArray[np.float32], Csr]


def planted_map(noise: float = 0.05, warm: int = 150, cold: int = 40) -> Planted:
    """Items whose rows are linear in their attributes but for some noise; users who have their best thirty of them.
    Cold items are the last ones: they have no rows.
    """
    rng = np.random.default_rng(3)
    n = warm + cold
    table = np.column_stack([rng.standard_normal((n, 6)), np.ones(n)])
    W = rng.standard_normal((7, 4))
    Q = table @ W
    Q[:warm] += noise * rng.standard_normal((warm, 4))
    P = rng.standard_normal((80, 4)).astype(F)
    best = np.argsort(-(P @ Q[:warm].T), axis=1)[:, :30]
    had = csr({user: dict.fromkeys(best[user].tolist(), 1.0) for user in range(80)}, 80)
    matrix = csr({row: dict(enumerate(table[row])) for row in range(n)}, n)
    attributes = Attributes(matrix, np.ones(n, bool), tuple("abcdef"))
    return attributes, Q.astype(F), W, P, had


def by_item(had: Csr, items: int) -> Csr:
    found = dense(had, items).T
    return csr({row: {int(u): 1.0 for u in np.flatnonzero(~np.isnan(found[row]))} for row in range(items)}, items)


@pytest.mark.parametrize("reg", [None, 1e-3])
def test_a_planted_map_is_found(reg: float | None, cpu: Kernels) -> None:
    attributes, Q, W, P, had = planted_map()
    rows, items = Q[:150], by_item(had, 150)
    counts = np.diff(items.indptr)
    found, chosen = learned_map(attributes, rows, counts, P, items, reg, 0, cpu)
    assert found.dtype == F
    assert found.shape == W.shape
    assert chosen["reg"] in (features.REG if reg is None else (reg,))
    assert chosen["power"] in features.POWER
    made = attributes.times(found)[150:]
    assert np.abs(made - Q[150:]).max() < (0.5 if reg is None else 0.1) * np.abs(Q).max()
    if reg is not None:
        np.testing.assert_allclose(found, W, atol=0.05)
    again, _ = learned_map(attributes, rows, counts, P, items, reg, 0, cpu)
    np.testing.assert_array_equal(found, again)


def test_what_attributes_do_not_say_is_regularised_away(cpu: Kernels) -> None:
    """Hundreds of columns of noise: the most regularised map ranks ids that are taken to be cold best."""
    attributes, Q, _, P, had = planted_map(noise=1.0)
    rng = np.random.default_rng(0)
    table = np.nan_to_num(dense(attributes.matrix, 7))
    wide = np.column_stack([table[:, :6], rng.standard_normal((len(table), 120)), table[:, 6]])
    noisy = Attributes(
        csr({row: dict(enumerate(wide[row])) for row in range(len(wide))}, len(wide)),
        attributes.there,
        tuple(f"c{column}" for column in range(126)),
    )
    items = by_item(had, 150)
    counts = np.diff(items.indptr)
    found, chosen = learned_map(noisy, Q[:150], counts, P, items, None, 0, cpu)
    least, _ = learned_map(noisy, Q[:150], counts, P, items, 1e-6, 0, cpu)
    errors = [np.square(noisy.times(W)[150:] - Q[150:]).mean() for W in (found, least)]
    assert chosen["reg"] > 1
    assert errors[0] < 0.7 * errors[1]


def test_without_interactions_settings_are_not_chosen(cpu: Kernels) -> None:
    attributes, Q, _, P, _ = planted_map()
    counts = np.ones(150, np.int64)
    assert learned_map(attributes, Q[:150], counts, P, None, None, 0, cpu)[1] == {"reg": 10, "power": 0.5}
    assert learned_map(attributes, Q[:150], counts, P, None, 2.0, 0, cpu)[1] == {"reg": 2, "power": 0.5}


def test_ids_without_rows_or_attributes_are_not_learned_from(cpu: Kernels) -> None:
    attributes, Q, W, P, _ = planted_map(noise=0)
    rows, counts = Q[:150].copy(), np.ones(150, np.int64)
    rows[:20] = 0  # no interactions
    there = attributes.there.copy()
    there[20:40] = False
    rows[20:40] = 1e6
    few = Attributes(attributes.matrix, there, attributes.names)
    np.testing.assert_allclose(learned_map(few, rows, counts, P, None, 1e-4, 0, cpu)[0], W, atol=1e-3)
    rows[1:] = 0
    with pytest.raises(DataError, match="0 ids have both rows and attributes: there is nothing to learn"):
        learned_map(few, rows, counts, P, None, None, 0, cpu)


@pytest.mark.parametrize("cold", [1.0, 0.0])
def test_few_ids_are_parted_somehow(cold: float, monkeypatch: pytest.MonkeyPatch, cpu: Kernels) -> None:
    """Some are taken to be cold, some not, whatever the dice say."""
    monkeypatch.setattr(features, "APART", cold)
    attributes, Q, _, P, _ = planted_map(warm=12, cold=3)
    items = by_item(csr({u: {u % 12: 1.0} for u in range(80)}, 80), 12)
    found, _ = learned_map(attributes, Q[:12], np.diff(items.indptr), P, items, None, 0, cpu)
    assert np.isfinite(found).all()


def test_changes_are_added_by_attributes() -> None:
    rng = np.random.default_rng(0)
    attributes = Attributes.of(known_of(), np.array([0, 1, 2, 3, -1, 5]))
    D = rng.standard_normal((5, 3)).astype(F)
    P, Q = (rng.standard_normal((n, 3)).astype(F) for n in (6, 4))
    tables = Tables(P, Q, np.zeros(6, F), np.zeros(4, F), F(0))
    W = rng.standard_normal((5, 4)).astype(F)
    parts = features_parts({"user": attributes}, {"user": W}, {"user": D})
    found = apply_features(Parts(parts), tables)
    f = np.nan_to_num(dense(attributes.matrix, 5))
    np.testing.assert_allclose(found.P, P + f @ D, atol=1e-5)
    np.testing.assert_array_equal(found.P[[2, 4]], P[[2, 4]])
    np.testing.assert_array_equal(found.Q, Q)
    np.testing.assert_array_equal(parts["W_user"], W)
    assert apply_features(Parts(features_parts({"user": attributes}, {"user": W}, {})), tables).P is P


def with_new(factors: Factors, new: int) -> NewData:
    """No new pairs: new items alone, behind the base's."""
    users, items = factors.P.shape[0], factors.Q.shape[0]
    matrix = csr({0: {0: 1.0}}, users)
    return NewData(matrix, matrix, users, items + new)


def test_cold_ids_get_rows_and_others_stay(cpu: Kernels) -> None:
    """Of an imported model, of which nothing is known but its rows: what cold items get ranks them as they should."""
    attributes, Q, _, P, _ = planted_map()
    model = bare(Ids(np.arange(80)), Ids(np.arange(150)), P=P, Q=Q[:150])
    model = Factors(**{**vars(model), "provenance": Provenance(config={"solver": "imported"})})
    there = attributes.there.copy()
    there[189] = False  # the last one has no attributes
    given = {"item": Attributes(attributes.matrix, there, attributes.names)}
    delta, outcome = tuned(model, with_new(model, 40), cpu, given, adapter="features", reg=0.01)
    assert outcome.fit == "closed"
    assert outcome.trained == 7 * 5
    assert outcome.chosen == "items: reg 0.01, power 0.5"
    assert delta.names == {"item": attributes.names}
    assert delta.parts["W_item"].shape == (7, 5)
    found = apply(model, delta)
    np.testing.assert_array_equal(found.Q[:150], Q[:150])
    np.testing.assert_array_equal(found.P, P)
    assert not found.Q[189:].any()
    near = np.corrcoef(predictions(found)[:, 150:189].ravel(), (P @ Q[150:189].T).ravel())[0, 1]
    assert near > 0.99


@pytest.mark.parametrize("name", ["rendle", "als", "svd, bias"])
def test_new_ids_with_pairs_are_folded_in_and_cold_ones_are_mapped(name: str, cpu: Kernels) -> None:
    factors, data = fitted(cpu, **SETTINGS[name]), new_data()
    longer = NewData(data.matrix, data.every, data.users + 2, data.items + 3)
    rng = np.random.default_rng(0)
    given = {}
    for role, count in (("user", longer.users), ("item", longer.items)):
        table = np.column_stack([rng.standard_normal((count, 4)), np.ones(count)])
        given[role] = Attributes(
            csr({row: dict(enumerate(table[row])) for row in range(count)}, count), np.ones(count, bool), tuple("wxyz")
        )
    delta, _ = tuned(factors, longer, cpu, given, adapter="features")
    plain, _ = tuned(factors, data, cpu, adapter="bias", epochs=1)  # new ids are folded in before it starts
    np.testing.assert_allclose(delta.P[:3], plain.P, atol=0.02)  # regularisation grows with the other side
    np.testing.assert_allclose(delta.Q[:2], plain.Q, atol=0.02)
    for role, rows, biases, known in (("user", delta.P, delta.b_u, 63), ("item", delta.Q, delta.b_v, 42)):
        mapped = given[role].times(delta.parts[f"W_{role}"])[known:]
        np.testing.assert_array_equal(rows[-len(mapped) :], mapped[:, :-1])
        np.testing.assert_array_equal(biases[-len(mapped) :], mapped[:, -1])
        assert mapped[:, :-1].any(axis=1).all()
        assert mapped[:, -1].any() == (name != "rendle")
    found = apply(factors, delta)
    np.testing.assert_array_equal(found.P[:60], factors.P)
    assert found.P.shape[0] == 65


@pytest.mark.parametrize("fit", ["closed", "gradient"])
def test_ids_that_come_later_get_the_row_that_their_attributes_got_in_the_delta(fit: str, cpu: Kernels) -> None:
    """Also what gradients have added, and what adapters behind it do to all items."""
    factors = fitted(cpu, solver="ials")
    rows = known_of(ITEMS + 2, sparse=csr({}, ITEMS + 2), has_row=np.ones(ITEMS + 2, bool))
    rows.dense[ITEMS + 1] = rows.dense[ITEMS]  # cold in the delta, and twin that comes later
    given = {"item": Attributes.of(rows, np.arange(ITEMS + 1))}
    data = new_data(new=(0, 0), ones=True)
    data = NewData(data.matrix, data.every, data.users, ITEMS + 1)
    delta, _ = tuned(factors, data, cpu, given, adapter="features", fit=fit, learning_rate=0.1)
    adapted = apply(factors, delta)
    scaled, _ = tuned(adapted, data, cpu, adapter="scale", epochs=3, learning_rate=0.1)
    for model, later in ((adapted, []), (apply(adapted, scaled), [scaled])):
        ids = Ids(np.arange(ITEMS + 2))
        found = with_attributes(model, delta, "item", rows, np.arange(ITEMS + 2), ids, later)
        assert np.abs(found.Q[ITEMS]).max() > 0.01
        np.testing.assert_allclose(found.Q[ITEMS + 1], found.Q[ITEMS], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found.Q[: ITEMS + 1], model.Q)
    if fit == "gradient":
        assert np.abs(delta.parts["D_item"]).max() > 0.01
    assert np.abs(scaled.parts["m"]).max() > 0.01
