"""Exact top-K for all users against implicit, faiss (flat, without the filter) and the bare matrix product, on the same
threads.

    recli factorize gowalla/train.parquet --rank 128 -o model.npz
    python benchmarks/topk.py model.npz [-k 10 100] [--threads 2] [--repeats 3]

Seen items are left out, as in `recli score`. Contestants alternate; the ratio of medians is what counts. `pip install
recli[bench]`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import faiss
import numpy as np
import scipy.sparse as sp
from implicit.cpu.topk import topk as implicit_topk
from threadpoolctl import threadpool_limits

from recli import io, kernels
from recli.artifacts import Factors
from recli.ids import Csr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-k", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with io.source([arguments.model]) as found:
        model = io.read_artifact(found, Factors)
    P, Q = np.array(model.P), np.array(model.Q)
    assert model.seen_indptr is not None
    assert model.seen_indices is not None
    ones = np.ones(len(model.seen_indices), np.float32)
    seen = Csr(np.array(model.seen_indptr), np.array(model.seen_indices), ones)
    seen_matrix = sp.csr_matrix((ones, seen.indices, seen.indptr), shape=(len(P), len(Q)))
    faiss.omp_set_num_threads(arguments.threads)
    flat = faiss.IndexFlatIP(Q.shape[1])
    flat.add(Q)
    for k in arguments.k:
        with kernels.load("cpu", arguments.threads) as backend:

            def ours(k: int = k) -> np.ndarray:
                return backend.topk(backend.index_items(Q), P, k, seen)[0]

            def implicit(k: int = k) -> np.ndarray:
                with threadpool_limits(1):
                    return implicit_topk(Q, P, k, filter_query_items=seen_matrix, num_threads=arguments.threads)[0]

            def product() -> None:
                tile = np.empty((1024, len(Q)), np.float32)
                for start in range(0, len(P), 1024):
                    rows = P[start : start + 1024]
                    np.matmul(rows, Q.T, out=tile[: len(rows)])

            contestants: dict[str, Callable[[], object]] = {
                "recli": ours,
                "implicit": implicit,
                "faiss flat": lambda k=k: flat.search(P, k),
                "bare product": product,
            }
            ours()  # compiles
            times: dict[str, list[float]] = {name: [] for name in contestants}
            for _ in range(arguments.repeats):
                for name, run in contestants.items():
                    start = time.perf_counter()
                    run()
                    times[name].append(time.perf_counter() - start)
        median = {name: statistics.median(seconds) for name, seconds in times.items()}
        shown = ", ".join(f"{n} {s:.2f} s ({s / median['recli']:.1f}x)" for n, s in median.items())
        print(f"{len(P)} users x {len(Q)} items, rank {P.shape[1]}, K {k}: {shown}", flush=True)


if __name__ == "__main__":
    main()
