"""iALS against implicit: seconds to the objective that implicit has after 15 iterations, from the same start, on the
same threads.

    python benchmarks/ials.py [RATINGS | synthetic] [--rank 64] [--threads 2] [--repeats 3]

The objective is implicit's (Hu, Koren, Volinsky 2008, confidence 1 + alpha r); `recli factorize --loss hu --nu 0
--alpha0 1 --alpha 10 --reg 5` describes the same. Contestants alternate; the ratio of medians is what counts, the
spread of implicit's times is the noise. Needs nothing that recli does not install.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from recli import io, kernels
from recli.config import ReadConfig
from recli.factorize.ials import RELAXATION, STEPS
from recli.ids import Csr, transpose
from recli.kernels.spec import Kernels

ALPHA, REG, PEER_ITERATIONS = 10.0, 5.0, 15


def synthetic(users: int = 60_000, items: int = 10_000, draws: int = 9_000_000) -> Csr:
    """Log-normal activity, Zipf popularity and planted tastes of rank 16; some 4 million pairs."""
    rng = np.random.default_rng(0)
    activity = rng.lognormal(0, 1.1, users)
    popularity = 1 / (np.arange(items) + 20)
    user = rng.choice(users, draws, p=activity / activity.sum())
    item = rng.permutation(items)[rng.choice(items, draws, p=popularity / popularity.sum())]
    U, V = rng.standard_normal((users, 16), np.float32), rng.standard_normal((items, 16), np.float32)
    liked = rng.random(draws) < 1 / (1 + np.exp(-0.5 * np.einsum("nr,nr->n", U[user], V[item])))
    matrix = sp.csr_array((np.ones(liked.sum(), np.float32), (user[liked], item[liked])), shape=(users, items))
    matrix.sort_indices()
    return Csr(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), np.ones(matrix.nnz, np.float32))


def objective(csr: Csr, X: np.ndarray, Y: np.ndarray) -> float:
    """sum_observed (1 + w)(1 - s)^2 + sum_unobserved s^2 + REG (|X|^2 + |Y|^2), in float64."""
    total = float(np.sum((X.T @ X).astype(np.float64) * (Y.T @ Y)))
    for first in range(0, len(X), 4096):
        last = min(first + 4096, len(X))
        entries = slice(csr.indptr[first], csr.indptr[last])
        rows = np.repeat(np.arange(first, last), np.diff(csr.indptr[first : last + 1]))
        s = np.einsum("er,er->e", X[rows], Y[csr.indices[entries]]).astype(np.float64)
        total += float(np.sum((1 + ALPHA * csr.values[entries]) * (1 - s) ** 2 - s**2))
    return total + REG * float(np.sum(X.astype(np.float64) ** 2) + np.sum(Y.astype(np.float64) ** 2))


def peer(csr: Csr, X: np.ndarray, Y: np.ndarray, threads: int) -> tuple[float, float]:
    model = AlternatingLeastSquares(
        factors=X.shape[1], regularization=REG, alpha=1.0, iterations=PEER_ITERATIONS, num_threads=threads
    )
    model.user_factors, model.item_factors = X.copy(), Y.copy()
    confidence = sp.csr_matrix((1 + ALPHA * csr.values, csr.indices, csr.indptr), shape=(len(X), len(Y)))
    start = time.perf_counter()
    with threadpool_limits(1):
        model.fit(confidence, show_progress=False)
    return time.perf_counter() - start, objective(csr, model.user_factors, model.item_factors)


def ours(csr: Csr, X: np.ndarray, Y: np.ndarray, target: float, backend: Kernels) -> tuple[float, int]:
    """Seconds and iterations until the objective is no higher than the target; evaluating it is not counted."""
    start = time.perf_counter()
    by_user = csr._replace(values=csr.values * np.float32(ALPHA))
    sides = by_user, transpose(by_user, len(Y))
    matrices, targets = [backend.matrix(side) for side in sides], [side.values + np.float32(1) for side in sides]
    P, Q = backend.table(X), backend.table(Y)
    penalties = [np.full(len(side), REG, np.float32) for side in (X, Y)]
    seconds = time.perf_counter() - start
    for iteration in range(1, 100):
        start = time.perf_counter()
        relaxation = RELAXATION if iteration > 1 else 1.0
        for side, (solve, fixed) in enumerate(((P, Q), (Q, P))):
            backend.half_sweep(
                matrices[side],
                solve,
                fixed,
                targets=targets[side],
                alpha0=1.0,
                regularization=penalties[side],
                steps=STEPS,
                relaxation=relaxation,
            )
        seconds += time.perf_counter() - start
        if objective(csr, backend.host(P), backend.host(Q)) <= target:
            return seconds, iteration
    raise SystemExit("not reached in 100 iterations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="synthetic")
    parser.add_argument("--rank", type=int, nargs="+", default=[64])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.data == "synthetic":
        csr = synthetic()
        shape = (len(csr.indptr) - 1, int(csr.indices.max()) + 1)
    else:
        with io.source([arguments.data]) as found:
            interactions, _ = io.read_interactions(found, ReadConfig())
        csr = interactions.matrix._replace(values=np.ones_like(interactions.matrix.values))
        shape = (len(interactions.user_ids), len(interactions.item_ids))
    for rank in arguments.rank:
        rng = np.random.default_rng(0)
        X, Y = (rng.random((n, rank), np.float32) * np.float32(0.01) for n in shape)
        with kernels.load("cpu", arguments.threads) as backend:
            ours(csr, X, Y, np.inf, backend)  # compiles
            peer_times, our_times = [], []
            for _ in range(arguments.repeats):
                seconds, target = peer(csr, X, Y, arguments.threads)
                peer_times.append(seconds)
                seconds, iterations = ours(csr, X, Y, target, backend)
                our_times.append(seconds)
        theirs, mine = statistics.median(peer_times), statistics.median(our_times)
        noise = (max(peer_times) - min(peer_times)) / theirs
        print(
            f"rank {rank}, {shape[0]} x {shape[1]}, {len(csr.indices)} pairs: "
            f"implicit {PEER_ITERATIONS} iterations {theirs:.2f} s, "
            f"recli {iterations} iterations {mine:.2f} s, ratio {theirs / mine:.1f} (noise {noise:.0%})",
            flush=True,
        )


if __name__ == "__main__":
    main()
