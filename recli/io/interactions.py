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
from recli.ids import to_csr
from recli.io.background import in_background
from recli.io.conditions import condition
from recli.io.id_columns import id_expression, is_id_type, number_ids
from recli.io.npz import read_artifact
from recli.io.sources import Source, column_types, scan, table_errors

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
        pairs = len(interactions.matrix.indices)
        if not pairs:
            raise DataError("no interactions", file=found.name)
        return interactions, ReadReport(rows=pairs, users=users, items=items, pairs=pairs)
    frame, report = read_rows(found, config, where_flag=where_flag)
    roles = report.columns
    typed = found.format == "parquet"
    with table_errors(found.name):
        user_num, user_ids = number_ids(frame["user"], typed=typed)
        item_num, item_ids = number_ids(frame["item"], typed=typed)
        values = frame["value"].to_numpy() if "value" in frame.columns else np.ones(len(frame), np.float32)
        times = frame["timestamp"] if "timestamp" in frame.columns else None
        del frame
        size = len(user_ids), len(item_ids)
        matrix, report.repeated = to_csr(user_num, item_num, values, *size, config.duplicates)
        if report.repeated and times is not None:
            _check_times(times, roles["timestamp"], found.name)
            # rows without a time count as the oldest
            order = times.to_frame().select(pl.arg_sort_by("timestamp", maintain_order=True)).to_series().to_numpy()
            matrix, _ = to_csr(user_num[order], item_num[order], values[order], *size, config.duplicates)
    if report.repeated and config.duplicates == "error":
        raise DataError(
            f"{report.repeated} rows repeat a user and item: choose with --duplicates what they mean", file=found.name
        )
    if not np.isfinite(matrix.values).all():
        raise DataError("sums of repeated rows overflow float32", file=found.name)
    report.users, report.items, report.pairs = len(user_ids), len(item_ids), len(matrix.indices)
    provenance = Provenance(
        config={"reading": config.semantic()},
        inputs=found.sha256(),
        columns={"user": roles["user"], "item": roles["item"]},
    )
    interactions = Interactions(
        matrix=matrix, user_ids=user_ids, item_ids=item_ids, weighted=config.weight is not None, provenance=provenance
    )
    return interactions, report


def read_rows(
    found: Source, config: ReadConfig, *, ids_only: bool = False, where_flag: str = "--where"
) -> tuple[pl.DataFrame, ReadReport]:
    """The rows that are wanted, checked: columns user, item (see `id_columns.id_expression`), and unless ids_only value
    float32, timestamp if there.
    """
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
    if "timestamp" in roles and config.duplicates in ("last", "first") and not ids_only:
        wanted.append(_timestamp(roles["timestamp"], types[roles["timestamp"]], found.name))
    with table_errors(found.name):
        frame = in_background(lambda: lazy.select(wanted).collect(engine="streaming"))
    if not len(frame):
        raise DataError(f"no rows{f' are left by {where_flag}' if config.where else ''}", file=found.name)
    _check_rows(
        frame, {**roles, "value": value or ""}, f" of those left by {where_flag}" if config.where else "", found.name
    )
    return frame, ReadReport(rows=len(frame), columns=roles, guessed=guessed)


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


def _check_times(column: pl.Series, name: str, file: str) -> None:
    if column.dtype == pl.String:
        odd = column.filter(~column.str.contains(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"))
        if len(odd):
            raise DataError(
                f"column {name!r}: expected times such as 2025-12-31 23:59:59, or numbers, found {odd[0]!r}; leave it "
                "out with --columns timestamp=",
                file=file,
            )


def _check_rows(frame: pl.DataFrame, roles: dict[str, str], left: str, name: str) -> None:
    for role in ("user", "item"):
        missing = np.flatnonzero(frame[role].is_null().to_numpy())
        if len(missing):
            raise DataError(
                f"column {roles[role]!r}: {len(missing)} ids are missing, first in row {missing[0] + 1}{left}",
                file=name,
            )
    if "value" in frame.columns:
        bad = np.flatnonzero(~frame["value"].is_finite().fill_null(False).to_numpy())
        if len(bad):
            raise DataError(
                f"column {roles['value']!r}: expected finite numbers, found {len(bad)} missing, infinite or text, "
                f"first in row {bad[0] + 1}{left}",
                file=name,
            )
