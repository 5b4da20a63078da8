"""Files in, files out: all that knows a path, a format or a pipe. Formats go by suffix or first bytes."""

from recli.io.alignment import check_new, continue_ids, continued, held_out, renumbered
from recli.io.atomic import STDOUT, Output, json_output, output, write_json
from recli.io.attributes import Aligned, AttributeTable, align, read_attributes, rows_at
from recli.io.checkpoints import Checkpoints, checkpoints, remove_checkpoint
from recli.io.columns import column_names
from recli.io.embeddings import read_embeddings, table_file
from recli.io.events import Events, Rules, read_events
from recli.io.feature_folder import FEATURE_FILES, as_features, pairs_table, read_feature_folder, write_features
from recli.io.folders import Fill, Folder, folder
from recli.io.foreign import read_model, with_seen
from recli.io.history import History, read_history
from recli.io.id_columns import IdColumn, id_order, positions, to_series
from recli.io.interactions import ROW_BYTES, ReadReport, least_bytes, read_interactions
from recli.io.items import Items, read_items
from recli.io.lexicon import read_lexicon
from recli.io.matrices import is_matrix, read_matrix
from recli.io.moments import NEVER, parse_duration, parse_moment
from recli.io.npz import fingerprint, read_artifact, write_npz
from recli.io.pairs import PairTable, Ratings
from recli.io.parts import PartFolder, footer, hash_inputs
from recli.io.published import Published, written
from recli.io.requests import IdList, everyone, read_denied, read_ids, read_truth
from recli.io.scores import ScoreTable, write_scores
from recli.io.similar import SimilarTable
from recli.io.sources import Source, is_pipe, source
from recli.io.tables import write_pairs, write_rows
from recli.io.vectors import VectorsReport, vectors_folder

__all__ = [
    "FEATURE_FILES",
    "NEVER",
    "ROW_BYTES",
    "STDOUT",
    "Aligned",
    "AttributeTable",
    "Checkpoints",
    "Events",
    "Fill",
    "Folder",
    "History",
    "IdColumn",
    "IdList",
    "Items",
    "Output",
    "PairTable",
    "PartFolder",
    "Published",
    "Ratings",
    "ReadReport",
    "Rules",
    "ScoreTable",
    "SimilarTable",
    "Source",
    "VectorsReport",
    "align",
    "as_features",
    "check_new",
    "checkpoints",
    "column_names",
    "continue_ids",
    "continued",
    "everyone",
    "fingerprint",
    "folder",
    "footer",
    "hash_inputs",
    "held_out",
    "id_order",
    "is_matrix",
    "is_pipe",
    "json_output",
    "least_bytes",
    "output",
    "pairs_table",
    "parse_duration",
    "parse_moment",
    "positions",
    "read_artifact",
    "read_attributes",
    "read_denied",
    "read_embeddings",
    "read_events",
    "read_feature_folder",
    "read_history",
    "read_ids",
    "read_interactions",
    "read_items",
    "read_lexicon",
    "read_matrix",
    "read_model",
    "read_truth",
    "remove_checkpoint",
    "renumbered",
    "rows_at",
    "source",
    "table_file",
    "to_series",
    "vectors_folder",
    "with_seen",
    "write_features",
    "write_json",
    "write_npz",
    "write_pairs",
    "write_rows",
    "write_scores",
    "written",
]
