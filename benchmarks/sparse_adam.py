"""An epoch of Adam on the rows that each batch touches: `recli finetune --adapter full` and PyTorch's SparseAdam, on
the same batches, in one run.

    python benchmarks/sparse_adam.py [--synthetic 100kx10kx10M] [--rank 128] [--batch 8192] [--share 1]

Both start from the same factors and minimise the squared error of the same pairs, batch by batch in the same order; the
largest difference of the two results is printed beside the seconds, so that it is seen that both did the same updates.
--share takes a part of the epoch. PyTorch is told to use as many threads. Peak memory is that of recli's run alone,
less what there was before training (Python, pairs, base): the parameters and moments that were trained.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np

from recli import kernels
from recli.bench.synthetic import parse_size, synthetic
from recli.config import FinetuneConfig
from recli.finetune.base import Base, Side
from recli.finetune.batches import Batches
from recli.finetune.loop import Trainer
from recli.finetune.losses import LOSSES
from recli.finetune.rows import rows_learner
from recli.kernels.spec import Kernels
from recli.process import held_bytes

RATE = 1e-3


class Part(Batches):
    """The first batches of each epoch."""

    share = 1.0

    def epoch(self, number):  # type: ignore[no-untyped-def]
        return itertools.islice(super().epoch(number), round(self.share * len(self)))


def ours(
    P: np.ndarray, Q: np.ndarray, batches: Part, backend: Kernels
) -> tuple[float, float, int, np.ndarray, np.ndarray]:
    """Seconds, loss, bytes more than before, and the tables."""
    base = Base(*(Side(rows, rows[:0], np.zeros(len(rows), np.float32), np.arange(len(rows))) for rows in (P, Q)), 0.0)
    config = FinetuneConfig(
        adapter="full", epochs=1, learning_rate=RATE, schedule="constant", warm_up=0.0, loss="squared", negatives=0
    )
    before = held_bytes()
    learner = rows_learner(base, (base.users.touched, base.items.touched), config, backend)
    trainer = Trainer(base, learner, batches, LOSSES["squared"], config, backend)
    began = time.perf_counter()
    rng, losses = np.random.default_rng(0), []
    for batch in batches.epoch(0):
        value, gradients = trainer.gradients(batch, rng)
        trainer.step(gradients)
        losses.append(value)
    seconds, held = time.perf_counter() - began, held_bytes() - before
    state = learner.state(backend)
    return seconds, float(np.mean(losses)), held, P + state["P"], Q + state["Q"]


def theirs(P: np.ndarray, Q: np.ndarray, batches: Part, threads: int) -> tuple[float, float, np.ndarray, np.ndarray]:
    import torch

    torch.set_num_threads(threads)
    tables = [torch.nn.Embedding.from_pretrained(torch.from_numpy(x.copy()), freeze=False, sparse=True) for x in (P, Q)]
    optimizer = torch.optim.SparseAdam([table.weight for table in tables], lr=RATE)
    began, losses = time.perf_counter(), []
    for batch in batches.epoch(0):
        users, items = (
            torch.from_numpy(batch.users.astype(np.int64)),
            torch.from_numpy(batch.items[:, 0].astype(np.int64)),
        )
        optimizer.zero_grad()
        scores = (tables[0](users) * tables[1](items)).sum(dim=1)
        loss = ((scores - torch.from_numpy(batch.targets)) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seconds = time.perf_counter() - began
    return seconds, float(np.mean(losses)), *(table.weight.detach().numpy() for table in tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic", type=parse_size, default="100kx10kx10M", metavar="USERSxITEMSxPAIRS")
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="alternating")
    arguments = parser.parse_args()
    size, rng = arguments.synthetic, np.random.default_rng(0)
    matrix = synthetic(size, 0, arguments.threads)
    P, Q = (rng.standard_normal((n, arguments.rank), np.float32) / 4 for n in (size.users, size.items))
    batches = Part(matrix, matrix, size.items, arguments.batch, 0, False, 0)
    batches.share = arguments.share
    with kernels.load("cpu", arguments.threads) as backend:
        warm = Part(matrix, matrix, size.items, arguments.batch, 0, False, 0)
        warm.share = 2 / len(warm)
        ours(P, Q, warm, backend)  # compiles
        for _ in range(arguments.rounds):
            seconds, loss, held, P1, Q1 = ours(P, Q, batches, backend)
            other, other_loss, P2, Q2 = theirs(P, Q, batches, arguments.threads)
            gap = max(float(np.abs(P1 - P2).max()), float(np.abs(Q1 - Q2).max()))
            print(
                f"recli {seconds:.2f} s, loss {loss:.6f}, {held / 2**20:.0f} MB more (factors "
                f"{(P.nbytes + Q.nbytes) / 2**20:.0f} MB); PyTorch {other:.2f} s, loss {other_loss:.6f}; "
                f"ratio {other / seconds:.2f}; largest difference {gap:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
