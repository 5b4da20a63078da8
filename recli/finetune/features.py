"""features: W maps attributes to rows, for users and items that nobody has interacted with yet.

Closed: a ridge regression of the base's rows on the attributes (Gantner et al. 2010, "Learning Attribute-to-Feature
Mappings for Cold-Start Recommendations", section 4.2, there by kNN or gradient). It gives rows to ids with attributes
alone, and leaves the others as they are. How strong it is, and how much ids with many interactions weigh, is chosen on
ids that are taken to be cold. By gradient: changes f W are added to the rows of all ids with attributes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from recli.artifacts import Features
from recli.checks import Arrays, check_array, check_csr
from recli.errors import DataError
from recli.finetune.base import BaseRows, Side
from recli.finetune.optimizer import Gradient, Parameter
from recli.finetune.tables import Tables
from recli.ids import Csr, take_rows, transpose
from recli.kernels.spec import Floats, Kernels
from recli.metrics import Truth, per_user

REG = (1.0, 10.0, 100.0, 1000.0)  # tried, where --reg gives none
POWER = (0.0, 0.5, 1.0)  # of the number of interactions, tried as weights
MOST_COLUMNS = 1 << 14  # the normal equations are dense
STATISTICS = "statistics."  # columns of featurize that ids without interactions have not
APART, CHOSEN_BY, MOST_JUDGED = 0.2, 20, 2000  # share taken to be cold; length of lists; users who judge


@dataclass(frozen=True)
class Attributes:
    """Of one side. matrix: CSR [n, columns], the last column ones; there: bool[n], which ids have any; names: of all
    columns but the last.
    """

    matrix: Csr
    there: NDArray[np.bool_]
    names: tuple[str, ...]

    @classmethod
    def of(cls, features: Features, nums: NDArray[np.int64]) -> Attributes:
        """nums: int64[n], which row of features an id has, -1 for none. Raises DataError for too many columns."""
        kept = [at for at, name in enumerate(features.dense_names) if not name.startswith(STATISTICS)]
        names = (*features.sparse_names, *(features.dense_names[at] for at in kept))
        if len(names) >= MOST_COLUMNS:
            raise DataError(
                f"{len(names)} columns of features, expected fewer than {MOST_COLUMNS}: featurize --reduce or --select "
                "makes fewer of them"
            )
        there = nums >= 0
        there[there] = features.has_row[nums[there]]
        rows = np.where(there, nums, -1)
        sparse = _scipy(take_rows(features.sparse, rows, values=True), len(features.sparse_names))
        dense = np.zeros((len(nums), len(kept) + 1), np.float32)
        dense[there, :-1], dense[there, -1] = features.dense[nums[there]][:, kept], 1
        both = sp.hstack([sparse, sp.csr_array(dense)], format="csr")
        matrix = Csr(both.indptr.astype(np.int64), both.indices.astype(np.int32), both.data.astype(np.float32))
        return cls(matrix, there, names)

    @property
    def columns(self) -> int:
        return len(self.names) + 1

    def times(self, W: Floats) -> Floats:
        """What W float32[columns, r] makes of each id, zero without attributes: float32[n, r]."""
        return np.asarray(_scipy(self.matrix, self.columns) @ W, np.float32)


def _scipy(matrix: Csr, columns: int) -> Any:
    return sp.csr_array((matrix.values, matrix.indices, matrix.indptr), shape=(len(matrix.indptr) - 1, columns))


def ridge(matrix: Any, rows: NDArray[Any], weights: NDArray[np.float64], reg: float) -> NDArray[np.float64]:
    """W float64[columns, r], with the least sum_i weights_i |rows_i - f_i W|^2 + reg |W without its last row|^2.

    matrix: scipy CSR [n, columns], the last a constant; weights: float64[n], above 0, scaled to a mean of 1.
    """
    weights = weights / weights.mean()
    weighted = matrix.multiply(weights[:, None]).tocsr()
    gram = (matrix.T @ weighted).toarray().astype(np.float64)
    gram[np.diag_indices(len(gram) - 1)] += reg
    gram[-1, -1] += 1e-9
    solution: NDArray[np.float64] = scipy.linalg.solve(gram, weighted.T @ rows.astype(np.float64), assume_a="pos")
    return solution


def learned_map(
    attributes: Attributes,
    rows: Floats,
    counts: NDArray[np.int64],
    others: Floats,
    had: Csr | None,
    reg: float | None,
    seed: int,
    kernels: Kernels,
) -> tuple[Floats, dict[str, float]]:
    """W float32[columns, r] from the base's rows float32[n, r], of ids with attributes that have interactions, counts
    int64[n]; and what was chosen. others: the other side's rows; had: CSR [n, others], the interactions, or None.

    Raises DataError where there is nothing to learn from.
    """
    warm = np.flatnonzero(attributes.there[: len(rows)] & (rows.any(axis=1)))
    if len(warm) < 2:
        raise DataError(f"{len(warm)} ids have both rows and attributes: there is nothing to learn the features from")
    matrix = _scipy(attributes.matrix, attributes.columns)
    weights = np.maximum(counts[warm], 1).astype(np.float64)
    points = [(reg, 0.5)] if reg is not None else list(itertools.product(REG, POWER))
    if had is None or len(warm) < 10:
        points = points[:1] if reg is not None else [(10.0, 0.5)]
    point = points[0]
    if len(points) > 1 and had is not None:
        point = _chosen(points, matrix[warm], rows[warm], weights, others, take_rows(had, warm), seed, kernels)
    W = ridge(matrix[warm], rows[warm], weights ** point[1], point[0])
    return np.asarray(W, np.float32), {"reg": point[0], "power": point[1]}


def stretched(W: Floats, attributes: Attributes, rows: Floats) -> Floats:
    """W float32[columns, r] times what gives the rows that it makes of known ids, rows float32[n, r], their length: a
    ridge shrinks, and a short row loses against every long one, whatever its direction.
    """
    warm = np.flatnonzero(attributes.there[: len(rows)] & rows.any(axis=1))
    made = attributes.times(W)[warm]
    short, long = (float(np.linalg.norm(one.astype(np.float64))) for one in (made, rows[warm]))
    return np.asarray(W * (long / short), np.float32) if short > 0 else W


def _chosen(
    points: Sequence[tuple[float, float]],
    matrix: Any,
    rows: Floats,
    weights: NDArray[np.float64],
    others: Floats,
    had: Csr,
    seed: int,
    kernels: Kernels,
) -> tuple[float, float]:
    """The point under which ids taken to be cold are ranked best among each other, by ndcg."""
    rng = np.random.default_rng(seed)
    cold = rng.random(len(rows)) < APART
    cold[rng.integers(len(rows))] = True
    cold[np.flatnonzero(cold)[-1] if cold.all() else 0] &= not cold.all()
    truth = transpose(take_rows(had, np.flatnonzero(cold)), len(others))
    judges = np.flatnonzero(np.diff(truth.indptr))
    if len(judges) > MOST_JUDGED:
        judges = np.sort(rng.choice(judges, MOST_JUDGED, replace=False))
    if not len(judges) or cold.all():
        return points[0]
    wanted = take_rows(truth, judges)
    best = []
    for reg, power in points:
        W = ridge(matrix[~cold], rows[~cold], weights[~cold] ** power, reg)
        index = kernels.index_items(np.ascontiguousarray(matrix[cold] @ W, np.float32))
        k = min(CHOSEN_BY, int(cold.sum()))
        lists, _ = kernels.topk(index, np.ascontiguousarray(others[judges]), k, None)
        best.append(float(per_user(lists, Truth(wanted, np.diff(wanted.indptr)))["ndcg"].mean()))
    return points[int(np.argmax(best))]


class MappedRows:
    """Rows of a side, and for ids with attributes f W added. W starts at zero."""

    def __init__(self, side: Side, attributes: Attributes, kernels: Kernels) -> None:
        self._base, self._attributes, self._kernels = BaseRows(side, kernels), attributes, kernels
        self.parameter = Parameter.zeros(attributes.columns, side.rank, kernels)
        self._batch = attributes.matrix
        self._columns = np.zeros(0, np.int64)

    def take(self, nums: NDArray[np.int64]) -> Any:
        batch = take_rows(self._attributes.matrix, nums, values=True)
        self._columns, local = np.unique(batch.indices, return_inverse=True)
        self._batch = batch._replace(indices=local.astype(np.int32))
        rows = self._base.take(nums)
        if len(self._columns):
            weights = self._kernels.take(self.parameter.table, self._columns.astype(np.int64))
            self._kernels.add_rows(
                rows, self._kernels.product(self._kernels.matrix(self._batch), weights), np.arange(len(nums))
            )
        return rows

    def gradients(self, nums: NDArray[np.int64], gain: Any) -> Sequence[Gradient]:
        if not len(self._columns):
            return []
        by_column = self._kernels.matrix(transpose(self._batch, len(self._columns)))
        columns = self._columns.astype(np.int64)
        return [Gradient(self.parameter, columns, self._kernels.product(by_column, gain))]


def features_parts(attributes: dict[str, Attributes], W: dict[str, Floats], D: dict[str, Floats]) -> Arrays:
    """What the artifact stores, by role: W float32[columns, r + 1], from attributes to whole rows and a bias; D
    float32[columns, r], what is added to rows that are there, with the attributes of those.
    """
    parts: Arrays = {f"W_{role}": table for role, table in W.items()}
    for role, table in D.items():
        matrix = attributes[role].matrix
        parts[f"D_{role}"] = table
        parts[f"F_{role}_indptr"], parts[f"F_{role}_indices"], parts[f"F_{role}_values"] = matrix
    return parts


def apply_features(arrays: Arrays, tables: Tables) -> Tables:
    """Rows of ids that had attributes alone are in the delta as new ones; here is what is added to all."""
    changed: dict[str, Floats] = {"user": tables.P, "item": tables.Q}
    for role, rows in changed.items():
        if f"D_{role}" not in arrays:
            continue
        indptr, indices, values = (arrays[f"F_{role}_{name}"] for name in Csr._fields)
        D = arrays[f"D_{role}"]
        columns = D.shape[0] if D.ndim == 2 else -1
        check_array(f"D_{role}", D, np.float32, (columns, rows.shape[1]), finite=True)
        check_csr(f"F_{role}_", indptr, indices, len(rows), columns)
        check_array(f"F_{role}_values", values, np.float32, (len(indices),), finite=True)
        changed[role] = rows + np.asarray(_scipy(Csr(indptr, indices, values), columns) @ D, np.float32)
    return Tables(changed["user"], changed["item"], tables.b_u, tables.b_v, tables.b)
