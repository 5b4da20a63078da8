"""A small ratings table and its model in the working folder of a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from recli.cli.main import main


@pytest.fixture
def ratings(_clean: None) -> Path:
    """Eight users and five items; nobody has all of them."""
    path = Path("ratings.csv")
    pairs = [(user, item) for user in range(8) for item in range(5) if (user + item) % 3]
    path.write_text("user,item,rating\n" + "".join(f"u{u},i{i},{1 + (u * i) % 5}\n" for u, i in pairs))
    return path


@pytest.fixture
def model(ratings: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """A model of rank 4 of those ratings, which are there too."""
    path = Path("model.npz")
    assert main(["factorize", str(ratings), "--rank", "4", "-q", "-o", str(path)]) == 0
    capfd.readouterr()
    return path
