"""Parquet files that are whole at any instant, and read when they are what was written."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    with _telling(run, record):
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(_content(run, record)))
        return {name: table[name].to_pylist() for name in columns or table.column_names}


def check_table(run: Path, record: Mapping[str, Any]) -> None:
    """Check that the table of a record, if it has one, is what the results were made of.

    Args:
        run: the run directory.
        record: one of its results.

    Raises:
        DamagedError: it is not, or not there.
    """
    if record.get("table"):
        with _telling(run, record):
            _content(run, record)


def _content(run: Path, record: Mapping[str, Any]) -> bytes:
    path = run / record["table"]
    if not path.is_file():  # a pipe or a device may never end
        raise ValueError("there is no such file")
    content = path.read_bytes()
    if as_text(crc32(content)) != record[TABLE_CHECKSUM]:
        raise ValueError("it is not the one that the results were made of, by its checksum")
    return content


@contextmanager
def _telling(run: Path, record: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise DamagedError(f"cannot read the table {run / record['table']} ({error}): test that run again") from error
