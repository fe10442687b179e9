"""Run directories side by side."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lit_pi.errors import UserError, shown
from lit_pi.evaluations import Evaluation
from lit_pi.evaluations.evaluation import class_of
from lit_pi.evaluations.records import Records, Run, latest, load_records


def runs_of(directories: Sequence[Path]) -> list[Run]:
    """Name runs by their directories, or by their paths where these have the same name.

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


def by_class(runs: Sequence[Run]) -> dict[type[Evaluation], dict[str, Records]]:
    """Gather the records that count by the class of evaluation that gave them, and by evaluation.

    Raises:
        UserError: a class cannot be imported or writes other records, or one name stands for two classes.
    """
    found: dict[type[Evaluation], dict[str, Records]] = {}
    owners: dict[str, type[Evaluation]] = {}
    for run in runs:
        for name, record in latest(run.directory).items():
            owner = class_of(record)
            if record["kind"] != owner.kind:
                raise UserError(
                    f"the results of {name} in {run.directory} are of kind {shown(record['kind'])}, which "
                    f"{owner.__name__} does not write: test again"
                )
            if owners.setdefault(name, owner) is not owner:
                raise UserError(
                    f"{name} is an evaluation of {owners[name].__name__} in one run and of {owner.__name__} in "
                    f"{run.directory}: give them different names"
                )
            found.setdefault(owner, {}).setdefault(name, {})[run] = record
    return found
