"""Compressed models: what they weigh, how near they are, and that scoring reads them as their decoded rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from recli.artifacts import Factors
from recli.config import FactorizeConfig, ScoreConfig
from recli.encoded import Hashed
from recli.errors import DataError, UsageError
from recli.factorize import compress, factorize
from recli.factorize.compress import allocate, hashed_table, int8, product_quantised
from recli.ids import take_rows
from recli.io.npz import read_npz, write_npz
from recli.kernels import load
from recli.kernels.spec import Kernels
from recli.score import Audience, Catalogue, Explainer, recommend
from recli.score.fold_in import folded_rows
from tests.factorize.data import interactions, planted

EVERYONE = np.arange(400)


@pytest.fixture(scope="module")
def kernels() -> Iterator[Kernels]:
    with load("cpu", 2) as backend:
        yield backend


@pytest.fixture(scope="module")
def model(kernels: Kernels) -> Factors:
    return factorize(interactions(planted(400, 900, each=15)), FactorizeConfig(rank=32), kernels)[0]


def lists(of: Factors, kernels: Kernels, k: int = 10) -> np.ndarray[Any, np.dtype[np.int32]]:
    blocks = recommend(of, Audience(EVERYONE), Catalogue(), ScoreConfig(k=k), kernels)
    return np.concatenate([block.items for block in blocks])


def overlap(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float(np.mean([len(set(x) & set(y)) / len(x) for x, y in zip(a.tolist(), b.tolist(), strict=True)]))


def again(of: Factors) -> Factors:
    """Written and read, in the working folder."""
    with open("small.npz", "w+b") as file:
        write_npz(of, file)
    with open("small.npz", "rb") as file:
        return read_npz(file, Factors, "small.npz")


SETTINGS = {
    "f16": ({"store": "f16"}, 0.5, 0.99),
    "int8": ({"store": "int8"}, 0.29, 0.95),
    "pq": ({"store": "pq"}, 0.2, 0.5),  # few rows: the books weigh more than the codes
    "hashed": ({"hash_users": 300, "hash_items": 600}, 0.7, 0.1),
    "hashed int8": ({"hash_items": 600, "store": "int8"}, 0.25, 0.1),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_model_is_smaller_near_and_reported_so(name: str, model: Factors, kernels: Kernels) -> None:
    settings, most, least = SETTINGS[name]
    small, report = compress(model, FactorizeConfig(rank=32, **settings))
    assert report["bytes"] == model.P.nbytes + model.Q.nbytes
    assert report["bytes_after"] == small.P.nbytes + small.Q.nbytes <= most * report["bytes"]
    for table, rows, error in ((small.P, model.P, "error_users"), (small.Q, model.Q, "error_items")):
        off = np.linalg.norm(table[:] - rows[:]) / np.linalg.norm(rows[:])
        assert report[error] == pytest.approx(off, rel=1e-5)
    assert overlap(lists(small, kernels), lists(model, kernels)) > least
    assert small.provenance.config["store"] == settings.get("store", "f32")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_file_holds_the_codes_and_scores_are_of_the_decoded_rows(name: str, model: Factors, kernels: Kernels) -> None:
    small, _ = compress(model, FactorizeConfig(rank=32, **SETTINGS[name][0]))
    back = again(small)
    np.testing.assert_array_equal(back.P[:], small.P[:])
    np.testing.assert_array_equal(back.Q[:], small.Q[:])
    assert type(back.Q) is type(small.Q)
    (block,) = recommend(back, Audience(EVERYONE), Catalogue(), ScoreConfig(k=5), kernels)
    expected = small.P[:].astype(float) @ small.Q[:].T.astype(float)
    found = np.take_along_axis(expected, block.items.astype(np.int64), axis=1)
    np.testing.assert_allclose(block.scores, found, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("store", ["int8", "pq"])
def test_kept_rows_decide_what_codes_nominate(store: str, model: Factors, kernels: Kernels) -> None:
    small, report = compress(model, FactorizeConfig(rank=32, store=store, keep_rows=True))
    (block,) = recommend(again(small), Audience(EVERYONE), Catalogue(), ScoreConfig(k=5), kernels)
    (exact,) = recommend(model, Audience(EVERYONE), Catalogue(), ScoreConfig(k=5), kernels)
    same = block.items == exact.items
    assert same.mean() > 0.99
    np.testing.assert_array_equal(block.scores[same], exact.scores[same])
    assert report["error_users"] == 0
    assert report["bytes_after"] > report["bytes"]


def test_the_same_seed_gives_the_same_codes(model: Factors) -> None:
    config = FactorizeConfig(rank=32, store="pq")
    one, other = (compress(model, config)[0].arrays() for _ in range(2))
    assert all((one[name] == other[name]).all() for name in one)


def test_many_rows_take_a_sixteenth_with_a_head_of_the_most_popular() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((30_000, 32)) * np.linspace(2, 0.2, 32)).astype(np.float32)
    popularity = rng.permutation(30_000)
    table = product_quantised(rows, 0, popularity)
    assert 0.97 < table.nbytes * 16 / rows.nbytes <= 1
    head = table.head
    assert len(head) > 100
    assert set(head) == set(np.argsort(-popularity)[: len(head)])
    np.testing.assert_array_equal(table[head], int8(rows[head])[:])


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (300, 2), (20, 70)])
def test_tables_of_any_shape_are_quantised(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    decoded = product_quantised(rows, 0)[:]
    assert decoded.shape == shape
    assert np.linalg.norm(decoded - rows) < 0.2 * np.linalg.norm(rows)


def test_rows_of_zeros_stay_zeros() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    rows[7] = 0
    assert np.abs(product_quantised(rows, 0)[:][7]).max() < 1e-4 * np.abs(rows).max()
    assert not int8(rows)[:][7].any()
    assert np.isfinite(product_quantised(0 * rows, 0)[:]).all()


def test_columns_are_dealt_to_groups_of_about_equal_products() -> None:
    variances = (2.0 ** -np.arange(12)).astype(np.float32)
    groups = allocate(variances, 4)
    assert sorted(np.bincount(groups)) == [3, 3, 3, 3]
    products = [np.log2(variances[groups == group]).sum() for group in range(4)]
    assert max(products) - min(products) <= 3


def test_a_hashed_table_is_the_weighted_least_squares_one() -> None:
    rng = np.random.default_rng(0)
    rows, counts = rng.standard_normal((60, 3)).astype(np.float32), rng.integers(1, 50, 60)
    table = hashed_table(rows, 20, counts)
    hashing = Hashed(np.eye(20, dtype=np.float32), 60, 2)[:].astype(float)
    weights = np.sqrt(counts)[:, None]
    exact = np.linalg.lstsq(weights * hashing, weights * rows, rcond=None)[0]
    np.testing.assert_allclose(hashing @ table, hashing @ exact, atol=1e-3)


def test_more_rows_than_ids_lose_nothing() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    table = Hashed(hashed_table(rows, 5000, np.ones(50)), 50, 2)
    np.testing.assert_allclose(table[:], rows, atol=1e-3)


def test_a_model_without_factors_is_refused(kernels: Kernels) -> None:
    pop, _ = factorize(interactions(planted()), FactorizeConfig(solver="pop"), kernels)
    with pytest.raises(UsageError, match="has no factors to compress"):
        compress(pop, FactorizeConfig(store="int8"))


def test_factors_beyond_half_precision_are_refused(model: Factors) -> None:
    large = dataclasses.replace(model, P=model.P[:] * np.float32(1e8))
    with pytest.raises(DataError, match=r"--store f16: expected factors up to 65504, found .*: use int8"):
        compress(large, FactorizeConfig(store="f16"))


def test_what_keeps_its_rows_is_the_exact_model_to_all_but_the_search(model: Factors, kernels: Kernels) -> None:
    """Folded in, explained, started from or compressed again: by the rows that decide its scores."""
    kept, _ = compress(model, FactorizeConfig(rank=32, store="pq", keep_rows=True))
    assert model.seen is not None
    history, items = take_rows(model.seen, EVERYONE[3:4]), np.arange(6, dtype=np.int32)
    np.testing.assert_array_equal(*(folded_rows(of, history, kernels) for of in (kept, model)))
    terms = [Explainer(of).terms(history, model.P[3], items).contributions for of in (kept, model)]
    np.testing.assert_array_equal(*terms)
    again = [compress(of, FactorizeConfig(rank=32, store="int8"))[0] for of in (kept, model)]
    np.testing.assert_array_equal(*(of.Q[:] for of in again))
    data, config = interactions(planted(400, 900, each=15)), FactorizeConfig(rank=32, iterations=1)
    np.testing.assert_array_equal(*(factorize(data, config, kernels, start=of)[0].Q[:] for of in (kept, model)))
