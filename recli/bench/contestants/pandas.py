"""pandas: the usual way of those who write it themselves, factorize and SciPy's CSR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from recli.bench.clock import Clock
from recli.bench.problem import Problem

Work = Callable[..., dict[str, Any]]


def index(problem: Problem) -> Work:
    columns = problem["columns"]

    def work(clock: Clock) -> dict[str, Any]:
        with clock:
            frame = read(problem["files"], problem["format"], list(columns.values()))
            users, _ = pd.factorize(frame[columns["user"]], sort=True)
            items, _ = pd.factorize(frame[columns["item"]], sort=True)
            values = frame[columns["rating"]].to_numpy(np.float32) if "rating" in columns else np.ones(len(frame))
            matrix = sp.coo_array((values.astype(np.float32), (users, items))).tocsr()
        return {"pairs": int(matrix.nnz)}

    return work


def read(files: list[str], format: str, columns: list[str]) -> pd.DataFrame:
    """Raises ValueError for a format that pandas' readers do not take as it is."""
    if format == "parquet":
        return pd.concat([pd.read_parquet(path, columns=columns) for path in files], ignore_index=True)
    if format == "csv":
        return pd.concat([pd.read_csv(path, usecols=columns) for path in files], ignore_index=True)
    if format == "ndjson":
        return pd.concat([pd.read_json(path, lines=True)[columns] for path in files], ignore_index=True)
    raise ValueError(f"pandas does not read {format}")
