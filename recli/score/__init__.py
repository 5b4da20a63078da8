"""A model to recommendations."""

from recli.score.audience import Audience
from recli.score.catalogue import Cap, Catalogue
from recli.score.explain import Explainer
from recli.score.fold_in import fold_in
from recli.score.pairs import block_pairs, predict
from recli.score.prepared import Prepared, prepare
from recli.score.row_problem import RowProblem
from recli.score.similar import block_similar, similar
from recli.score.topk import Recommender, block_users, recommend

__all__ = [
    "Audience",
    "Cap",
    "Catalogue",
    "Explainer",
    "Prepared",
    "Recommender",
    "RowProblem",
    "block_pairs",
    "block_similar",
    "block_users",
    "fold_in",
    "predict",
    "prepare",
    "recommend",
    "similar",
]
