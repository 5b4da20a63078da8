"""A model to recommendations."""

from recli.score.topk import block_users, recommend

__all__ = ["block_users", "recommend"]
