"""head: a small network over a pair's rows that predicts a probability: click, default, purchase.

    z = [p, q, p * q, b_u + b_v + b],   logit = z w + c + relu(z V + d) . o,   probability = sigmoid(logit)

(He et al. 2017, "Neural Collaborative Filtering", section 3, with one hidden layer and frozen factors). It is for
pairs, and for an order among a few candidates, since it is no dot product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from recli.checks import Arrays, check_array
from recli.errors import DataError
from recli.finetune.optimizer import Gradient, Parameter
from recli.kernels.spec import Floats, Kernels, Nums

WEIGHTS = ("w", "c", "V", "d", "o")
BLOCK = 8192  # pairs whose inputs and hidden units are there at once


@dataclass
class Head:
    """parameters w [n, 1], c [1, 1], V [n, h], d [1, h], o [h, 1]; scale float32[n]: z is divided by it."""

    parameters: dict[str, Parameter]
    scale: Floats
    kernels: Kernels
    _z: Any = None
    _hidden: Any = None

    @classmethod
    def start(cls, scale: Floats, hidden: int, rng: np.random.Generator, kernels: Kernels) -> Head:
        """Of next to no output: w is zero, o small, so that gradients reach V, which is drawn as He et al. 2015 do for
        relu.
        """
        n = len(scale)
        V = (rng.standard_normal((n, hidden)) * np.sqrt(2 / n)).astype(np.float32)
        o = (rng.standard_normal((hidden, 1)) * 0.01).astype(np.float32)
        zeros = {
            name: np.zeros(shape, np.float32) for name, shape in (("w", (n, 1)), ("c", (1, 1)), ("d", (1, hidden)))
        }
        values = {**zeros, "V": V, "o": o}
        return cls({name: Parameter.of(values[name], kernels) for name in WEIGHTS}, scale, kernels)

    def forward(self, X: Any, Y: Any, user_at: Nums, item_at: Nums, biases: Floats) -> Floats:
        """Logits of pairs of rows of two tables: float32[n]."""
        weights = {name: self.kernels.host(self.parameters[name].table) for name in WEIGHTS}
        p, q = self.kernels.host(X)[user_at], self.kernels.host(Y)[item_at]
        self._z = inputs(p, q, biases, self.scale)
        found, self._hidden = _logits(self._z, weights)
        return found

    def gradients(self, slopes: Floats) -> list[Gradient]:
        """Of the parameters, after `forward`, whose logits have these derivatives float32[n]."""
        o = self.kernels.host(self.parameters["o"].table)
        column = slopes[:, None]
        inner = (column @ o.T) * (self._hidden > 0)
        found = {
            "w": self._z.T @ column,
            "c": column.sum(axis=0, keepdims=True),
            "V": self._z.T @ inner,
            "d": inner.sum(axis=0, keepdims=True),
            "o": self._hidden.T @ column,
        }
        return [
            Gradient(self.parameters[name], None, self.kernels.table(np.ascontiguousarray(table, np.float32)))
            for name, table in found.items()
        ]


def inputs(p: Floats, q: Floats, biases: Floats, scale: Floats) -> Floats:
    """z of pairs, float32[n, 3 r + 1], divided by scale."""
    return np.asarray(np.hstack([p, q, p * q, biases[:, None]], dtype=np.float32) / scale, np.float32)


def input_scale(p: Floats, q: Floats, biases: Floats) -> Floats:
    """The root mean square of each part of z over some pairs, for each of its columns: float32[3 r + 1]."""
    parts = [
        np.broadcast_to(np.sqrt(np.mean(np.square(part, dtype=np.float64))), part.shape[1:])
        for part in (p, q, p * q, biases[:, None])
    ]
    scale = np.concatenate(parts).astype(np.float32)
    return np.where(scale > 0, scale, np.float32(1))


def logits(p: Floats, q: Floats, biases: Floats, arrays: Arrays) -> Floats:
    """What a stored head says of pairs, before the sigmoid: float32[n]."""
    found = np.empty(len(p), np.float32)
    with threadpool_limits(1):  # the bits must not depend on threads
        for start in range(0, len(p), BLOCK):
            part = slice(start, start + BLOCK)
            found[part] = _logits(inputs(p[part], q[part], biases[part], arrays["scale"]), arrays)[0]
    return found


def _logits(z: Floats, weights: Arrays) -> tuple[Floats, Floats]:
    hidden = np.maximum(z @ weights["V"] + weights["d"], 0)
    return (z @ weights["w"] + weights["c"] + hidden @ weights["o"])[:, 0], hidden


def check_head(arrays: Arrays, rank: int) -> None:
    n, hidden = 3 * rank + 1, arrays["V"].shape[1] if arrays["V"].ndim == 2 else -1
    shapes = {"w": (n, 1), "c": (1, 1), "V": (n, hidden), "d": (1, hidden), "o": (hidden, 1), "scale": (n,)}
    for name, shape in shapes.items():
        check_array(name, arrays[name], np.float32, shape, finite=True)
    if not (arrays["scale"] > 0).all():
        raise DataError("array scale: expected numbers above 0")
