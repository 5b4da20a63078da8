"""What gpu.py holds recli's kernels against: PyTorch, implicit's GPU module, CuPy's library calls, and the machine.

Each function makes a piece of work: a call of it returns its seconds, between two waits for the device. What is missing
(a package, a library, a GPU) raises here, and gpu.py reports it as the contestant's status.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recli.finetune.batches import PairBatch
from recli.ids import Csr

Work = Callable[[], float]
BLOCK_BYTES = 2 << 30  # of PyTorch's scores at a time
GATHERED_BYTES = 1 << 30  # of CuPy's gathered rows, and of its Gram matrices, at a time
SAMPLED = 4  # CuPy's calls solve every so manieth row, in the order of lengths
PADDED = 0.8  # rows of one batched product are not shorter than this share of its longest
CG_STEPS, REGULARIZATION = 3, 0.01  # implicit's defaults
DEVICE = "cuda"


def torch_on_gpu() -> Any:
    import torch

    if DEVICE == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("PyTorch sees no GPU")
    return torch


def torch_clock(torch: Any) -> Callable[[], float]:
    """The time, once the device has done what it was given."""

    def clock() -> float:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def copies(size: int) -> dict[str, tuple[Work, int]]:
    """Each with the bytes that it moves, read and written ones on the device counted together."""
    import cupy

    first, second = (cupy.empty(size, np.uint8) for _ in range(2))
    pageable = np.ones(size, np.uint8)
    pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(size), np.uint8, size)
    pinned[:] = 1
    wait = cupy.cuda.get_current_stream().synchronize

    def timed(copy: Callable[[], object]) -> Work:
        def work() -> float:
            wait()
            began = time.perf_counter()
            copy()
            wait()
            return time.perf_counter() - began

        return work

    first.set(pageable)
    return {
        "device to device": (timed(lambda: second.data.copy_from_device_async(first.data, size)), 2 * size),
        "host to device": (timed(lambda: first.set(pageable)), size),
        "host to device, pinned": (timed(lambda: first.set(pinned)), size),
        "device to host": (timed(lambda: first.get(out=pageable)), size),
        "device to host, pinned": (timed(lambda: first.get(out=pinned)), size),
    }


def gemm(kind: str, size: int) -> Work:
    """A product of two square matrices in fp32, tf32 or fp16."""
    try:
        torch = torch_on_gpu()
    except (ImportError, OSError, RuntimeError):
        return _cupy_gemm(kind, size)
    clock, dtype = torch_clock(torch), torch.float16 if kind == "fp16" else torch.float32
    A, B = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))

    def work() -> float:
        torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
        began = clock()
        torch.matmul(A, B)
        return clock() - began

    return work


def _cupy_gemm(kind: str, size: int) -> Work:
    import cupy

    if kind == "tf32":
        raise RuntimeError("tf32 needs PyTorch here")
    host = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    A, B = (cupy.asarray(one.astype(np.float16 if kind == "fp16" else np.float32)) for one in host)

    def work() -> float:
        cupy.cuda.get_current_stream().synchronize()
        began = time.perf_counter()
        cupy.matmul(A, B)
        cupy.cuda.get_current_stream().synchronize()
        return time.perf_counter() - began

    return work


def torch_topk(P: np.ndarray, Q: np.ndarray, seen: Csr, k: int, half: bool, lists: dict[str, np.ndarray]) -> Work:
    """Lists of all users by matrix product and topk, by blocks; lists["nums"] (OUT): int64[users, k]. Items wait on
    the device; users, what they have and the lists travel, as recli's do.
    """
    torch = torch_on_gpu()
    clock, dtype = torch_clock(torch), torch.float16 if half else torch.float32
    items = torch.from_numpy(Q).to(DEVICE, dtype)
    users, most = len(P), max(1, BLOCK_BYTES // (4 * len(Q)))

    def work() -> float:
        torch.set_float32_matmul_precision("highest")
        began = clock()
        nums, scores = [], []
        for start in range(0, users, most):
            bounds = seen.indptr[start : start + most + 1]
            lengths, had = torch.from_numpy(np.diff(bounds)), torch.from_numpy(seen.indices[bounds[0] : bounds[-1]])
            rows = torch.arange(len(lengths), device=DEVICE).repeat_interleave(lengths.to(DEVICE))
            block = torch.from_numpy(P[start : start + most]).to(DEVICE).to(dtype) @ items.T
            block[rows, had.to(DEVICE).long()] = -torch.inf
            best = block.topk(k, dim=1)
            nums.append(best.indices.cpu().numpy())
            scores.append(best.values.cpu().numpy())
        seconds = clock() - began
        lists["nums"] = np.concatenate(nums)
        return seconds

    return work


def torch_adam(
    P: np.ndarray, Q: np.ndarray, batches: Sequence[PairBatch], rate: float, tables: dict[str, np.ndarray]
) -> Work:
    """SparseAdam on squared errors, batch by batch; tables["P"], tables["Q"] (OUT): what comes of it."""
    torch = torch_on_gpu()
    clock = torch_clock(torch)

    def work() -> float:
        sides = [
            torch.nn.Embedding.from_pretrained(torch.from_numpy(x.copy()), freeze=False, sparse=True).to(DEVICE)
            for x in (P, Q)
        ]
        optimizer = torch.optim.SparseAdam([side.weight for side in sides], lr=rate)
        began = clock()
        for batch in batches:
            users, items, targets = (
                torch.from_numpy(x).to(DEVICE) for x in (batch.users, batch.items[:, 0].copy(), batch.targets)
            )
            optimizer.zero_grad()
            loss = (((sides[0](users) * sides[1](items)).sum(dim=1) - targets) ** 2).mean()
            loss.backward()
            optimizer.step()
            loss.item()
        seconds = clock() - began
        for name, side in zip("PQ", sides, strict=True):
            tables[name] = side.weight.detach().cpu().numpy()
        return seconds

    return work


def empty_torch_cache() -> None:
    import sys

    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def implicit_iteration(by_user: Csr, by_item: Csr, P: np.ndarray, Q: np.ndarray) -> Work:
    """Both half-sweeps of implicit's GPU module."""
    import contextlib

    with contextlib.suppress(ImportError, OSError):
        import torch  # noqa: F401  (brings the CUDA libraries that implicit's module looks for)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        import implicit.gpu as gpu
    if not gpu.HAS_CUDA:
        reason = next((str(one.message) for one in said if "GPU" in str(one.message)), "")
        raise RuntimeError(reason or ("implicit finds no GPU" if gpu.HAS_RMM else "implicit needs the package rmm"))
    import scipy.sparse as sp

    shapes = (len(P), len(Q)), (len(Q), len(P))
    matrices = [
        gpu.CSRMatrix(sp.csr_matrix((np.ones_like(csr.values), csr.indices, csr.indptr.astype(np.int32)), shape=shape))
        for csr, shape in zip((by_user, by_item), shapes, strict=True)
    ]
    tables, rank = [gpu.Matrix(P), gpu.Matrix(Q)], P.shape[1]
    solver, gram = gpu.LeastSquaresSolver(), gpu.Matrix.zeros(rank, rank)

    def work() -> float:  # each of its calls waits for the device
        began = time.perf_counter()
        for matrix, solve, fixed in ((matrices[0], *tables), (matrices[1], *tables[::-1])):
            solver.calculate_yty(fixed, gram, REGULARIZATION)
            solver.least_squares(matrix, solve, gram, fixed, CG_STEPS)
        return time.perf_counter() - began

    return work


def cupy_iteration(
    sides: Sequence[Csr], tables: Sequence[np.ndarray], alpha0: float, penalties: Sequence[np.ndarray]
) -> Work:
    """Both half-sweeps by library calls: rows of similar length gathered and padded, matmul for their Gram matrices,
    posv for the rows. Seconds are those of a sample of the rows times all pairs over the sample's.
    """
    import cupy

    halves = [
        _cupy_half(csr, fixed, alpha0, penalty)
        for csr, fixed, penalty in zip(sides, tables[::-1], penalties, strict=True)
    ]

    def work() -> float:
        seconds = 0.0
        for half, share in halves:
            cupy.cuda.get_current_stream().synchronize()
            began = time.perf_counter()
            half()
            cupy.cuda.get_current_stream().synchronize()
            seconds += (time.perf_counter() - began) / share
        return seconds

    return work


def _cupy_half(csr: Csr, fixed: np.ndarray, alpha0: float, penalty: np.ndarray) -> tuple[Callable[[], None], float]:
    """The work on the sample, and its share of all pairs. All weights and targets are 1."""
    import cupy
    from cupyx import lapack

    n, rank = fixed.shape
    lengths = np.diff(csr.indptr)
    rows = np.argsort(-lengths, kind="stable")[::SAMPLED]
    rows = rows[lengths[rows] > 0]
    ordered, chunks, start = lengths[rows], [], 0
    while start < len(rows):
        longest = int(ordered[start])
        most = max(1, GATHERED_BYTES // (4 * rank * max(rank, longest)))
        end = min(start + most, int(np.searchsorted(-ordered, -PADDED * longest, side="right")))
        chunks.append((longest, *(cupy.asarray(x[rows[start:end]]) for x in (csr.indptr[:-1], lengths, penalty))))
        start = end
    indices = cupy.asarray(np.append(csr.indices, np.zeros(1, np.int32)))
    padded = cupy.asarray(np.vstack([fixed, np.zeros((1, rank), np.float32)]))  # the last row is what padding gathers
    eye = cupy.asarray(np.eye(rank, dtype=np.float32))

    def half() -> None:
        gram = np.float32(alpha0) * cupy.matmul(padded.T, padded)
        for longest, starts, counts, regularization in chunks:
            step = cupy.arange(longest)
            inside = step < counts[:, None]
            at = cupy.where(inside, starts[:, None] + step, len(csr.indices))
            gathered = padded[cupy.where(inside, indices[at], n)]
            matrices = cupy.matmul(gathered.transpose(0, 2, 1), gathered)
            matrices += gram + regularization[:, None, None] * eye
            lapack.posv(matrices, gathered.sum(axis=1))

    return half, float(ordered.sum() / max(1, lengths.sum()))
