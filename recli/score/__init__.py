"""A model to recommendations."""

from recli.score.audience import Audience, Folded
from recli.score.catalogue import Cap, Catalogue
from recli.score.pairs import block_pairs, predict
from recli.score.similar import block_similar, similar
from recli.score.topk import block_users, recommend

__all__ = [
    "Audience",
    "Cap",
    "Catalogue",
    "Folded",
    "block_pairs",
    "block_similar",
    "block_users",
    "predict",
    "recommend",
    "similar",
]
