"""Checkpoints of a training run: an NPZ file beside the output, which only the run that would write it again takes up.

The key is what decides every bit of the result: settings, sha256 of the inputs, recli's version.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from recli.artifacts import Provenance
from recli.checks import Arrays
from recli.errors import DataError
from recli.io.atomic import Output, output
from recli.io.npz import read_npz, write_npz

ENDING = ".checkpoint"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """state: named arrays, whatever the solver needs to go on."""

    kind: ClassVar[str] = "checkpoint"
    version: ClassVar[int] = 1

    state: Arrays
    provenance: Provenance = field(default_factory=Provenance)

    def arrays(self) -> Arrays:
        return self.state

    @classmethod
    def from_arrays(cls, arrays: Arrays, provenance: Provenance) -> Checkpoint:
        return cls(state=arrays, provenance=provenance)


class Checkpoints:
    """The checkpoint file of one run. key: settings and hashes, comparable as JSON."""

    def __init__(self, out: Output, key: dict[str, Any]) -> None:
        self._out, self._key = out, key

    def save(self, state: Arrays) -> None:
        checkpoint = Checkpoint(state=state, provenance=Provenance(config=self._key))
        self._out.write(lambda file: write_npz(checkpoint, file))

    def load(self) -> tuple[Arrays | None, str | None]:
        """The state to go on from, or None; and why a checkpoint that is there is of no use."""
        path = self._out.path
        if not os.path.exists(path):
            return None, None
        try:
            with open(path, "rb") as file:
                found = read_npz(file, Checkpoint, path)
        except DataError as error:
            return None, str(error)
        if found.provenance.config != self._key:
            differing = sorted(name for name in self._key if found.provenance.config.get(name) != self._key[name])
            return None, f"{path}: of another run ({', '.join(differing)} differ)"
        return found.state, None


@contextlib.contextmanager
def checkpoints(path: str, key: dict[str, Any]) -> Iterator[Checkpoints]:
    """The checkpoints of the run that writes `path`, held for one writer."""
    with output(path + ENDING) as out:
        yield Checkpoints(out, key)


def remove_checkpoint(path: str) -> None:
    """What the finished run that wrote `path` needs no more."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + ENDING)
