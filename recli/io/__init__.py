"""Files in, files out: all that knows a path, a format or a pipe. Formats go by suffix or first bytes."""

from recli.io.alignment import continue_ids, held_out
from recli.io.atomic import STDOUT, Output, json_output, output, write_json
from recli.io.checkpoints import Checkpoints, checkpoints, remove_checkpoint
from recli.io.foreign import read_model, with_seen
from recli.io.history import History, read_history
from recli.io.id_columns import id_order, positions, to_series
from recli.io.interactions import ReadReport, least_bytes, read_interactions
from recli.io.items import Items, read_items
from recli.io.matrices import is_matrix, read_matrix
from recli.io.npz import fingerprint, read_artifact, write_npz
from recli.io.pairs import PairTable, Ratings
from recli.io.parts import PartFolder, footer, hash_inputs
from recli.io.published import Published, written
from recli.io.requests import IdList, everyone, read_denied, read_ids, read_truth
from recli.io.scores import ScoreTable, write_scores
from recli.io.similar import SimilarTable
from recli.io.sources import Source, is_pipe, source
from recli.io.tables import write_pairs, write_rows
from recli.io.times import read_times
from recli.io.vectors import VectorsReport, vectors_folder

__all__ = [
    "STDOUT",
    "Checkpoints",
    "History",
    "IdList",
    "Items",
    "Output",
    "PairTable",
    "PartFolder",
    "Published",
    "Ratings",
    "ReadReport",
    "ScoreTable",
    "SimilarTable",
    "Source",
    "VectorsReport",
    "checkpoints",
    "continue_ids",
    "everyone",
    "fingerprint",
    "footer",
    "hash_inputs",
    "held_out",
    "id_order",
    "is_matrix",
    "is_pipe",
    "json_output",
    "least_bytes",
    "output",
    "positions",
    "read_artifact",
    "read_denied",
    "read_history",
    "read_ids",
    "read_interactions",
    "read_items",
    "read_matrix",
    "read_model",
    "read_times",
    "read_truth",
    "remove_checkpoint",
    "source",
    "to_series",
    "vectors_folder",
    "with_seen",
    "write_json",
    "write_npz",
    "write_pairs",
    "write_rows",
    "write_scores",
    "written",
]
