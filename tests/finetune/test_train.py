"""A base, new pairs, and each adapter end to end: tastes that have drifted are ranked better than by the base."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recli.artifacts import Factors, Provenance
from recli.config import FactorizeConfig, FinetuneConfig
from recli.errors import DataError, UsageError
from recli.factorize import factorize
from recli.finetune import (
    Logloss,
    NewData,
    apply,
    exam_of_new,
    fit_of,
    labelled,
    loss_of,
    negatives_of,
    targets_of,
)
from recli.finetune.features import Attributes
from recli.finetune.tables import Tables
from recli.ids import Csr, row_numbers
from recli.kernels import load
from recli.kernels.spec import Kernels
from recli.splits import hold_out
from tests.factorize.data import interactions
from tests.finetune.models import csr, fitted, new_data, predictions, probabilities, sparse, tuned

F = np.float32
USERS, ITEMS, RANK = 150, 60, 8


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 2) as kernels, threadpool_limits(1):  # small products are slower on more
        yield kernels


class Drift(NamedTuple):
    """Old ratings, NaN where there are none; new pairs, of which some are held out; the tastes as they are now."""

    old: NDArray[np.float64]
    data: NewData
    held: Csr
    P: NDArray[np.float64]
    Q: NDArray[np.float64]


@cache
def drift(ratings: bool = False) -> Drift:
    """Tastes of five hidden dimensions, the same for items all along; users' have since been mixed by one rotation, and
    each has moved a little on their own. Everybody has the best fifteen by old tastes, and then the best by new ones.
    """
    rng = np.random.default_rng(5)
    hidden = 5
    before, Q = rng.standard_normal((USERS, hidden)), rng.standard_normal((ITEMS, hidden))
    turn = np.linalg.qr(np.eye(hidden) + 0.6 * rng.standard_normal((hidden, hidden)))[0]
    P = before @ turn + 0.2 * rng.standard_normal((USERS, hidden))
    popular = 1.5 * rng.standard_normal(ITEMS)  # so that biases, too, have something to learn

    def best(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.full(scores.shape, np.nan)
        top = np.argsort(-scores, axis=1)[:, :15]
        values = np.round(3 + np.take_along_axis(scores, top, axis=1) / 3, 1) if ratings else np.ones(top.shape)
        np.put_along_axis(found, top, values, axis=1)
        return found

    old = best(before @ Q.T)
    now = best(P @ Q.T + popular)
    now[~np.isnan(old)] = np.nan
    every = csr({u: {int(i): now[u, i] for i in np.flatnonzero(~np.isnan(now[u]))} for u in range(USERS)}, USERS)
    train, held = hold_out(every, 0.35, 0)
    return Drift(old, NewData(train, every, USERS, ITEMS), held, P, Q)


@cache
def base_of(solver: str, seen: bool = True) -> Factors:
    with load("cpu", 2) as kernels, threadpool_limits(1):
        reg = 0.1 if solver == "als" else None  # the default leaves next to nothing of rows with so few ratings
        config = FactorizeConfig(solver=solver, rank=RANK, iterations=6, seen=seen, reg=reg)
        return factorize(interactions(drift(solver == "als").old), config, kernels)[0]


def quality(factors: Factors, kernels: Kernels, metric: str, base: Factors) -> float:
    of = drift(metric == "rmse")
    exam = exam_of_new(of.data, of.held, base, metric, 0, kernels)
    P, Q = np.asarray(factors.P[:]), factors.item_factors()
    return exam.of_tables(Tables(P, Q, factors.b_u, factors.b_v, F(factors.b)))


FAST = {"fit": "gradient", "epochs": 15, "batch": 256, "learning_rate": 0.02}


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter": "rows", "fit": "closed"},
        {"adapter": "rows", "fit": "closed", "epochs": 2},
        {"adapter": "lora", "fit": "closed", "rank": 3},
        {"adapter": "rows", **FAST},
        {"adapter": "full", **FAST},
        {"adapter": "lora", "rank": 3, **FAST},
        {"adapter": "bias", **FAST},
        {"adapter": "scale", **FAST},
        {"adapter": "bilinear", "rank": 4, **FAST},
        {"adapter": "rows", "loss": "bpr", **FAST},
        {"adapter": "rows", "loss": "logistic", **FAST},
        {"adapter": "rows", "loss": "squared", **FAST},
    ],
    ids=lambda settings: "-".join(str(value) for value in list(settings.values())[:3]),
)
def test_held_out_new_pairs_are_ranked_better_than_by_the_base(settings: dict[str, Any], cpu: Kernels) -> None:
    base, data = base_of("ials"), drift().data
    delta, outcome = tuned(base, data, cpu, **settings)
    before, after = (quality(model, cpu, "ndcg@10", base) for model in (base, apply(base, delta)))
    assert after > before + 0.01
    assert outcome.fit == settings["fit"]
    assert outcome.total == (USERS + ITEMS) * RANK
    assert outcome.trained == sum(delta.parts[name].size for name in delta.parts if name not in ("users", "items"))
    if outcome.fit == "gradient":
        assert outcome.loss == settings.get("loss", "softmax")
        assert outcome.run.losses[-1] < outcome.run.losses[0]
        assert len(outcome.run.losses) == 15
    else:
        assert outcome.loss == ""
        assert outcome.run.losses == []
    assert delta.provenance.command == "finetune"
    assert delta.provenance.device == "cpu"
    assert delta.provenance.config["fit"] == outcome.fit
    assert delta.provenance.config["adapter"] == settings["adapter"]


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter": "rows", "fit": "closed"},
        {"adapter": "lora", "fit": "closed", "rank": 3},
        {"adapter": "rows", **FAST},
        {"adapter": "bias", **FAST},
        {"adapter": "bilinear", "rank": 4, **FAST},
    ],
    ids=lambda settings: f"{settings['adapter']}-{settings['fit']}",
)
def test_held_out_new_ratings_are_closer_than_those_of_the_base(settings: dict[str, Any], cpu: Kernels) -> None:
    base, data = base_of("als"), drift(True).data
    delta, outcome = tuned(base, data, cpu, **settings)
    before, after = (quality(model, cpu, "rmse", base) for model in (base, apply(base, delta)))
    assert after > (0.99 if settings["adapter"] == "bilinear" else 0.9) * before  # both are negative
    assert outcome.loss == ("squared" if settings["fit"] == "gradient" else "")


def test_attributes_that_tell_the_new_tastes_help(cpu: Kernels) -> None:
    of, base = drift(), base_of("ials")
    table = np.column_stack([of.P, np.ones(USERS)])
    given = {
        "user": Attributes(
            csr({u: dict(enumerate(table[u])) for u in range(USERS)}, USERS), np.ones(USERS, bool), (*"abcde",)
        )
    }
    delta, outcome = tuned(base, of.data, cpu, given, adapter="features", **FAST)
    assert delta.parts.keys() == {"W_user", "D_user", "F_user_indptr", "F_user_indices", "F_user_values"}
    before, after = (quality(model, cpu, "ndcg@10", base) for model in (base, apply(base, delta)))
    assert after > before + 0.05
    assert outcome.trained == 6 * RANK
    assert "users: reg" in outcome.chosen


@pytest.mark.parametrize("settings", [{"fit": "closed"}, FAST], ids=["closed", "gradient"])
def test_a_base_without_seen_lists_can_be_adapted(settings: dict[str, Any], cpu: Kernels) -> None:
    base = base_of("ials", seen=False)
    delta, _ = tuned(base, drift().data, cpu, **settings)
    found = apply(base, delta)
    assert found.seen is None
    assert quality(found, cpu, "ndcg@10", base) > quality(base, cpu, "ndcg@10", base) + 0.01


@pytest.mark.parametrize("adapter", ["rows", "lora", "bias", "features"])
def test_an_imported_base_is_adapted_by_gradient(adapter: str, cpu: Kernels) -> None:
    """Which says nothing of how its rows came about; new ids start at zero, and learn like others."""
    of = drift()
    base = dataclasses.replace(base_of("ials"), provenance=Provenance(config={"solver": "imported"}))
    pairs = {u: dict(zip(*_row(of.data.matrix, u), strict=True)) for u in range(USERS)}
    pairs[USERS] = {3: 1.0, 5: 1.0, 9: 1.0}
    matrix = csr(pairs, USERS + 1)
    data = NewData(matrix, matrix, USERS + 1, ITEMS)
    given = {}
    if adapter == "features":
        table = np.column_stack([np.vstack([of.P, np.ones(5)]), np.ones(USERS + 1)])
        every = csr({u: dict(enumerate(table[u])) for u in range(USERS + 1)}, USERS + 1)
        given = {"user": Attributes(every, np.ones(USERS + 1, bool), (*"abcde",))}
    delta, outcome = tuned(base, data, cpu, given, adapter=adapter, **{**FAST, "rank": 3})
    found = apply(base, delta)
    assert outcome.fit == "gradient"
    assert outcome.loss == "softmax"
    known = dataclasses.replace(
        found, P=found.P[:USERS], b_u=found.b_u[:USERS], user_ids=base.user_ids, seen_indptr=None, seen_indices=None
    )
    assert quality(known, cpu, "ndcg@10", base) > quality(base, cpu, "ndcg@10", base) + 0.01
    assert found.P[USERS:].any() == (adapter != "bias")


def _row(matrix: Csr, user: int) -> tuple[list[int], list[float]]:
    entries = slice(matrix.indptr[user], matrix.indptr[user + 1])
    return matrix.indices[entries].tolist(), matrix.values[entries].tolist()


def test_a_head_predicts_clicks(cpu: Kernels) -> None:
    """Better than the share of clicks does, for pairs that it has not seen."""
    of, base = drift(), base_of("ials")
    delta, outcome = tuned(base, of.data, cpu, adapter="head", epochs=8, batch=256, learning_rate=0.02)
    assert outcome.loss == "logistic"
    judged = labelled(of.held, 4, of.data.every, ITEMS, 0)
    p = probabilities(base.P[judged.users], base.Q[judged.items], np.zeros(len(judged.users), F), delta.parts).astype(
        float
    )
    logits = np.log(p / (1 - p)).astype(F)
    share = float(judged.labels.mean())
    constant = judged.of_logits(np.full(len(p), np.log(share / (1 - share)), F))
    assert isinstance(judged, Logloss)
    assert judged.of_logits(logits) > constant + 0.03
    assert judged.calibration(logits) < 0.1


def test_equal_seeds_give_equal_deltas(cpu: Kernels) -> None:
    base, data = base_of("ials"), drift().data
    found = [
        tuned(base, data, cpu, adapter="lora", fit="gradient", epochs=2, seed=seed)[0].parts["A_P"].tobytes()
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]


def test_a_base_of_rank_0_has_biases_alone(cpu: Kernels) -> None:
    base = base_of("pop")
    for adapter in ("rows", "lora", "head", "scale", "bilinear", "full", "features"):
        with pytest.raises(DataError, match=r"rank 0 \(solver pop\).*--adapter bias can"):
            tuned(base, drift().data, cpu, adapter=adapter)
    settings = {"adapter": "bias", "loss": "logistic", "epochs": 20, "batch": 256, "learning_rate": 0.05}
    delta, outcome = tuned(base, drift().data, cpu, **settings)
    found = apply(base, delta)
    assert outcome.fit == "gradient"
    assert quality(found, cpu, "ndcg@10", base) > quality(base, cpu, "ndcg@10", base) + 0.005


@pytest.mark.parametrize("adapter", ["lora", "bilinear"])
def test_a_rank_above_the_base_s_is_refused(adapter: str, cpu: Kernels) -> None:
    with pytest.raises(UsageError, match="--rank 9: the model has rank 8: give at most that"):
        tuned(base_of("ials"), drift().data, cpu, adapter=adapter, rank=9)
    delta, _ = tuned(base_of("ials"), drift().data, cpu, adapter=adapter, rank=8, fit="gradient", epochs=1)
    assert max(part.shape[-1] for part in delta.parts.values()) >= 8


def of_solver(solver: str, kernels: Kernels) -> Factors:
    base = fitted(kernels, solver="ials")
    return dataclasses.replace(base, provenance=Provenance(config={**base.provenance.config, "solver": solver}))


@pytest.mark.parametrize(
    ("settings", "solver", "expected"),
    [
        ({}, "ials", "closed"),
        ({"fit": "closed", "adapter": "lora"}, "ials", "closed"),
        ({"fit": "gradient"}, "ials", "gradient"),
        ({"adapter": "bias"}, "ials", "closed"),
        ({"adapter": "bias"}, "als", "closed"),
        ({"adapter": "bias"}, "imported", "gradient"),
        ({"adapter": "scale"}, "ials", "gradient"),
        ({"adapter": "head"}, "ials", "gradient"),
        ({"adapter": "features"}, "ials", "closed"),
        ({"adapter": "features"}, "imported", "closed"),
        ({}, "imported", "gradient"),
        ({"adapter": "lora"}, "imported", "gradient"),
    ],
)
def test_which_fit_is_taken(settings: dict[str, Any], solver: str, expected: str, cpu: Kernels) -> None:
    assert fit_of(FinetuneConfig(**settings), of_solver(solver, cpu)) == expected


def test_where_there_is_no_closed_form_it_is_refused(cpu: Kernels) -> None:
    imported = of_solver("imported", cpu)
    with pytest.raises(UsageError, match="--adapter scale has no closed form, bias, rows, lora, features have"):
        fit_of(FinetuneConfig(adapter="scale", fit="closed"), of_solver("ials", cpu))
    for base in (imported, fitted(cpu, solver="svd", normalize="degree")):
        with pytest.raises(UsageError, match="does not say which least squares its rows solve: give --fit gradient"):
            fit_of(FinetuneConfig(fit="closed"), base)
        assert fit_of(FinetuneConfig(), base) == "gradient"
    plain = fitted(cpu, solver="svd", normalize="none")
    with pytest.raises(UsageError, match="does not say which least squares its biases solve: give --fit gradient"):
        fit_of(FinetuneConfig(adapter="bias", fit="closed"), plain)


@pytest.mark.parametrize(
    ("settings", "solver", "loss", "negatives"),
    [
        ({}, "ials", "softmax", 16),
        ({}, "svd", "softmax", 16),
        ({}, "imported", "softmax", 16),
        ({}, "als", "squared", 0),
        ({"loss": "squared"}, "ials", "squared", 4),
        ({"loss": "bpr"}, "als", "bpr", 4),
        ({"loss": "logistic"}, "ials", "logistic", 4),
        ({"adapter": "head"}, "als", "logistic", 4),
        ({"adapter": "head", "negatives": 0}, "als", "logistic", 0),
        ({"negatives": 7}, "als", "squared", 7),
    ],
)
def test_which_loss_and_how_many_negatives(
    settings: dict[str, Any], solver: str, loss: str, negatives: int, cpu: Kernels
) -> None:
    config, base = FinetuneConfig(**settings), of_solver(solver, cpu)
    assert loss_of(config, base) == loss
    assert negatives_of(config, base) == negatives


@pytest.mark.parametrize(
    ("values", "loss", "negatives", "solver", "expected"),
    [
        ([0, 3, 1], "logistic", 0, "ials", [0, 1, 1]),
        ([-1, 3, 0], "logistic", 0, "als", [0, 1, 0]),
        ([0, 3, 1], "logistic", 4, "ials", [1, 1, 1]),
        ([2, 3, 1], "squared", 0, "als", [2, 3, 1]),
        ([2, 3, 1], "squared", 4, "als", [2, 3, 1]),
        ([2, 3, 1], "squared", 4, "ials", [1, 1, 1]),
        ([2, 3, 1], "squared", 0, "ials", [2, 3, 1]),
        ([2, 3, 1], "bpr", 4, "als", [1, 1, 1]),
        ([2, 3, 1], "softmax", 16, "ials", [1, 1, 1]),
        ([], "logistic", 0, "ials", []),
    ],
)
def test_what_pairs_are_learned_as(
    values: list[float], loss: str, negatives: int, solver: str, expected: list[float], cpu: Kernels
) -> None:
    found = targets_of(np.array(values, F), loss, negatives, of_solver(solver, cpu))
    assert found.dtype == F
    assert found.tolist() == expected


@pytest.mark.parametrize("value", [0, 1])
def test_labels_that_are_all_the_same_teach_nothing(value: int, cpu: Kernels) -> None:
    base, data = fitted(cpu, solver="ials"), new_data(new=(0, 0))
    matrix = data.matrix._replace(values=np.full(len(data.matrix.indices), value, F))
    data = NewData(matrix, matrix, data.users, data.items)
    with pytest.raises(DataError, match=f"all 80 labels are {value}: there is nothing to tell apart: give --negatives"):
        tuned(base, data, cpu, adapter="head", negatives=0)


def test_labels_and_ratings_are_learned_as_given_where_the_solver_counts_ones(cpu: Kernels) -> None:
    base, data = fitted(cpu, solver="ials"), new_data(new=(0, 0), ones=True)
    scores = predictions(base)[row_numbers(data.matrix.indptr), data.matrix.indices]
    labels = np.random.default_rng(0).integers(0, 2, len(scores)).astype(F)
    squared = {"fit": "gradient", "loss": "squared", "negatives": 0, "epochs": 1, "learning_rate": 1e-9}
    for ratings, targets in ((None, np.ones_like(labels)), (labels, labels), (3 * labels, 3 * labels)):
        delta, outcome = tuned(base, dataclasses.replace(data, ratings=ratings), cpu, **squared)
        assert outcome.run.losses[0] == pytest.approx(float(np.square(scores - targets).mean()), rel=1e-4)
        assert (delta.seen.values == 1).all()
    tuned(base, dataclasses.replace(data, ratings=labels), cpu, adapter="head", negatives=0, epochs=1)
    with pytest.raises(DataError, match="labels are 1"):
        tuned(base, data, cpu, adapter="head", negatives=0, epochs=1)


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_losses_that_compare_need_negatives(loss: str, cpu: Kernels) -> None:
    base, data = fitted(cpu, solver="ials"), new_data(new=(0, 0))
    with pytest.raises(UsageError, match=f"--negatives 0: --loss {loss} compares pairs with negatives"):
        tuned(base, data, cpu, fit="gradient", loss=loss, negatives=0)


@pytest.mark.parametrize("name", ["ials", "als"])
@pytest.mark.parametrize("adapter", ["rows", "lora", "bias", "head"])
def test_users_behind_the_last_pair_are_new_users_too(adapter: str, name: str, cpu: Kernels) -> None:
    """Matrices may end before them; their rows are zero, since nothing says what they are."""
    base, data = fitted(cpu, solver=name), new_data()
    longer = NewData(data.matrix, data.every, data.users + 2, data.items)
    for fit in ("closed", "gradient") if adapter in ("rows", "lora") else ("gradient",):
        delta, _ = tuned(base, longer, cpu, adapter=adapter, fit=fit, epochs=1)
        found = apply(base, delta)
        assert found.P.shape[0] == 65
        assert not found.P[63:].any()
        assert found.P[60:63].any(axis=1).all()


@pytest.mark.parametrize("loss", ["softmax", "bpr"])
def test_held_out_pairs_rise_no_more_than_others_that_are_not_learned(loss: str, cpu: Kernels) -> None:
    """They are drawn as negatives as others are: what a model learns of pairs without rhyme must not look like more."""
    base = fitted(cpu, solver="ials")
    users, items = base.P.shape[0], base.Q.shape[0]
    kind = np.random.default_rng(3).permutation(users * items).reshape(users, items)
    assert base.seen is not None
    known = np.zeros((users, items), bool)
    known[row_numbers(base.seen.indptr), base.seen.indices] = True
    new, held = (kind < 600) & ~known, (kind < 200) & ~known

    matrices = (sparse(np.where(there, 1.0, np.nan)) for there in (new & ~held, new))
    data = NewData(*matrices, users, items)
    settings = {"adapter": "rows", "fit": "gradient", "loss": loss, "epochs": 60, "learning_rate": 0.02, "batch": 64}
    delta, _ = tuned(base, data, cpu, **settings)
    change = predictions(apply(base, delta)) - predictions(base)
    learned, left, others = (change[there].mean() for there in (new & ~held, held, ~new & ~known))
    assert learned - others > 0.5
    assert abs(left - others) < 0.15 * (learned - others)
