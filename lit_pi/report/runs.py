"""Run directories side by side."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from lit_pi.errors import UserError
from lit_pi.evaluations.records import Records, Run, latest, load_records

Pair = TypeVar("Pair")
EXCLUDES_ZERO = "* the 95 % interval of the difference excludes zero"


def runs_of(directories: Sequence[Path]) -> list[Run]:
    """Runs by the names of their directories, or by their paths where names are the same.

    Raises:
        UserError: one has no results.
    """
    for directory in directories:
        if not load_records(directory):
            raise UserError(f"the results of {directory} are empty: test it with an evaluation")
    unique = list(dict.fromkeys(directories))
    names = Counter(directory.resolve().name for directory in unique)
    return [
        Run(name if names[name := directory.resolve().name] == 1 else str(directory), directory) for directory in unique
    ]


def by_evaluation(runs: Sequence[Run], kind: str) -> dict[str, Records]:
    """The records of one kind that count, by evaluation."""
    found: dict[str, Records] = {}
    for run in runs:
        for name, record in latest(run.directory, kind).items():
            found.setdefault(name, {})[run] = record
    return found


def differences(
    runs: Sequence[Run], compare: Callable[[Path, Path], Sequence[Pair]]
) -> tuple[dict[Run, Sequence[Pair]], list[str]]:
    """What each run differs from the first one in, and why some cannot be compared with it."""
    baseline, *others = runs
    found, refused = {}, []
    for run in others:
        try:
            found[run] = compare(baseline.directory, run.directory)
        except UserError as error:
            refused.append(f"not compared: {error}")
    return found, refused
