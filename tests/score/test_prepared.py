"""A prepared index changes no bit of any list, and what does not fit is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recli.artifacts import Provenance
from recli.config import ScoreConfig
from recli.errors import DataError
from recli.kernels import load
from recli.kernels.spec import Kernels
from recli.score import Audience, Cap, Catalogue, Prepared, Recommender, prepare
from tests.score.models import ALL, ITEMS, USERS, WITH_STRANGERS, csr, lists, model

SOME = np.arange(2, 19, dtype=np.int32)
CATALOGUES = {
    "all": ALL,
    "some": Catalogue(SOME),
    "capped": Catalogue(None, (Cap(np.arange(ITEMS, dtype=np.int32) % 4, 2),)),
    "some capped": Catalogue(SOME, (Cap(np.arange(ITEMS, dtype=np.int32) % 4, 1),)),
}


def prepared(kernels: Kernels, **biases: Any) -> Prepared:
    return prepare(model(**biases), kernels, np.arange(USERS), ["abc"])


@pytest.mark.parametrize("catalogue", CATALOGUES)
@pytest.mark.parametrize("maker", ["cpu", "reference"])
def test_lists_are_the_same_with_an_index_whichever_backend_made_it(
    kernels: Kernels, maker: str, catalogue: str
) -> None:
    rng = np.random.default_rng(0)
    biases = {"b_v": rng.standard_normal(ITEMS).astype(np.float32), "b": np.array(2, np.float32)}
    denied = csr([sorted(rng.choice(ITEMS, rng.integers(0, 9), replace=False)) for _ in WITH_STRANGERS])
    audience = Audience(WITH_STRANGERS, denied=denied)
    with load(maker, 1) as other:
        index = prepared(other, **biases)
    for k in (1, 8, ITEMS):
        arguments = model(**biases), CATALOGUES[catalogue], ScoreConfig(k=k), kernels
        without = lists(Recommender(*arguments).lists(audience, 7))
        for found, expected in zip(lists(Recommender(*arguments, index).lists(audience, 7)), without, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_an_index_goes_to_arrays_and_back(kernels: Kernels) -> None:
    index = prepared(kernels)
    again = Prepared.from_arrays(index.arrays(), index.provenance)
    assert again.sizes == (USERS, ITEMS)
    assert again.provenance == Provenance(command="score", inputs=["abc"], device=kernels.name)
    for name, array in index.arrays().items():
        assert array is again.arrays()[name]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"norms": None}, "array norms is missing; found "),
        ({"norms": np.zeros(3)}, rf"array norms: expected float64 of length {ITEMS}, found float64\[3\]"),
        ({"order": np.zeros(ITEMS)}, rf"array order: expected int32 of length {ITEMS}, found float64\[{ITEMS}\]"),
        ({"rows": np.zeros(ITEMS, np.float32)}, rf"array rows: expected float32 in 2 dimensions, found .*\[{ITEMS}\]"),
        ({"users_by_id": np.zeros((2, 2), np.int64)}, r"array users_by_id: expected int64 .*, found int64\[2, 2\]"),
    ],
)
def test_arrays_that_are_no_index_are_data_errors(changes: dict[str, Any], reason: str) -> None:
    with load("cpu", 1) as kernels:
        arrays = {**prepared(kernels).arrays(), **changes}
    with pytest.raises(DataError, match=f"^{reason}"):
        Prepared.from_arrays({name: array for name, array in arrays.items() if array is not None}, Provenance())


def test_items_that_are_not_there_are_not_recommended() -> None:
    with load("cpu", 1) as kernels:
        index = prepared(kernels)
        index.order[index.order == index.order[0]] = ITEMS + 7
        recommender = Recommender(model(), ALL, ScoreConfig(k=ITEMS, keep_seen=True), kernels, index)
        with pytest.raises(DataError, match="--index is damaged"):
            list(recommender.lists(Audience(np.arange(3))))
        index.by_popularity[1] = -7
        with pytest.raises(DataError, match="--index is damaged"):
            list(recommender.lists(Audience(np.array([-1]))))
