"""Files in, files out: all that knows a path, a format or a pipe. Formats go by suffix or first bytes."""

from recli.io.atomic import STDOUT, Output, json_output, output
from recli.io.foreign import read_model, with_seen
from recli.io.id_columns import positions
from recli.io.interactions import ReadReport, read_interactions
from recli.io.npz import read_artifact, write_npz
from recli.io.requests import Users, everyone, read_truth, read_users
from recli.io.scores import ScoreTable, write_scores
from recli.io.sources import Source, source
from recli.io.vectors import VectorsReport, vectors_folder

__all__ = [
    "STDOUT",
    "Output",
    "ReadReport",
    "ScoreTable",
    "Source",
    "Users",
    "VectorsReport",
    "everyone",
    "json_output",
    "output",
    "positions",
    "read_artifact",
    "read_interactions",
    "read_model",
    "read_truth",
    "read_users",
    "source",
    "vectors_folder",
    "with_seen",
    "write_npz",
    "write_scores",
]
