"""Which of many differences are there: p values of figures with intervals, seeds, and Holm's correction."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t as student

from lit_pi.evaluations.statistics.document_intervals import Figure

LEVEL = 0.05
"""Chance that any difference of a family is reported where there is none."""

SMALLEST = 1e-12
"""P values below it are not told apart."""

FEW_SEEDS = 3
"""Seeds from which a claim reaches beyond the checkpoints that were measured."""


class SeedError(NamedTuple):
    """The part of a difference's error that comes from what trainings differ from seed to seed.

    Attributes:
        error: standard error of the difference.
        freedom: degrees of freedom.
    """

    error: float
    freedom: int

    def reach(self, level: float) -> float:
        """Half the interval of what has this error alone, which leaves out the truth at this level."""
        return float(student.isf(level / 2, self.freedom) * self.error)


def seed_error(arms: Sequence[Sequence[float]]) -> SeedError:
    """The error of a difference of two arms' means, by how all arms' trainings differ from seed to seed.

    Each arm's mean has an error of its own, and trainings of all arms are taken to spread alike: of three seeds an arm
    by itself tells its spread too badly.

    Args:
        arms: a figure of each training, by arm.
    """
    freedom = sum(len(own) - 1 for own in arms)
    squares = sum(float(np.square(np.subtract(own, np.mean(own))).sum()) for own in arms)
    return SeedError(math.sqrt(2 / min(map(len, arms)) * squares / freedom), freedom)


def p_value(figure: Figure, seeds: SeedError | None = None) -> float:
    """The level at which the interval of a difference would just touch zero; 1 where it has none.

    Args:
        figure: the difference, and its interval over documents.
        seeds: the error that comes from seeds, where the interval is over these too (see `with_seeds`).
    """
    if figure.low is None or figure.high is None or figure.effective_documents is None or not figure.value:
        return 1.0
    freedom = figure.effective_documents - 1
    side = figure.value - figure.low if figure.value > 0 else figure.high - figure.value
    of_documents = side / student.ppf(0.975, freedom)

    def beyond(level: float) -> float:
        documents = student.isf(level / 2, freedom) * of_documents
        return abs(figure.value) - math.hypot(documents, seeds.reach(level) if seeds else 0.0)

    return SMALLEST if beyond(SMALLEST) >= 0 else float(brentq(beyond, SMALLEST, 1.0))


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p values of a family of comparisons (Holm 1979, Scandinavian Journal of Statistics 6, 65-70)."""
    order = np.argsort(values, kind="stable")
    stepped = np.asarray(values, np.float64)[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted.tolist()


def with_seeds(figure: Figure, seeds: SeedError) -> Figure:
    """A mean difference with an interval over documents, widened by what training differs from seed to seed.

    Both errors are independent, and the ends of their intervals are added as errors are: in squares. Where one of them
    is much larger, that is its own interval; elsewhere it is wider than it need be (Cochran 1964, Biometrics 20,
    191-195).
    """
    if figure.low is None or figure.high is None:
        return figure
    of_seeds = seeds.reach(0.05)
    below, above = (math.hypot(side, of_seeds) for side in (figure.value - figure.low, figure.high - figure.value))
    return figure._replace(low=figure.value - below, high=figure.value + above)
