"""The popularity baseline recommends what most users have."""

from __future__ import annotations

import numpy as np

from recli.artifacts import MODEL
from recli.config import FactorizeConfig, ScoreConfig
from recli.factorize import factorize
from recli.kernels import load
from recli.score import Audience, Catalogue, recommend
from tests.factorize.data import interactions


def test_lists_are_the_most_popular_items_that_a_user_has_not() -> None:
    nan = np.nan
    dense = np.array([[5, nan, nan, 1], [nan, nan, 2, 1], [nan, nan, -9, 1], [nan, nan, nan, nan]])
    with load("reference", 1) as kernels:
        factors, fit = factorize(interactions(dense), FactorizeConfig(solver="pop"), kernels)
        (block,) = recommend(factors, Audience(np.arange(4)), Catalogue(), ScoreConfig(k=4), kernels)
    assert factors.P.shape[1] == factors.Q.shape[1] == 0
    assert fit.objectives == []
    assert block.items.tolist() == [[2, 1, -1, -1], [0, 1, -1, -1], [0, 1, -1, -1], [3, 2, 0, 1]]
    assert block.scores[3].tolist() == [3, 2, 1, 0]  # numbers of users, whatever they rated
    assert (block.reasons == MODEL).all()
