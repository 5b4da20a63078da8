"""What iALS starts from is nearly the truncated SVD, on every backend, and worth iterations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recli.config import FactorizeConfig
from recli.factorize import factorize, ials
from recli.factorize.start import LENGTHENED, initial_rows, leading_rows
from recli.ids import transpose
from recli.kernels import load
from recli.kernels.spec import Floats, Kernels
from tests.factorize.data import interactions

USERS, ITEMS = 300, 200


@pytest.fixture(scope="module", params=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    with load(request.param, 2) as backend, threadpool_limits(1):
        yield backend


def found(kernels: Kernels, dense: NDArray[Any], start: Floats) -> Floats:
    csr = interactions(np.where(dense > 0, dense, np.nan)).matrix
    handles = (kernels.matrix(side) for side in (csr, transpose(csr, dense.shape[1])))
    return kernels.host(leading_rows(kernels, *handles, kernels.table(start)))


def blocks(rank: int) -> NDArray[np.float64]:
    """Groups of users who like groups of items, of falling sizes, and noise."""
    rng = np.random.default_rng(1)
    dense = (rng.random((USERS, ITEMS)) < 0.02).astype(float)
    users, items = (np.cumsum(np.geomspace(0.3, 0.1, rank) / 1.3) for _ in range(2))
    for group in range(rank):
        mine = [
            slice(int(ends[group - 1] * count) if group else 0, int(ends[group] * count))
            for ends, count in ((users, USERS), (items, ITEMS))
        ]
        dense[mine[0], mine[1]] = 1
    return dense


def test_leading_singular_vectors(kernels: Kernels) -> None:
    rank = 4
    dense = blocks(rank)
    _, s, Vt = np.linalg.svd(dense)
    Q = found(kernels, dense, initial_rows(ITEMS, rank, 0))
    gram = Q.T @ Q
    assert np.allclose(gram, np.diag(np.diag(gram)), atol=1e-3 * gram.max())  # columns are orthogonal
    # ascending, as eigenvalues come; the noise is a tenth of the last block
    assert np.allclose(np.sqrt(np.diag(gram))[::-1], LENGTHENED * np.sqrt(s[:rank]), rtol=0.05)
    cosines = np.abs(np.einsum("ki,ik->k", Vt[:rank], Q[:, ::-1] / np.linalg.norm(Q[:, ::-1], axis=0)))
    assert (cosines > 0.98).all()


def test_directions_that_the_matrix_lacks_get_next_to_nothing(kernels: Kernels) -> None:
    dense = np.zeros((USERS, ITEMS))
    dense[:100, :50] = 1
    dense[100:, 50:] = 1
    Q = found(kernels, dense, initial_rows(ITEMS, 6, 0))
    norms = np.linalg.norm(Q, axis=0)
    assert np.isfinite(Q).all()
    assert norms[-2:].min() > 5
    assert norms[:4].max() < 0.1


def test_nothing_to_find(kernels: Kernels) -> None:
    start = initial_rows(ITEMS, 3, 0)
    assert np.array_equal(found(kernels, np.zeros((USERS, ITEMS)), start), start)


def test_overflow_is_left_to_the_solver() -> None:
    start = np.full((ITEMS, 3), 1e30, np.float32)  # which the reference, in float64, still multiplies
    with load("cpu", 2) as kernels:
        assert np.array_equal(found(kernels, np.full((USERS, ITEMS), 1.0), start), start)


def test_it_is_worth_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = np.where(blocks(8) > 0, 1.0, np.nan)
    with load("cpu", 2) as kernels:

        def objectives() -> list[float]:
            return factorize(interactions(dense), FactorizeConfig(rank=8, iterations=3), kernels)[1].objectives

        started = objectives()
        monkeypatch.setattr(ials, "leading_rows", lambda kernels, by_user, by_item, items: items)
        noise = objectives()
    assert all(ours < theirs for ours, theirs in zip(started, noise, strict=True))


def test_weights_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair that counts a million is not a direction of its own; one that counts nothing is not there."""
    seen: list[Floats] = []
    original = ials.leading_rows

    def noted(kernels: Kernels, *arguments: Any) -> Any:
        rows = original(kernels, *arguments)
        seen.append(kernels.host(rows))
        return rows

    monkeypatch.setattr(ials, "leading_rows", noted)
    ones = np.where(blocks(4) > 0, 1.0, np.nan)
    weights = ones * np.random.default_rng(0).integers(1, 9, ones.shape)
    weights[np.isnan(ones) & (np.arange(ones.size).reshape(ones.shape) % 7 == 0)] = 0
    with load("reference", 1) as kernels:
        for dense, weighted in ((ones, False), (weights, True)):
            factorize(interactions(dense, weighted=weighted), FactorizeConfig(rank=4, iterations=1), kernels)
    assert np.array_equal(seen[0], seen[1])
