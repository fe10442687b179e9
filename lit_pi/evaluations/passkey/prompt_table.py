"""A table of passkeys in Parquet: which prompts a model answered."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_pi.evaluations.parquet import read_columns


def read_answered(run: Path, record: Mapping[str, Any]) -> dict[int, dict[tuple[int, int], bool]]:
    """For each context length, whether each prompt of a run's record was answered, by its cell and trial.

    Raises:
        UserError: there is no such table, or it is damaged.
    """
    columns = read_columns(run, record, ("context_length", "cell", "trial", "correct")).values()
    found: dict[int, dict[tuple[int, int], bool]] = defaultdict(dict)
    for length, cell, trial, correct in zip(*columns, strict=True):
        found[length][cell, trial] = correct
    return dict(found)
