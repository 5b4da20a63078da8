"""The head: its formula, its scale, and what it can learn that no dot product can."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recli.artifacts import Provenance
from recli.checks import Arrays
from recli.errors import DataError
from recli.finetune import NewData
from recli.finetune.artifact import Parts
from recli.finetune.head import Head, check_head, input_scale
from recli.ids import Ids
from recli.kernels import load
from recli.kernels.spec import Kernels
from tests.finetune.models import csr, probabilities, tuned
from tests.models import bare

RANK, HIDDEN = 3, 4
N = 3 * RANK + 1


@pytest.fixture(scope="module")
def cpu() -> Iterator[Kernels]:
    with load("cpu", 2) as kernels, threadpool_limits(1):  # small products are slower on more
        yield kernels


def arrays(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    shapes = {"w": (N, 1), "c": (1, 1), "V": (N, HIDDEN), "d": (1, HIDDEN), "o": (HIDDEN, 1), "scale": (N,)}
    found = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return {**found, "scale": np.abs(found["scale"]) + np.float32(0.5)}


def logit(p: NDArray[np.floating], q: NDArray[np.floating], bias: float, of: Arrays) -> float:
    """One pair at a time, number by number."""
    z = [
        *(float(a) for a in p),
        *(float(a) for a in q),
        *(float(a) * float(b) for a, b in zip(p, q, strict=True)),
        bias,
    ]
    z = [a / float(s) for a, s in zip(z, of["scale"], strict=True)]
    total = float(of["c"][0, 0]) + sum(a * float(w) for a, w in zip(z, of["w"][:, 0], strict=True))
    for h in range(of["V"].shape[1]):
        inner = float(of["d"][0, h]) + sum(a * float(v) for a, v in zip(z, of["V"][:, h], strict=True))
        total += max(0.0, inner) * float(of["o"][h, 0])
    return total


def pairs(n: int = 30) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(7)
    p, q = (rng.standard_normal((n, RANK)).astype(np.float32) for _ in range(2))
    return p, q, rng.standard_normal(n).astype(np.float32)


def test_probabilities_are_those_of_the_formula() -> None:
    (p, q, biases), of = pairs(), arrays()
    wanted = [1 / (1 + np.exp(-logit(*pair, of))) for pair in zip(p, q, biases.tolist(), strict=True)]
    found = probabilities(p, q, biases, of)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert ((found > 0) & (found < 1)).all()
    far = {**of, "c": np.full((1, 1), 1e30, np.float32)}
    assert (probabilities(p, q, biases, far) == 1).all()
    assert (probabilities(p, q, biases, {**far, "c": -far["c"]}) == 0).all()
    assert probabilities(p[:0], q[:0], biases[:0], of).shape == (0,)


def test_forward_says_what_the_stored_head_says(cpu: Kernels) -> None:
    """Of pairs of two tables, some rows of which occur again."""
    p, q, _ = pairs(6)
    user_at, item_at = np.array([0, 5, 5, 2], np.int32), np.array([1, 1, 3, 0], np.int32)
    biases, of = pairs(4)[2], arrays()
    head = Head.start(of["scale"], HIDDEN, np.random.default_rng(0), cpu)
    for name, parameter in head.parameters.items():
        parameter.table = cpu.table(of[name])
    found = head.forward(cpu.table(p), cpu.table(q), user_at, item_at, biases)
    wanted = [logit(p[u], q[v], float(b), of) for u, v, b in zip(user_at, item_at, biases, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_head_starts_next_to_an_even_chance(cpu: Kernels) -> None:
    p, q, biases = pairs()
    head = Head.start(input_scale(p, q, biases), 32, np.random.default_rng(0), cpu)
    at = np.arange(30, dtype=np.int32)
    assert np.abs(head.forward(cpu.table(p), cpu.table(q), at, at, biases)).max() < 0.5


def test_each_part_is_scaled_to_a_mean_square_of_one() -> None:
    p, q, biases = pairs(200)
    p *= 1000
    q *= 1e-3
    scale = input_scale(p, q, biases)
    parts = [p, q, p * q, biases[:, None]]
    for part, own in zip(parts, np.split(scale, [RANK, 2 * RANK, 3 * RANK]), strict=True):
        assert len(set(own.tolist())) == 1  # columns of a part keep what they are to each other
        assert np.mean((part.astype(float) / own) ** 2) == pytest.approx(1, rel=1e-5)
    assert (input_scale(0 * p, q, 0 * biases)[[0, -1]] == 1).all()  # nothing to divide by


def test_a_head_that_fits_is_taken() -> None:
    check_head(Parts(arrays()), RANK)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("w", np.zeros((N, 2), np.float32), "array w: expected float32[10, 1], found float32[10, 2]"),
        ("w", np.zeros((N, 1)), "array w: expected float32[10, 1], found float64[10, 1]"),
        ("w", np.full((N, 1), np.nan, np.float32), "array w: expected finite numbers"),
        ("c", np.zeros(1, np.float32), "array c: expected float32[1, 1], found float32[1]"),
        ("V", np.zeros(N, np.float32), "array V: expected float32"),
        ("V", np.zeros((N + 1, HIDDEN), np.float32), "array V: expected float32[10, 4], found float32[11, 4]"),
        ("V", np.zeros((N, HIDDEN + 1), np.float32), "array d: expected float32[1, 5], found float32[1, 4]"),
        ("d", np.zeros((HIDDEN, 1), np.float32), "array d: expected float32[1, 4], found float32[4, 1]"),
        ("o", np.zeros((HIDDEN, HIDDEN), np.float32), "array o: expected float32[4, 1], found float32[4, 4]"),
        ("o", np.full((HIDDEN, 1), np.inf, np.float32), "array o: expected finite numbers"),
        ("scale", np.ones(N - 1, np.float32), "array scale: expected float32[10], found float32[9]"),
        ("scale", np.zeros(N, np.float32), "array scale: expected numbers above 0"),
        ("scale", np.full(N, -1, np.float32), "array scale: expected numbers above 0"),
        ("scale", None, "array part_scale is missing"),
        ("V", None, "array part_V is missing"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(name: str, array: NDArray[np.floating] | None, message: str) -> None:
    parts = Parts({**arrays(), name: np.zeros(0) if array is None else array})
    if array is None:
        del parts[name]

    with pytest.raises(DataError, match=re.escape(message)):
        check_head(parts, RANK)


def test_a_head_learns_what_no_dot_product_of_its_rows_says(cpu: Kernels) -> None:
    """A click where user and item are at the same distance from zero, on whatever side: |p| = |q| in one dimension of
    two kinds each. The dot product of the rows, and anything linear in p, q and p q, is blind to it.
    """
    rng = np.random.default_rng(0)
    users, items = 120, 60
    size, sign = (rng.integers(1, 3, n) for n in (users, items)), (rng.choice([-1, 1], n) for n in (users, items))
    (a, b), (s, t) = (tuple(one) for one in (size, sign))
    P, Q = np.zeros((users, 2), np.float32), np.zeros((items, 2), np.float32)
    P[:, 0], Q[:, 0] = a * s, b * t
    model = bare(
        Ids(np.arange(users)), Ids(np.arange(items)), P=P, Q=Q, provenance=Provenance(config={"solver": "imported"})
    )
    labels = (a[:, None] == b).astype(float)
    shown = rng.random(labels.shape) < 0.5
    matrix = csr({u: {int(i): labels[u, i] for i in np.flatnonzero(shown[u])} for u in range(users)}, users)
    data = NewData(matrix, matrix, users, items)
    delta, outcome = tuned(
        model, data, cpu, adapter="head", negatives=0, epochs=40, batch=256, learning_rate=0.02, hidden=16
    )
    others = np.argwhere(~shown)
    p, q = P[others[:, 0]], Q[others[:, 1]]
    found = probabilities(p, q, np.zeros(len(others), np.float32), delta.parts)
    wanted = labels[~shown].astype(bool)
    linear = np.column_stack([p, q, p * q, np.ones(len(p))])
    best = linear @ np.linalg.lstsq(linear, labels[~shown], rcond=None)[0]
    assert ((best > 0.5) == wanted).mean() < 0.6
    assert ((found > 0.5) == wanted).mean() > 0.97
    assert outcome.loss == "logistic"
    assert outcome.run.losses[-1] < 0.1 < 0.6 < outcome.run.losses[0]
