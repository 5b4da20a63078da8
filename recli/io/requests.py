"""Tables about a model's users and items: whom to score (`--users`), what of (`--allow`, `--deny`, `--deny-pairs`), and
what users went on to do (`--truth`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recli.artifacts import Factors
from recli.config import ReadConfig
from recli.errors import DataError, about
from recli.ids import Csr, Ids, take_rows
from recli.io.alignment import renumbered
from recli.io.background import in_background
from recli.io.columns import find_columns, with_names
from recli.io.id_columns import look_up, positions, to_series
from recli.io.interactions import read_rows
from recli.io.sources import Source, column_types, first_line, scan, table_errors
from recli.metrics import Truth


@dataclass(frozen=True)
class IdList:
    """Users or items in order, each once. ids: in the type of the model's; nums: int64[n], -1 where the model does not
    know one.
    """

    ids: pl.Series
    nums: NDArray[np.int64]

    def part(self, start: int, end: int) -> IdList:
        return IdList(self.ids[start:end], self.nums[start:end])


def everyone(factors: Factors) -> IdList:
    return IdList(to_series(factors.user_ids, "user"), np.arange(len(factors.user_ids)))


def read_ids(found: Source, factors: Factors, role: str, config: ReadConfig) -> IdList:
    """A table with a column of the role, user or item, or a plain list of ids, one a line. Ids that occur again count
    once.
    """
    columns, header = config.columns, config.header
    if found.format == "csv" and role not in columns:
        names = list(column_types(scan(found, header=header), found.name))
        if len(names) == 1:
            header = header and is_heading(first_line(found), role, factors.provenance.columns[role])
            columns = {role: names[0] if header else "column_1"}
    config = dataclasses.replace(config, columns=columns, header=header)
    table = IdTable(found, factors, role, config)
    with table_errors(found.name):
        ids = in_background(lambda: table.lazy.select(table.column).collect(engine="streaming"))
    distinct = ids[table.column].unique(maintain_order=True)
    if not len(distinct):
        raise DataError(f"no {role}s", file=found.name)
    return table.look_up(distinct)


class IdTable:
    """A table with a column of ids of the role, user or item, named as config says, as in the model, or as usual.

    lazy: its rows, the ids of text formats as text; types: its columns.
    """

    def __init__(self, found: Source, factors: Factors, role: str, config: ReadConfig) -> None:
        self._name, self._ids = found.name, factors.user_ids if role == "user" else factors.item_ids
        types = column_types(scan(found, header=config.header), found.name)
        config = with_names(config, {role: factors.provenance.columns[role]}, types)
        self.column = find_columns(list(types), config, found.name, roles=(role,))[0][role]
        self.lazy = scan(found, [self.column], header=config.header, types=types)
        self.types = column_types(self.lazy, found.name)
        if found.format == "csv":
            self.lazy = self.lazy.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines

    def look_up(self, ids: pl.Series) -> IdList:
        return _look_up(ids, self._ids, self.column, self._name)


def is_heading(line: str, role: str, own_name: str) -> bool:
    """Is the line of a one-column file the name of a column of the role, usual or its own, rather than an id?"""
    name = line.strip().strip('"')
    try:
        find_columns([name], ReadConfig(), "", roles=(role,))
    except DataError:
        return name == own_name
    return True


def read_truth(found: Source, factors: Factors, config: ReadConfig) -> tuple[IdList, Truth]:
    """Held-out interactions. Every row counts as relevant, whatever its rating: filter with `where`."""
    users, matrix, sizes = _read_pairs(found, factors, config)
    return users, Truth(matrix, sizes)


def read_denied(found: Source, factors: Factors, users: IdList, config: ReadConfig) -> tuple[Csr, int]:
    """What each of the users must not get: [users, items], and how many of the table's pairs say nothing, since their
    item is not in the model or their user not among these.
    """
    theirs, matrix, sizes = _read_pairs(found, factors, dataclasses.replace(config, where=None))
    denied = take_rows(matrix, positions(users.ids, theirs.ids))
    return denied, int(sizes.sum()) - len(denied.indices)


def _read_pairs(found: Source, factors: Factors, config: ReadConfig) -> tuple[IdList, Csr, NDArray[np.int64]]:
    """The users of a table, their items that the model knows (a row a user, with ones for values), and int64[n], how
    many items they have in all.
    """
    names = column_types(scan(found, header=config.header), found.name)
    config = with_names(config, factors.provenance.columns, names)
    rows, _ = read_rows(found, config, ids_only=True, where_flag="--truth-where")
    user_ids, item_ids = to_series(rows.user_ids, "user"), to_series(rows.item_ids, "item")
    users = _look_up(user_ids, factors.user_ids, config.columns.get("user", "user"), found.name)
    known = _look_up(item_ids, factors.item_ids, config.columns.get("item", "item"), found.name)
    every = rows.pairs().merged(None, "first")
    matrix = renumbered(every, np.arange(len(user_ids)), known.nums, len(user_ids), len(factors.item_ids))
    return users, matrix, np.diff(every.indptr)


def _look_up(column: pl.Series, ids: Ids, what: str, name: str) -> IdList:
    with about(name):
        return IdList(*look_up(column, ids, what))
