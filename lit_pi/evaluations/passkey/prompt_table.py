"""A table of passkeys in Parquet: which prompts a model answered."""

from collections import defaultdict
from pathlib import Path

import pyarrow
import pyarrow.parquet

from lit_pi.errors import UserError


def read_answered(path: Path) -> dict[int, dict[tuple[int, int], bool]]:
    """For each context length, whether each prompt was answered, by its cell and trial.

    Raises:
        UserError: there is no such table, or it is damaged.
    """
    try:
        table = pyarrow.parquet.read_table(path)
        columns = [table[name].to_pylist() for name in ("context_length", "cell", "trial", "correct")]
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read the passkeys in {path} ({error}): test that run again") from error
    found: dict[int, dict[tuple[int, int], bool]] = defaultdict(dict)
    for length, cell, trial, correct in zip(*columns, strict=True):
        found[length][cell, trial] = correct
    return dict(found)
