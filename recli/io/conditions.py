"""SQL conditions on the rows of a table."""

from __future__ import annotations

import polars as pl

from recli.errors import UsageError


def condition(where: str, types: dict[str, pl.DataType], name: str, flag: str) -> pl.Expr:
    """An SQL condition as an expression, tried on no rows so that a typo fails at once."""
    try:
        expression = pl.sql_expr(where)
        kind = pl.LazyFrame(schema=types).select(expression.alias("where")).collect()["where"].dtype
    except pl.exceptions.PolarsError as error:
        reason = str(error).split("\n")[0]
        if reason.startswith("unsupported function"):  # what SQL makes of a column named user
            reason += " (a column of that name goes into double quotes)"
        raise UsageError(f"{flag} {where!r}: {reason}; the columns are {', '.join(types)}", file=name) from error
    if kind != pl.Boolean:
        raise UsageError(f"{flag} {where!r}: expected a condition, found a value of type {kind}", file=name)
    return expression
