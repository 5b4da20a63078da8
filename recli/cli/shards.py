"""The users of a run, cut into parts: --shard 3/8 and --parts 8."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recli import __version__
from recli.errors import UsageError

MOST = 99_999  # five digits in a part's name, so that names sort as numbers do
# Flags that leave the rows as they are. All others belong to a part's key, whatever they do.
NEUTRAL = (
    *("output", "shard", "parts", "index", "expect", "previous", "output_format", "device", "threads", "memory_limit"),
    *("no_clobber", "dry_run", "json_", "stats", "log_format", "quiet", "verbose", "debug"),
)


class Shard(NamedTuple):
    """The number-th part of `total`, from 1."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        match = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text, re.ASCII)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard {text}: expected i/n with i from 1 to n and n at most {MOST}, as 3/8")
        return cls(int(match[1]), int(match[2]))

    def bounds(self, users: int) -> tuple[int, int]:
        """The positions of its users, from one to before the other: parts differ by one user at most, and follow each
        other.
        """
        return users * (self.number - 1) // self.total, users * self.number // self.total

    @property
    def name(self) -> str:
        return f"part-{self.number:05}-of-{self.total:05}"

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


def shards(parts: int) -> list[Shard]:
    """All of them, in order. Raises UsageError."""
    if not 1 <= parts <= MOST:
        raise UsageError(f"--parts {parts}: expected a value from 1 to {MOST}")
    return [Shard(number, parts) for number in range(1, parts + 1)]


def run_key(flags: Mapping[str, Any], inputs: Mapping[str, Sequence[str]], device: str) -> dict[str, Any]:
    """What decides every row of a run, comparable as JSON. inputs: flag -> sha256 of its files; their names do not
    matter.
    """
    settings = {name: value for name, value in flags.items() if name not in NEUTRAL and name not in inputs}
    hashes = {name: list(found) for name, found in inputs.items()}
    return {"recli": __version__, "device": device, **hashes, **settings}
