"""Compiled code is kept in the user's cache folder whatever is imported first, never beside the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["recli.io", "recli.sorting", "recli.kernels.cpu"])
@pytest.mark.parametrize("asked", [True, False])
def test_numba_has_its_folder_whoever_imports_it(module: str, asked: bool, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("NUMBA_CACHE_DIR", None)
    if asked:
        environment["NUMBA_CACHE_DIR"] = str(tmp_path / "mine")
    code = f"import {module}, numba; print(numba.config.CACHE_DIR)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "mine" if asked else tmp_path / "cache" / "recli")


@pytest.mark.parametrize("module", ["recli.ids", "recli.artifacts", "recli.kernels"])
def test_who_sorts_nothing_needs_no_numba(module: str) -> None:
    code = f"import sys, {module}; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
