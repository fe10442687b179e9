"""Parquet files that are whole at any instant."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from lit_pi.files import beside


def write_columns(path: Path, columns: Mapping[str, Sequence]) -> None:
    """Write columns of equal length, by name."""
    with beside(path) as partial:
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), partial)
