"""Ratings tables to `Interactions`: columns found, rows filtered and checked, ids numbered, pairs indexed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from recli.artifacts import Interactions, Provenance
from recli.config import ReadConfig
from recli.errors import DataError, UsageError
from recli.io.background import in_background
from recli.io.conditions import condition
from recli.io.id_columns import id_expression, is_id_type
from recli.io.npz import read_artifact
from recli.io.rows import PIECE, Rows, collect, put_in_order
from recli.io.sources import Source, batches, column_types, scan, table_errors

USUAL_NAMES = {
    "user": "user userid uid usernum useridx customer customerid visitor visitorid member memberid reviewerid account "
    "accountid profileid session sessionid",
    "item": "item itemid iid itemnum movie movieid product productid article articleid asin sku isbn book bookid "
    "track trackid song songid artist artistid video videoid business businessid recipe recipeid news newsid listing "
    "listingid content contentid",
    "rating": "rating ratings score stars overall value count plays quantity",
    "timestamp": "timestamp time ts datetime date unixtime unixreviewtime createdat eventtime",
}
ROLES = tuple(USUAL_NAMES)
ROW_BYTES = 20  # numbers of user and item and a value; then items and positions in the order of users


@dataclass
class ReadReport:
    """What happened on the way, for the log and --stats."""

    rows: int = 0
    repeated: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    guessed: list[str] = field(default_factory=list)
    users: int = 0
    items: int = 0
    pairs: int = 0


def find_columns(
    names: Sequence[str], config: ReadConfig, name: str, roles: Sequence[str] = ROLES
) -> tuple[dict[str, str], list[str]]:
    """Role -> column for the roles that are there, and which of them were guessed. user and item must be, if asked for.

    A name is guessed in any case and spelling of the usual ones: userId, USER_ID and "user id" are one.
    """
    found: dict[str, str] = {}
    guessed = []
    plain = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in reversed(names)}
    for role in roles:
        if role in config.columns:
            column = config.columns[role]
            if not column and role in ("user", "item"):
                raise UsageError(f"--columns {role}=: expected a name, since every row needs one")
            if not column:
                continue  # rating= : leave it out
            if column not in names:
                raise DataError(f"no column {column!r} for {role} (--columns); found {', '.join(names)}", file=name)
            found[role] = column
            continue
        usual = next((plain[candidate] for candidate in USUAL_NAMES[role].split() if candidate in plain), None)
        if usual is not None:
            found[role] = usual
            guessed.append(role)
        elif role in ("user", "item"):
            raise DataError(
                f"no column looks like the {role}; found {', '.join(names)}: name it with --columns {role}=NAME",
                file=name,
            )
    if "user" in found and found["user"] == found.get("item"):
        raise DataError(f"expected two columns, found user and item both in {found['user']!r} (--columns)", file=name)
    return found, guessed


def with_names(config: ReadConfig, theirs: Mapping[str, str], names: Collection[str]) -> ReadConfig:
    """config with other data's column names, role -> name, for roles that it leaves open, where a table has them."""
    there = {role: name for role, name in theirs.items() if name in names}
    return dataclasses.replace(config, columns={**there, **config.columns})


def read_interactions(
    found: Source, config: ReadConfig, *, where_flag: str = "--where"
) -> tuple[Interactions, ReadReport]:
    """Reads and indexes a ratings table, or reads interactions that are indexed already (NPZ; config does not apply to
    them).

    Ids are numbered in ascending order. Values are the weight column's, else the rating's, else 1.0. Raises DataError
    (65), MissingInputError (66), UsageError (2: --where).
    """
    if found.format == "npz":
        interactions = read_artifact(found, Interactions)
        users, items = len(interactions.user_ids), len(interactions.item_ids)
        count = len(interactions.matrix.indices)
        if not count:
            raise DataError("no interactions", file=found.name)
        return interactions, ReadReport(rows=count, users=users, items=items, pairs=count)
    rows, report = read_rows(found, config, where_flag=where_flag)
    roles, pairs = report.columns, rows.pairs()
    report.repeated = pairs.repeated
    if pairs.repeated and config.duplicates == "error":
        raise DataError(
            f"{report.repeated} rows repeat a user and item: choose with --duplicates what they mean", file=found.name
        )
    if pairs.repeated and rows.times:
        with table_errors(found.name):
            put_in_order(pairs, rows.times, roles["timestamp"], found.name)
    matrix = pairs.merged(rows.values, config.duplicates)
    if not np.isfinite(matrix.values).all():
        raise DataError("sums of repeated rows overflow float32", file=found.name)
    report.users, report.items, report.pairs = len(rows.user_ids), len(rows.item_ids), len(matrix.indices)
    provenance = Provenance(
        config={"reading": config.semantic()},
        inputs=found.sha256(),
        columns={"user": roles["user"], "item": roles["item"]},
    )
    interactions = Interactions(
        matrix=matrix,
        user_ids=rows.user_ids,
        item_ids=rows.item_ids,
        weighted=config.weight is not None,
        provenance=provenance,
    )
    return interactions, report


def least_bytes(found: Source, config: ReadConfig) -> int:
    """The memory that reading takes at least, of which Parquet files tell before: 0 where nobody knows."""
    if found.format != "parquet" or config.where:
        return 0
    with table_errors(found.name):
        rows = in_background(lambda: scan(found).select(pl.len()).collect()).item()
    return int(ROW_BYTES * rows)


def read_rows(
    found: Source, config: ReadConfig, *, ids_only: bool = False, where_flag: str = "--where"
) -> tuple[Rows, ReadReport]:
    """The rows that are wanted, checked; unless ids_only with their values and times."""
    types = column_types(scan(found, header=config.header), found.name)
    names = list(types)
    roles, guessed = find_columns(names, config, found.name)
    value = config.weight or roles.get("rating")
    if config.weight and config.weight not in names:
        raise DataError(f"no column {config.weight!r} (--weight); found {', '.join(names)}", file=found.name)
    if value in (roles["user"], roles["item"]):
        raise DataError(f"expected ids and ratings in different columns, found both in {value!r}", file=found.name)
    text = [column for column in (roles["user"], roles["item"], value) if column]
    lazy = scan(found, text, header=config.header, types=types)
    types = column_types(lazy, found.name)
    if found.format == "csv":
        lazy = lazy.filter(~pl.all_horizontal(pl.col(column).is_null() for column in text))  # blank lines
    for role in ("user", "item"):
        if not is_id_type(types[roles[role]]):
            raise DataError(
                f"column {roles[role]!r}: expected ids (integers or text), found {types[roles[role]]}: cast it first",
                file=found.name,
            )
    if value and isinstance(types[value], pl.String):
        # a text format: strict=False marks what is no number with a null, which is looked for below
        lazy = lazy.with_columns(pl.col(value).str.strip_chars().cast(pl.Float64, strict=False).alias(value))
        types[value] = pl.Float64()
    if config.where:
        lazy = lazy.filter(condition(config.where, types, found.name, where_flag))
    wanted = [id_expression(roles[role], types[roles[role]]).alias(role) for role in ("user", "item")]
    if value and not ids_only:
        if not (types[value].is_numeric() or types[value] == pl.Boolean):
            raise DataError(
                f"column {value!r}: expected numbers, found {types[value]}: cast it first",
                file=found.name,
            )
        wanted.append(pl.col(value).cast(pl.Float32, strict=False).alias("value"))
    later = None
    if "timestamp" in roles and config.duplicates in ("last", "first") and not ids_only:
        times = _timestamp(roles["timestamp"], types[roles["timestamp"]], found.name)
        if found.format == "parquet":  # where one column can be read alone, if rows turn out to repeat
            later = lazy.select(times)
        else:
            wanted.append(times)
    left = where_flag if config.where else ""
    with table_errors(found.name):
        rows = collect(
            lazy.select(wanted), found.name, {**roles, "value": value or ""}, left, typed=found.format == "parquet"
        )
    if later is not None:
        rows.times = (piece["timestamp"] for piece in batches(later, PIECE))
    return rows, ReadReport(rows=rows.count, columns=roles, guessed=guessed)


def _timestamp(column: str, dtype: pl.DataType, name: str) -> pl.Expr:
    """Whatever orders rows in time."""
    if isinstance(dtype, pl.String):
        return pl.col(column).alias("timestamp")  # ISO 8601 text sorts as time does
    if dtype.is_numeric() or dtype.is_temporal():
        time = pl.col(column).to_physical()
        return (time.fill_nan(None) if dtype.is_float() else time).alias("timestamp")  # NaN would be the newest
    raise DataError(
        f"column {column!r}: expected timestamps, found {dtype}; leave it out with --columns timestamp=", file=name
    )
