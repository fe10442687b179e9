"""Which of several learning rates an arm is compared with."""

from typing import Any

from lit_pi.compare.planning import Grid
from lit_pi.errors import UserError
from lit_pi.evaluations.evaluation import class_of
from lit_pi.evaluations.records import latest


def best(grid: Grid) -> float:
    """The learning rate whose model did best on the validation split.

    Raises:
        UserError: the evaluation gives no single number to choose by.
    """
    return min(grid.cells, key=lambda rate: score(grid, rate))


def score(grid: Grid, rate: float) -> float:
    """The number that is minimised: the perplexity at the longest context length, or what the evaluation says.

    Raises:
        UserError: the evaluation gives no such number.
    """
    record: dict[str, Any]
    ((name, record),) = latest(grid.cells[rate].directory).items()
    if (number := class_of(record).objective(record)) is None:
        raise UserError(f"{name} does not tell which of two models is better: let `tune_on` name another evaluation")
    return number
