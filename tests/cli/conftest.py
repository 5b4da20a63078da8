"""Small data for the command line: a ratings table, a model of it, and a look at everything in the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recli.cli.main import main

# a has three of the five items, d has all of them
PAIRS = ["a1", "a2", "a3", "b2", "b3", "b4", "c1", "c5", "d1", "d2", "d3", "d4", "d5", "e4", "e5"]
RATINGS = "user,item,rating\n" + "".join(f"{pair[0]},{pair[1]},{at % 5 + 1}\n" for at, pair in enumerate(PAIRS))


@pytest.fixture
def ratings() -> Path:
    """ratings.csv in the working folder."""
    Path("ratings.csv").write_text(RATINGS)
    return Path("ratings.csv")


@pytest.fixture
def model(ratings: Path) -> Path:
    """model.npz in the working folder: of users a to e and items 1 to 5."""
    assert main(["factorize", str(ratings), "--rank", "3", "-q", "-o", "model.npz"]) == 0
    return Path("model.npz")


@pytest.fixture
def folder() -> Callable[[], dict[str, bytes]]:
    """Name -> content of every file below the working folder, hidden ones (temporary files, locks) included."""

    def look() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}

    return look
