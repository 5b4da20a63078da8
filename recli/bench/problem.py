"""What the bench hands to the processes of contestants, and gets back: arrays in a folder, one .npy file each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recli.ids import Csr

Array = NDArray[Any]


def save(folder: Path, arrays: Mapping[str, Array]) -> None:
    """Each array as NAME.npy, in place of older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def load(folder: Path, *names: str) -> dict[str, Array]:
    """The arrays of these names, or all of the folder's."""
    paths = [folder / f"{name}.npy" for name in names] if names else sorted(folder.glob("*.npy"))
    return {path.stem: np.load(path, allow_pickle=False) for path in paths}


def save_csr(folder: Path, matrix: Csr) -> None:
    save(folder, {"indptr": matrix.indptr, "indices": matrix.indices, "values": matrix.values})


def load_csr(folder: Path) -> Csr:
    found = load(folder, "indptr", "indices", "values")
    return Csr(found["indptr"], found["indices"], found["values"])


@dataclass(frozen=True)
class Problem:
    """One contestant's task in one race. folder: of the data; out: where its results go; threads: that it may use;
    settings: what else the race sets, JSON only; memory_limit: bytes, of the device's memory, too.
    """

    folder: Path
    out: Path
    threads: int
    settings: Mapping[str, Any]
    memory_limit: int | None = None

    def __getitem__(self, name: str) -> Any:
        return self.settings[name]

    def csr(self, name: str) -> Csr:
        return load_csr(self.folder / name)

    def arrays(self, name: str, *names: str) -> dict[str, Array]:
        return load(self.folder / name, *names)

    def deliver(self, arrays: Mapping[str, Array]) -> None:
        """Results for the bench to look at."""
        save(self.out, arrays)
