"""The Parquet files of a study's tables: paths, writing all of them or none, reading with checks."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from moebench import columns
from moebench.errors import StorageError, UserError

SCHEMA = 1
"""Version of the tables; readers accept this and older ones."""

_KEY = b"moebench_schema"


@functools.cache
def empty(name: str) -> pa.Table:
    """A table without rows."""
    return columns.schema(name).empty_table()


def path_of(out: Path, name: str) -> Path:
    """Path of a table."""
    return out / f"{name}.parquet"


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A new folder whose tables take the place of those in ``out`` once all are written: on a full disk the old ones
    stay, all of them.  Raises StorageError.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=out) as new:
            yield Path(new)
            for path in Path(new).iterdir():
                os.replace(path, out / path.name)
    except OSError as error:
        raise StorageError(
            f"{out}: tables cannot be written ({error.strerror or error}); free space or fix permissions, then run "
            "again: those that are there are kept"
        ) from None


def write(folder: Path, name: str, table: pa.Table) -> None:
    """Write a table.  Raises OSError.

    Without dictionaries of values: of tables with more columns than rows, they take most of the time and make the file
    larger.
    """
    units = json.dumps({c.name: c.unit for c in columns.of_table(name) if c.unit})
    table = table.replace_schema_metadata({_KEY: str(SCHEMA), b"moebench_table": name, b"moebench_units": units})
    pq.write_table(table, path_of(folder, name), compression="zstd", use_dictionary=False)


def _nullable(kind: pa.DataType) -> Any:
    return {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get(kind)


def read(out: Path, name: str, **where: str) -> pd.DataFrame:
    """A table as a data frame (whole numbers and truth values nullable), only the rows where columns equal ``where``.

    Columns that an older version did not write come back empty.  Raises UserError if the table is missing, StorageError
    if it is damaged or of a newer schema.
    """
    path = path_of(out, name)
    try:
        with pq.ParquetFile(path) as file:
            version = int((file.schema_arrow.metadata or {})[_KEY])
            if version > SCHEMA:
                raise StorageError(
                    f"{path}: tables of schema {version}, this version reads up to {SCHEMA}; update moebench"
                )
            filters = [(k, "==", v) for k, v in where.items()]
            table = pq.read_table(path, filters=filters, use_threads=False) if where else file.read(use_threads=False)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such table yet; `moebench report --partial --study {out.name}` builds it from the records"
        ) from None
    except (KeyError, ValueError, OSError):
        again = "`moebench report --partial` makes the tables again"
        raise StorageError(f"{path}: not a table of moebench, or damaged; {again}") from None
    there = set(table.column_names)
    lacking = [field for field in columns.schema(name) if field.name not in there]
    arrays = [*table.columns, *(pa.nulls(len(table), field.type) for field in lacking)]
    whole = pa.Table.from_arrays(arrays, [*table.column_names, *(field.name for field in lacking)])
    frame: pd.DataFrame = whole.to_pandas(types_mapper=_nullable, use_threads=False)
    return frame


def rows(frame: pd.DataFrame) -> list[columns.Row]:
    """The rows of a data frame as plain values, None where one is missing: column by column, of which there are more
    than rows."""
    values = [_values(column) for _, column in frame.items()]
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _values(column: pd.Series) -> list[Any]:
    missing: Any = None  # pandas-stubs know no None here
    if column.dtype == float:  # pandas takes five times as long
        numbers = column.to_numpy()
        made: list[Any] = np.where(np.isnan(numbers), missing, numbers).tolist()
        return made
    return column.to_numpy(dtype=object, na_value=missing).tolist()
