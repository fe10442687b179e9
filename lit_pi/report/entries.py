"""Lines of a report: models that are compared, each with the runs that measured it."""

from collections.abc import Sequence
from typing import NamedTuple

from lit_pi.evaluations.records import Run


class Entry(NamedTuple):
    """A model under a strategy, after some steps of training, measured once for each seed of that training.

    Attributes:
        arm: the name of the strategy, and of how the model is trained under it.
        steps: optimizer steps of the training that is compared; 0 for a model as it is.
        runs: the runs that measured it, a seed each.
    """

    arm: str
    steps: int
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """A short name."""
        return f"{self.arm}, {self.steps:,} steps" if self.steps else self.arm


def entries_of(runs: Sequence[Run]) -> list[Entry]:
    """An entry for each of runs that nobody has put in relation: all are compared with the first."""
    return [Entry(run.name, 0, (run,)) for run in runs]
