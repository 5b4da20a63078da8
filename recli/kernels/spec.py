"""The kernel contract: what every backend (reference, cpu, gpu) computes, and to what tolerance.

A backend is chosen once (`kernels.load`) and knows arrays only: no files, no logging, no random numbers, no
configuration. It keeps its own copies of matrices and tables (`matrix`, `table`), in whatever layout suits the device;
`host` brings a table back.

**The alternating least-squares problem.** With x_u a row of the side being solved, y_j a row of the fixed side, s =
x_u . y_j, and w_uj >= 0, t_uj the weights and targets of the stored entries:

    L = sum_stored [ w s^2 - 2 t s ] + alpha0 sum_all s^2 + sum_u regularization_u |x_u|^2 + (fixed side's penalty)

which is, up to the constant sum_stored t (t / w for squared errors), the objective of implicit ALS with t = w (Rendle
et al. 2022, "Revisiting the Performance of iALS on Item Recommendation Benchmarks", eq. 3), with t = w + alpha0 (Hu,
Koren, Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets", eq. 3, whose unobserved pairs alone have
weight alpha0), and of explicit ALS with w = 1, t = the rating, alpha0 = 0. Row u is solved by A_u x_u = b_u with A_u =
alpha0 Y^T Y + regularization_u I + sum_j w_uj y_j y_j^T and b_u = sum_j t_uj y_j.

**A score** is the float64 dot product of two float32 rows in a fixed order, rounded to float32: lane l of 8 sums the
products of columns l, l + 8, l + 16, ... in that order; then lanes are halved (l + lane l+4, then l+2, then l+1).
Products of float32 are exact in float64, so a fused multiply-add changes nothing and every device gets the same bits.
-0 counts as +0. Ranking is by higher score, then lower item number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recli.ids import Csr

Floats: TypeAlias = NDArray[np.float32]
Nums: TypeAlias = NDArray[np.int32]


class SweepStats(NamedTuple):
    """What a half-sweep saw on its way: data + penalty_before + the fixed side's penalty is L before it.

    data: sum_stored [w s^2 - 2 t s] + alpha0 sum_all s^2 with the rows as given; penalty_before, penalty_after: sum_u
    regularization_u |x_u|^2 without frozen columns.
    """

    data: float
    penalty_before: float
    penalty_after: float


class Rule(NamedTuple):
    """How a parameter takes a step against its gradient g: kind is sgd, adagrad or adam.

    The gradient is multiplied by scale, and grows by l2 times the parameter, first. sgd: m1 = beta1 m1 + g, minus rate
    m1 (heavy ball; no moments where beta1 is 0). adagrad (Duchi et al. 2011): m1 += g^2, minus rate g / (sqrt(m1) +
    epsilon). adam (Kingma, Ba 2015, algorithm 1): m1 = beta1 m1 + (1 - beta1) g, m2 = beta2 m2 + (1 - beta2) g^2, minus
    rate m1 / (1 - beta1^step) / (sqrt(m2 / (1 - beta2^step)) + epsilon), step counting from 1. decay: the parameter
    shrinks by rate * decay before (Loshchilov, Hutter 2019, AdamW). l1: it is moved towards zero by `shrink` after, and
    stops there (proximal): rate * l1, and for sgd rate * l1 / (1 - beta1), since its momentum makes of every gradient,
    too, so many steps.
    """

    kind: str
    rate: float
    beta1: float = 0.0
    beta2: float = 0.0
    epsilon: float = 1e-8
    decay: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    step: int = 1
    scale: float = 1.0

    @property
    def moments(self) -> int:
        """How many tables of moments it keeps."""
        return {"sgd": int(self.beta1 > 0), "adagrad": 1, "adam": 2}[self.kind]

    @property
    def shrink(self) -> float:
        """By how much l1 moves a parameter towards zero."""
        forgotten = 1 - self.beta1 if self.kind == "sgd" and self.beta1 < 1 else 1.0
        return self.rate * self.l1 / forgotten

    @property
    def numbers(self) -> Floats:
        """What a step's kernel takes: rate, beta1, beta2, epsilon, decay, shrink, l2; by what a moment divided by 1 -
        beta^step is multiplied, both of them (1 where it is not adam); scale.
        """
        first, second = (1 / (1 - beta**self.step) if self.kind == "adam" else 1 for beta in (self.beta1, self.beta2))
        own = (self.rate, self.beta1, self.beta2, self.epsilon, self.decay, self.shrink, self.l2)
        return np.array([*own, first, second, self.scale], np.float32)


class Kernels(Protocol):
    """One device. `Any` below is the backend's own handle."""

    name: str

    def matrix(self, matrix: Csr | NDArray[Any]) -> Any:
        """A handle on a sparse matrix; its values are the weights of `half_sweep`. Or, for `product` alone, on a dense
        one: any real dtype [n, m], C- or F-contiguous, read block by block each time, so that it may be memory-mapped.
        The arrays must not change while it lives.
        """
        ...

    def table(self, rows: Floats) -> Any:
        """A copy of float32[n, rank] rows, C-order, on the device. n and rank may be anything from 0 and 1."""
        ...

    def view(self, rows: Floats) -> Any:
        """The same, to be read alone, without a copy where the device allows: the rows must not change while it
        lives.
        """
        ...

    def host(self, table: Any) -> Floats:
        """The rows of a table: float32[n, rank], C-order, a new array."""
        ...

    def product(self, matrix: Any, table: Any) -> Any:
        """matrix [n, m] times table [m, rank]: a new table [n, rank]. Entries count as float32; to 1e-5 of the product
        of absolute values, as are the next two. The same bits for any number of threads, as are theirs.
        """
        ...

    def gram(self, left: Sequence[Any], right: Any) -> NDArray[np.float64]:
        """The dot products of columns, left^T right, tables [n, r1], [n, r2], ... (at least one) side by side and
        [n, s]: float64[r1 + r2 + ..., s]. n may be 0. What overflows is not finite.
        """
        ...

    def combine(self, tables: Sequence[Any], coefficients: NDArray[np.float64]) -> Any:
        """Tables [n, r1], [n, r2], ... (at least one) side by side times coefficients [r1 + r2 + ..., s], which count
        as float32: a new table [n, s].
        """
        ...

    def half_sweep(
        self,
        matrix: Any,
        solve: Any,
        fixed: Any,
        *,
        targets: Floats,
        alpha0: float,
        regularization: Floats,
        steps: int,
        relaxation: float,
        tolerance: float = 0.0,
        frozen: tuple[int, ...] = (),
    ) -> SweepStats:
        """Moves every row of `solve` (IN/OUT) towards its minimiser with `fixed` (IN/OUT) held.

        matrix: rows are those of `solve`, columns those of `fixed`. targets: float32[nnz], t in the matrix's order; an
        array that is passed again must not have changed. regularization: float32[rows], > 0 where a row has entries.
        steps: preconditioned conjugate-gradient steps from the row as given, at most: a row takes no more once its
        preconditioned squared residual is below `tolerance` of what it was. `reference` solves exactly and ignores
        both. relaxation: omega in x + omega (x* - x), 0 < omega < 2: the row's problem is quadratic and x* minimises it
        over the steps' subspace, so any such omega lowers the objective. A row without entries becomes zero. frozen:
        columns of `solve` that keep their values and are not regularised (the ones that carry the other side's biases),
        with alpha0 = 0 only. With alpha0 > 0 both tables may come back multiplied by one common orthonormal matrix, so
        solve fixed^T is what is defined, to 1e-4 of its largest entry after enough steps. The same bits for any number
        of threads. Where numbers overflow, the terms returned are not all finite; there is no exception and no warning.
        With alpha0 > 0 and fewer than 8 steps, rows of a large `fixed` may be gathered in half precision: the rows then
        solve a problem whose numbers are off by 2^-11, one by one. Devices take the same steps: after as many of them,
        solve fixed^T agrees to 2e-5 of its largest entry, and to 1e-3 where rows are in half precision.
        """
        ...

    def index_items(self, items: Floats) -> Any:
        """Prepares float32[m, rank] item rows (finite) for `topk`."""
        ...

    def index_arrays(self, index: Any) -> dict[str, NDArray[Any]]:
        """What an index consists of. rows: float32[m, width], C-order, by descending norm, zero columns behind the
        rank; norms: float64[m]; order: int32[m], the item of each row.
        """
        ...

    def index_from(self, arrays: Mapping[str, NDArray[Any]]) -> Any:
        """The index of which `index_arrays`, of any backend, gave these. They may be memory-mapped and read-only; where
        the device allows it, they are read when and as far as a search needs them.
        """
        ...

    def topk(self, index: Any, users: Floats, k: int, excluded: Csr | None) -> tuple[Nums, Floats]:
        """The k best items of each row of users float32[n, rank], leaving out the row's items in `excluded` (its values
        are not read).

        Returns item numbers int32[n, k] and scores float32[n, k], best first, exactly as "a score" above defines; where
        fewer than k items are left, the tail has item -1 and score -inf. 1 <= k; scores must not overflow float32.
        """
        ...

    def score_pairs(
        self, users: Floats, items: Floats, user_nums: NDArray[np.int64], item_nums: NDArray[np.int64]
    ) -> Floats:
        """The scores of rows users[user_nums] with items[item_nums]: float32[n], exactly as "a score" above defines.

        users float32[any, rank], items float32[any, rank], C-order, rank from 0; user_nums, item_nums int64[n], rows
        that are there, in any order and again. Where a score overflows float32, it is infinite.
        """
        ...

    # What training a few rows at a time needs. Batches have a few thousand rows and pairs; tables that they make have
    # as many rows as they were given numbers. To 1e-5 of the sum of absolute terms; the same bits for any number of
    # threads.

    def zeros(self, rows: int, rank: int) -> Any:
        """A table of zeros: a parameter, or its moments. Rows take memory when they are first written, where the device
        allows it.
        """
        ...

    def take(
        self,
        rows: Any,
        nums: NDArray[np.int64],
        changes: Any | None = None,
        changed_at: NDArray[np.int64] | None = None,
    ) -> Any:
        """rows[nums], and changes[changed_at] added: a new table [n, rank]. -1 takes or adds nothing. rows: a table, or
        float32[m, rank] on the host, C-order, which may be memory-mapped; changes: a table, or None.
        """
        ...

    def add_rows(self, table: Any, rows: Any, nums: NDArray[np.int64], scale: float = 1.0) -> None:
        """table [n, rank] (IN/OUT) += scale times rows[nums], a table's; -1 adds nothing."""
        ...

    def add_product(self, table: Any, left: Any, coefficients: NDArray[np.float64]) -> None:
        """table [n, s] (IN/OUT) += left [n, r] times coefficients [r, s], which count as float32."""
        ...

    def pair_dots(self, users: Any, items: Any, user_at: Nums, item_at: Nums) -> Floats:
        """The dot products of rows user_at, item_at int32[n] of two tables: float32[n]."""
        ...

    def pair_gradients(self, users: Any, items: Any, user_at: Nums, item_at: Nums, slopes: Floats) -> tuple[Any, Any]:
        """What rows gain by pairs: two new tables, the sum over a user's pairs of slope times the item's row, as many
        rows as `users`, and over an item's pairs of slope times the user's row, as many as `items`.
        """
        ...

    def step(
        self, rule: Rule, parameter: Any, moments: Sequence[Any], nums: NDArray[np.int64] | None, gradient: Any
    ) -> None:
        """One step of rows nums int64[n] (each once; None: all) of a parameter [m, rank] (IN/OUT), and of its moments
        (IN/OUT, as many as rule.moments), against a gradient [n, rank]. Other rows, and their moments, stay.
        """
        ...
