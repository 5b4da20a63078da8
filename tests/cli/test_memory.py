"""--memory-limit holds for the process, and what cannot fit is refused before the work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

ROWS = 1_500_000


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = np.random.default_rng(0).choice(20_000 * 3_000, ROWS, replace=False)
    path = tmp_path_factory.mktemp("memory") / "ratings.parquet"
    pl.DataFrame({"user": pairs // 3_000, "item": pairs % 3_000}).write_parquet(path)
    return path


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the program as a process."""
    command = [sys.executable, "-m", "recli", "factorize", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/proc for what a process holds")
@pytest.mark.parametrize("solver", ["ials", "als", "svd"])
def test_the_plan_bounds_the_process_and_its_advice_is_enough(solver: str, table: Path) -> None:
    job = (table, "--solver", solver, "--rank", 48, "--threads", 2, "-o", "m.npz", "--json")
    code, out, err = run(*job, "--dry-run")
    assert code == 0, err
    plan: dict[str, Any] = json.loads(out)["plan"]
    assert plan["output_bytes"] > 4 * 48 * 23_000
    code, _, err = run(*job, "--memory-limit", plan["bytes"] - (60 << 20))
    assert code == 75
    advice = re.fullmatch(
        r"recli: error: rank 48 needs about .*--memory-limit ([0-9.]+G) .*\n", err.splitlines(True)[-1]
    )
    assert advice, err
    assert not Path("m.npz").exists()
    code, out, err = run(*job, "--memory-limit", advice[1])
    assert code == 0, err
    # the process's own count: getrusage's maximum begins with that of the process which started this one
    assert json.loads(out)["peak_rss_bytes"] < float(advice[1][:-1]) * 2**30


def test_a_table_that_is_plainly_too_large_is_not_read(table: Path) -> None:
    code, _, err = run(table, "--memory-limit", "150M", "-o", "m.npz")
    assert code == 75
    assert re.fullmatch(
        rf"recli: error: reading {table} needs about [0-9]+ MB, --memory-limit is 150M: give --memory-limit 0.4G .*\n",
        err,
    )
