"""Recommendations to Parquet, CSV or NDJSON, written as they come, in row groups."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from recli.artifacts import REASONS, Factors, Scores
from recli.io.background import POLL
from recli.io.id_columns import IdColumn
from recli.io.requests import IdList

FORMATS = ("parquet", "csv", "ndjson")
ROW_GROUP = 1 << 17
OWN_COLUMNS = ("rank", "score", "reason")
BECAUSE = ("because", "because_score")
JOINT = "|"  # between the entries of a list in CSV, which has no lists


class _StoppedError(Exception):
    """Ends the writer thread when the producer has failed."""


class _Watched(io.RawIOBase):
    """A file that keeps its first error: polars goes on reading to the end before it tells, in words of its own."""

    def __init__(self, file: BinaryIO, failure: list[BaseException]) -> None:
        self._file, self._failure = file, failure

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except BaseException as error:
            self._failure.append(error)
            raise


class ScoreTable:
    """Turns blocks of item numbers into rows: the user and item columns named as in the input, rank from 1, score,
    reason; where explained, because and because_score, lists of past items and their parts of the score, best first,
    or in CSV their entries with | between them.
    """

    def __init__(self, users: IdList, factors: Factors, *, explained: bool = False, format: str = "parquet") -> None:
        names = factors.provenance.columns
        own = OWN_COLUMNS + (BECAUSE if explained else ())
        self._user = free_name(names["user"], own)
        self._item = free_name(names["item"], (*own, self._user))
        self._users, self._items = users.ids, IdColumn(factors.item_ids, self._item)
        self.schema: dict[str, Any] = {
            self._user: self._users.dtype,
            self._item: self._items.dtype,
            "rank": pl.Int32,
            "score": pl.Float32,
            "reason": pl.String,
        }
        self._joined = format == "csv"
        if explained:
            kinds = (self._items.dtype, pl.Float32())
            self.schema |= {
                name: pl.String if self._joined else pl.List(kind) for name, kind in zip(BECAUSE, kinds, strict=True)
            }

    def frame(self, block: Scores) -> pl.DataFrame:
        row, column = np.nonzero(block.items >= 0)
        columns = [
            self._users.gather(row + block.start).alias(self._user),
            self._items.gather(block.items[row, column]),
            pl.Series("rank", (column + 1).astype(np.int32)),
            pl.Series("score", block.scores[row, column]),
            pl.Series("reason", block.reasons[row].astype(np.uint32)).replace_strict(
                range(len(REASONS)), REASONS, return_dtype=pl.String
            ),
        ]
        if block.because is not None and block.because_scores is not None:
            past, parts = block.because[row, column], block.because_scores[row, column]
            items = self._items.gather(past.ravel())  # null where there is no item
            values = (items, pl.Series(parts.ravel()).set(items.is_null(), None))
            columns += [
                self._lists(each, past.shape[1]).alias(name) for name, each in zip(BECAUSE, values, strict=True)
            ]
        return pl.DataFrame(columns)

    def _lists(self, values: pl.Series, most: int) -> pl.Series:
        """Lists of `most` values each, those that are null left out."""
        if self._joined:
            values = values.cast(pl.String)
        lists = values.reshape((-1, most)).arr.to_list().list.drop_nulls()
        return lists.list.join(JOINT) if self._joined else lists


def free_name(name: str, taken: Collection[str]) -> str:
    """An input may well call its users' column `rank`; tables have each name once."""
    while name in taken:
        name += "_id"
    return name


def write_scores(
    frames: Iterator[pl.DataFrame],
    schema: dict[str, Any],
    format: str,
    file: BinaryIO,
    row_group: int = ROW_GROUP,
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes frames as they are produced, at most two waiting, to a binary file in one of FORMATS. row_group: rows;
    metadata: for the footer of a Parquet file.

    polars writes on a thread of its own, so that this one produces, and signals reach it. Raises what frames raises,
    and what the file raises, without producing much more.
    """
    waiting: queue.Queue[pl.DataFrame | None] = queue.Queue(2)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def pull(with_columns: Any, predicate: Any, n_rows: Any, batch_size: Any) -> Iterator[pl.DataFrame]:
        while (frame := waiting.get()) is not None:
            yield frame
        if stopped.is_set():
            raise _StoppedError

    def write() -> None:
        table = register_io_source(pull, schema=schema)
        watched: Any = _Watched(file, failure)
        try:
            if format == "parquet":
                table.sink_parquet(watched, row_group_size=row_group, maintain_order=True, metadata=metadata)
            elif format == "csv":
                table.sink_csv(watched, maintain_order=True)
            else:
                table.sink_ndjson(watched, maintain_order=True)
        except BaseException as error:
            failure.append(error)

    def put(frame: pl.DataFrame | None) -> None:
        while writer.is_alive():
            try:
                return waiting.put(frame, timeout=POLL)
            except queue.Full:
                continue

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        for frame in frames:
            put(frame)
            if failure:
                break
    except BaseException:
        stopped.set()
        raise
    finally:
        put(None)
        while writer.is_alive():
            writer.join(POLL)
    if failure:
        raise failure[0]
