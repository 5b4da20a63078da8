"""--device gpu as the shell sees it: what is missing in one line, and the GPU backend, on the shim, under commands."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recli import kernels
from recli.kernels.device import gpu_problem
from tests.kernels.shim.driver import driver_folder, shim_environment

Process = Callable[..., "subprocess.CompletedProcess[bytes]"]
HAS_DRIVER = not gpu_problem().startswith("no NVIDIA driver")
HAS_CUPY = "cupy" in importlib.metadata.packages_distributions()
TRAIN = ("factorize", "ratings.csv", "--rank", "4", "--iterations", "2")


def refused(process: Process, *arguments: object, **more: object) -> str:
    """The one line on stderr of a command that exits with 69 and writes nothing."""
    before = sorted(os.listdir())
    done = process(*arguments, **more)
    assert done.returncode == 69, done.stderr
    assert done.stdout == b""
    assert sorted(os.listdir()) == before
    [line] = done.stderr.decode().splitlines()
    return line


@pytest.mark.skipif(HAS_DRIVER, reason="there is a driver")
def test_without_a_driver_a_gpu_is_refused_in_one_line(process: Process, ratings: Path) -> None:
    assert refused(process, *TRAIN, "--device", "gpu") == (
        "recli: error: --device gpu: no NVIDIA driver: libcuda.so.1 not found; use --device cpu"
    )


@pytest.mark.skipif(HAS_CUPY, reason="CuPy is installed")
@pytest.mark.parametrize(("version", "extra", "cuda"), [(12080, "gpu", "12.8"), (13020, "gpu13", "13.2")])
def test_without_cupy_the_line_says_what_to_install(
    process: Process, ratings: Path, tmp_path: Path, version: int, extra: str, cuda: str
) -> None:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver_folder(tmp_path, version=version))}
    problem = f"CuPy is not installed (pip install 'recli[{extra}]'; the NVIDIA driver knows CUDA {cuda})"
    line = refused(process, *TRAIN, "--device", "gpu", env=environment)
    assert line == f"recli: error: --device gpu: {problem}; use --device cpu"
    done = process(*TRAIN, "--threads", "2", env=environment)
    assert done.returncode == 0
    assert f"device cpu ({problem}), 2 threads" in done.stderr.decode()


def test_a_gpu_that_is_too_old_or_not_there_is_named(process: Process, ratings: Path, tmp_path: Path) -> None:
    old = shim_environment(driver_folder(tmp_path, capability=61, name="NVIDIA GeForce GTX 1080"))
    assert "NVIDIA GeForce GTX 1080 is too old: compute capability 6.1" in refused(
        process, *TRAIN, "--device", "gpu", env=old
    )
    assert "there is no GPU 1: the driver sees 1" in refused(process, *TRAIN, "--device", "gpu:1", env=old)


@pytest.mark.parametrize(
    "line",
    [
        "factorize ratings.csv --rank 4",
        "featurize ratings.csv",
        "score model.npz -k 2",
        "score model.npz --pairs ratings.csv",
        "score model.npz --similar all -k 2",
        "finetune model.npz new.csv --adapter rows",
    ],
)
def test_the_memory_limit_reaches_the_device(
    recli: Callable[..., Any], model: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    limits, load = [], kernels.load

    def noted(device: str, threads: int, memory_limit: int | None = None) -> Any:
        limits.append(memory_limit)
        return load(device, threads)

    monkeypatch.setattr(kernels, "load", noted)
    Path("new.csv").write_text("user,item,rating\nu0,i0,3\nu1,i2,4\nu9,i1,5\n")
    for limit in ([], ["--memory-limit", "20G"]):
        got = recli(*line.split(), "--device", "cpu", *limit)
        assert got.code == 0, got.err
    assert limits == [None, 20 << 30]


class TestOnTheShim:
    """Whole commands on a GPU that is none."""

    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        return shim_environment(driver_folder(tmp_path))

    def test_auto_takes_the_gpu_and_says_so(self, process: Process, ratings: Path, environment: dict[str, str]) -> None:
        done = process(*TRAIN, "--threads", "2", "--stats", "stats.json", env=environment)
        assert done.returncode == 0, done.stderr
        assert "device gpu (Shim, 4 GiB), 2 threads" in done.stderr.decode()
        assert json.loads(Path("stats.json").read_text())["device"] == "gpu"

    def test_a_model_is_the_same_as_the_cpus_but_for_rounding(
        self, process: Process, sample: Path, environment: dict[str, str]
    ) -> None:
        models = {}
        for device in ("cpu", "gpu"):
            train = ("factorize", sample / "ratings.parquet", "--rank", "8", "--iterations", "2")
            done = process(*train, "--device", device, "-o", f"{device}.npz", env=environment)
            assert done.returncode == 0, done.stderr
            with np.load(f"{device}.npz", allow_pickle=False) as found:
                models[device] = found["P"] @ found["Q"].T
        np.testing.assert_allclose(models["gpu"], models["cpu"], rtol=0, atol=1e-4 * np.abs(models["cpu"]).max())

    def test_too_little_memory_is_said(self, process: Process, sample: Path, environment: dict[str, str]) -> None:
        train = ("factorize", sample / "ratings.parquet", "--rank", "64", "--iterations", "1", "--device", "gpu")
        small = {**environment, "RECLI_SHIM_MEMORY": str(65 << 20)}
        done = process(*train, env=small)
        assert done.returncode == 75, done.stderr
        [line] = [line for line in done.stderr.decode().splitlines() if line.startswith("recli: error: ")]
        assert "the GPU's memory" in line

    @pytest.mark.parametrize("solver", ["als", "svd"])
    def test_other_solvers_agree_too(
        self,
        recli: Callable[..., Any],
        process: Process,
        sample: Path,
        environment: dict[str, str],
        solver: str,
    ) -> None:
        """Enough iterations for svd to settle on its directions; biases of als among its factors."""
        models = {}
        for device in ("cpu", "gpu"):
            train = ("factorize", sample / "ratings.parquet", "--rank", "5", "--solver", solver)
            few = ("--iterations", "2") if solver == "als" else ()
            run(recli, process, environment, *train, *few, "--device", device, "-o", f"{device}.npz")
            with np.load(f"{device}.npz", allow_pickle=False) as found:
                models[device] = found["P"] @ found["Q"].T + found["b_u"][:, None] + found["b_v"]
        np.testing.assert_allclose(models["gpu"], models["cpu"], rtol=0, atol=2e-3 * np.abs(models["cpu"]).max())

    @pytest.mark.parametrize(
        "how",
        [
            "-k 20 --users ids.csv",
            "-k 7 --users ids.csv --keep-seen --allow some.csv",
            "-k 5 --similar all",
            "--pairs pairs.csv",
            "-k 9 --history history.csv --users strangers.csv",
        ],
    )
    def test_lists_are_the_cpus_to_the_bit(
        self, recli: Callable[..., Any], process: Process, sample: Path, environment: dict[str, str], how: str
    ) -> None:
        """Whose rows of new users are, too, but for rounding: their lists and, to five digits, their scores."""
        ratings = pl.read_parquet(sample / "ratings.parquet")
        users = ratings["user_id"].unique().sort()
        ratings.select("user_id").unique(maintain_order=True).head(60).write_csv("ids.csv")
        ratings.select("item_id").unique(maintain_order=True).head(50).write_csv("some.csv")
        ratings.select("user_id", "item_id").head(400).write_csv("pairs.csv")
        history = ratings.filter(pl.col("user_id").is_in(users[:9])).with_columns(pl.lit("new-") + pl.col("user_id"))
        history.select(pl.col("literal").alias("user_id"), "item_id", "rating").write_csv("history.csv")
        history.select(pl.col("literal").alias("user_id")).unique(maintain_order=True).write_csv("strangers.csv")
        assert not recli("factorize", sample / "ratings.parquet", "--rank", "12", "--device", "cpu", "-o", "m.npz").code
        for device in ("cpu", "gpu"):
            line = ("score", "m.npz", *how.split(), "--device", device, "-o", f"{device}.csv")
            run(recli, process, environment, *line)
        cpu, gpu = (pl.read_csv(f"{device}.csv") for device in ("cpu", "gpu"))
        assert len(cpu) > 40
        if "history" in how:
            np.testing.assert_allclose(gpu["score"], cpu["score"], rtol=1e-4, atol=1e-5)
            cpu, gpu = cpu.drop("score"), gpu.drop("score")
        assert_frame_equal(gpu, cpu, check_exact=True)

    @pytest.mark.parametrize(
        "how", ["bias", "rows", "lora", "rows --fit gradient --optimizer adagrad --epochs 1", "bilinear --epochs 1"]
    )
    def test_a_delta_is_the_cpus_but_for_rounding(
        self, recli: Callable[..., Any], process: Process, sample: Path, environment: dict[str, str], how: str
    ) -> None:
        ratings = pl.read_parquet(sample / "ratings.parquet")
        ratings.head(24_000).write_csv("old.csv")
        ratings.tail(900).write_csv("new.csv")
        assert not recli("factorize", "old.csv", "--rank", "6", "--device", "cpu", "-o", "m.npz").code
        models = {}
        for device in ("cpu", "gpu"):
            tune = ("finetune", "m.npz", "new.csv", "--adapter", *how.split(), "--device", device)
            run(recli, process, environment, *tune, "-o", f"{device}.npz")
            merge = ("finetune", "m.npz", "--adapter-file", f"{device}.npz", "--merge", "-o", f"{device}-whole.npz")
            assert not recli(*merge, "--device", "cpu").code
            with np.load(f"{device}-whole.npz", allow_pickle=False) as found:
                models[device] = found["P"] @ found["Q"].T + found["b_u"][:, None] + found["b_v"]
        np.testing.assert_allclose(models["gpu"], models["cpu"], rtol=0, atol=2e-3 * np.abs(models["cpu"]).max())

    def test_a_bench_has_rows_of_both_and_a_roofline_of_what_it_measured(
        self, process: Process, environment: dict[str, str]
    ) -> None:
        """The machine's ceilings are those of its CPUs."""
        made = ("--synthetic", "60x40x300", "--rank", "8", "--races", "train,topk", "--repeats", "1", "--peers", "none")
        done = process("bench", *made, "--device", "cpu,gpu", "-o", "bench.json", env=environment)
        assert done.returncode == 0, done.stderr
        rows = json.loads(Path("bench.json").read_text())["rows"]
        assert [(row["race"], row["device"], row["status"]) for row in rows] == [
            (race, device, "ok") for race in ("train", "topk") for device in ("cpu", "gpu")
        ]
        assert ["roofline" in row for row in rows] == [True, False, True, False]
        assert rows[1]["recall@20"] == pytest.approx(rows[0]["recall@20"], abs=0.02)


def run(recli: Callable[..., Any], process: Process, environment: dict[str, str], *line: object) -> None:
    """On the GPU in a process of its own, which finds it, and on the CPU in this one, which is quicker."""
    if "gpu" in line:
        done = process(*line, env=environment)
        assert done.returncode == 0, done.stderr
    else:
        assert not recli(*line).code
