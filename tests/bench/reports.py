"""A report with a row of every race, as tests of tables, charts and pages want it."""

from __future__ import annotations

from typing import Any

from recli.bench.machine import Machine
from recli.bench.report import document
from recli.config import BenchConfig

MACHINE = Machine("A <fast> CPU & more", 4, 2, 1 << 25, 150.0, 20.0)


def row(race: str, contestant: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "race": race,
        "contestant": contestant,
        "device": "cpu",
        "status": "ok",
        "seconds": seconds,
        "repeats": 3,
        "seconds_min": seconds * 0.9,
        "seconds_max": seconds * 1.2,
        "noise": 0.3,
        "ratio": seconds,
        "peak_rss_bytes": 200_000_000,
        "base_rss_bytes": 80_000_000,
        "memory_ratio": 1.0,
        **more,
    }


def rows() -> list[dict[str, Any]]:
    quality = {"recall@20": 0.2, "ndcg@20": 0.15, "coverage@20": 0.5}
    difference = {"ndcg@20_difference_mean": -0.01, "ndcg@20_difference_low": -0.02, "ndcg@20_difference_high": 0.001}
    ials = {"solver": "ials", "rank": 64}
    return [
        row("train", "recli", 1.0, **ials, **quality, reference=True, iterations=8, roofline=0.3, artifact_bytes=10**6),
        row("train", "implicit", 4.0, **ials, **quality, **difference),
        {
            **ials,
            "race": "train",
            "contestant": "lenskit",
            "device": "cpu",
            "status": "failed: <script>alert(1)</script>",
        },
        row("train", "recli", 0.01, solver="pop", rank=0, **quality, **difference),
        row("objective", "recli", 1.0, **ials, iterations=2, convergence=[[0.5, 900.0], [1.0, 500.0]]),
        row("objective", "implicit", 5.0, **ials, iterations=3, convergence=[[2.0, 800.0], [3.0, 600.0], [5.0, 501.0]]),
        row("topk", "recli", 1.0, **ials, k=20, users_per_second=1000.0),
        row("topk", "faiss", 3.0, **ials, k=20, users_per_second=300.0),
        row("svd", "recli", 1.0, solver="svd", rank=64, residual=1e-4),
        row("svd", "scipy", 3.0, solver="svd", rank=64, residual=1e-9),
        row("index", "recli", 1.0, rows_per_second=1e6),
        row("index", "pandas", 5.0, rows_per_second=2e5),
        *(
            row("scale", "recli", n / 1e6, **ials, size=f"100kx10kx{n}", pairs=n, peak_rss_bytes=10**8 + 30 * n)
            for n in (10**6, 3 * 10**6, 10**7)
        ),
    ]


def report(**more: Any) -> dict[str, Any]:
    data = {
        "source": "table",
        "sha256": ["ab" * 32],
        "split": "random",
        "test_share": 0.2,
        "seed": 0,
        "users": 1200,
        "items": 600,
        "pairs": 25_000,
        "train_pairs": 20_000,
        "test_pairs": 5_000,
        "test_users": 1100,
    }
    scale = {"seconds": 1.0, "seconds_at_the_end": 1.0, "memory": 0.9}
    return document(BenchConfig(), data, MACHINE, rows(), {"scale": scale, **more})
