"""Who can enter which race: one file a contestant, one function a race.

A race's function prepares, off the clock, what it is given as arrays, and returns the work: work(clock, **arguments)
does it once inside `with clock:` and returns what there is to say of it, JSON only. Imports here stay light: the bench
itself never imports a contestant.
"""

from __future__ import annotations

from typing import NamedTuple

RACES = ("index", "train", "objective", "svd", "topk")


class Contestant(NamedTuple):
    """package: what it imports; extra: of recli's, that brings it."""

    package: str
    extra: str
    races: tuple[str, ...]


CONTESTANTS = {
    "recli": Contestant("recli", "", RACES),
    "implicit": Contestant("implicit", "bench", ("train", "objective", "topk")),
    "faiss": Contestant("faiss", "bench", ("topk",)),
    "scipy": Contestant("scipy", "bench", ("svd",)),
    "sklearn": Contestant("sklearn", "bench", ("svd",)),
    "lenskit": Contestant("lenskit", "lenskit", ("index", "train")),
    "pandas": Contestant("pandas", "bench", ("index",)),
    "product": Contestant("numpy", "bench", ("topk",)),  # no library: the matrix product that a top-K cannot avoid
}
PEERS = tuple(CONTESTANTS)[1:]
