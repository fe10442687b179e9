"""Parquet files that are whole at any instant, and read when they are what was written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from zlib_ng.zlib_ng import crc32

from lit_pi.errors import DamagedError
from lit_pi.evaluations.records import TABLE_CHECKSUM
from lit_pi.files import as_text, beside


def write_columns(path: Path, columns: Mapping[str, Sequence]) -> None:
    """Write columns of equal length, by name."""
    with beside(path) as partial:
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), partial)


def read_columns(run: Path, record: Mapping[str, Any], columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Read the table of a record.

    Args:
        run: the run directory.
        record: one of its results, with the `table` and its checksum.
        columns: the columns to read; all by default.

    Returns:
        The columns' values, by name.

    Raises:
        DamagedError: there is no such table, it has no such column, or it is not the one that the results were made of.
    """
    path = run / record["table"]
    try:
        content = path.read_bytes()
        if as_text(crc32(content)) != record[TABLE_CHECKSUM]:
            raise ValueError("it is not the one that the results were made of, by its checksum")
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
        return {name: table[name].to_pylist() for name in columns or table.column_names}
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise DamagedError(f"cannot read the table {path} ({error}): test that run again") from error
