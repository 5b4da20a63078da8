"""Exit codes are as documented, and an error is one line."""

from __future__ import annotations

import re

import pytest

from recli import errors
from recli.errors import DataError, RecliError


def test_the_documented_tree_is_the_tree() -> None:
    """Scripts act on these numbers: a class that is new, gone or renumbered must show in the module's first lines."""
    documented = {
        name: int(code) for name, code in re.findall(r"^\+-- (\w+) +(\d+)   \S", errors.__doc__ or "", re.MULTILINE)
    }
    classes = {kind.__name__: kind.exit_code for kind in RecliError.__subclasses__()}
    assert documented == classes
    assert len(set(classes.values())) == len(classes)
    assert not {0, 1, 130, 141, 143} & set(classes.values())  # success, a bug, signals
    assert RecliError.exit_code == 1


@pytest.mark.parametrize(
    ("what", "file", "line"),
    [
        ("no rows", "a.csv", "a.csv: no rows"),
        ("no rows", None, "no rows"),
        ("first\n  second\tthird ", "a.csv", "a.csv: first second third"),
    ],
)
def test_an_error_is_one_line_with_its_file(what: str, file: str | None, line: str) -> None:
    assert str(DataError(what, file=file)) == line
