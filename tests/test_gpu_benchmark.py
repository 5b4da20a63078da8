"""benchmarks/gpu.py runs, on the fake CuPy: what is measured there is nothing, that all stages end is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
STAGES = {"ceilings", "iteration", "top-k", "svd", "adam", "end to end"}


def test_every_stage_ends_and_lists_are_the_cpus(tmp_path: Path) -> None:
    report = benchmark(tmp_path, "-k", "5", "--repeats", "1")
    assert report["device"].startswith("none")
    assert {stage["status"] for stage in report["stages"]} == {"ok"}
    rows = {(row["stage"], row["contestant"]): row for row in report["rows"]}
    assert {stage for stage, _ in rows} == STAGES
    for (stage, contestant), row in rows.items():
        if contestant.startswith("recli") and stage != "end to end":  # whose processes find no GPU
            assert row["seconds"] > 0, row
    checked = rows["top-k", "recli"]
    assert (checked["checked_users"], checked["differ_from_cpu"]) == (60, 0)
    assert "ModuleNotFoundError" in rows["iteration", "CuPy calls"]["status"]
    same = next(target for target in report["targets"] if "CPU" in target["target"])
    assert same["ratio"] == 1


def test_stages_for_which_no_time_is_left_are_skipped(tmp_path: Path) -> None:
    report = benchmark(tmp_path, "--budget", "0")
    assert {stage["status"] for stage in report["stages"]} == {"skipped: out of time"}
    assert report["rows"] == []


def benchmark(folder: Path, *arguments: str) -> dict[str, Any]:
    paths = [ROOT, ROOT / "tests" / "kernels" / "shim"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--synthetic", "60x40x300", "--rank", "8"]
    more = ["--threads", "2", "--json", "gpu.json", *arguments]
    done = subprocess.run(
        [*command, *more], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((folder / "gpu.json").read_text())
    return report
