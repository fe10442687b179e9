"""Parquet files that are whole at any instant."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow
import pyarrow.parquet


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A file that takes its place once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.new")
    yield partial
    partial.replace(path)


def write_columns(path: Path, columns: Mapping[str, Sequence]) -> None:
    """Write columns of equal length, by name."""
    with beside(path) as partial:
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), partial)
