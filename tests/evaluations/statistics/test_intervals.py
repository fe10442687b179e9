"""Intervals against their definitions by search, and against all outcomes of small samples."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import multinomial

from lit_pi.evaluations.statistics.intervals import Z, newcombe, wilson


def searched(correct: int, n: int) -> tuple[float, float]:
    """The shares from which the one seen is no more than 1.96 standard errors away, by search."""
    shares = np.linspace(0, 1, 1_000_001)
    inside = np.abs(correct / n - shares) <= Z * np.sqrt(shares * (1 - shares) / n)
    return float(shares[inside].min()), float(shares[inside].max())


@pytest.mark.parametrize(("correct", "n"), [(0, 1), (1, 1), (0, 10), (2, 10), (10, 10), (7, 13), (45, 50)])
def test_wilson_is_the_interval_of_its_definition(correct: int, n: int) -> None:
    assert wilson(correct, n) == pytest.approx(searched(correct, n), abs=2e-6)


def test_wilson_of_the_papers_least_success() -> None:
    assert wilson(2, 10) == pytest.approx((0.0566822, 0.5098375), abs=1e-7)  # R: prop.test(2, 10, correct = FALSE)


def tango(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """The score interval of Tango 1998 (Statistics in Medicine 17, 891-908), also of good coverage, by search."""
    n, b, c = both + only_first + only_second + neither, only_second, only_first

    def score(difference: float) -> float:
        first = -b - c + (2 * n - b + c) * difference
        q = (math.sqrt(max(first**2 - 8 * n * (-c * difference * (1 - difference)), 0)) - first) / (4 * n)
        variance = n * (2 * q + difference * (1 - difference))
        return (b - c - n * difference) / math.sqrt(max(variance, 1e-12))

    seen = (b - c) / n
    return (
        brentq(lambda difference: score(difference) - Z, -1 + 1e-9, seen),
        brentq(lambda difference: score(difference) + Z, seen, 1 - 1e-9),
    )


@pytest.mark.parametrize("cells", [(400, 60, 30, 510), (36, 12, 2, 20), (700, 35, 20, 245), (80, 4, 9, 7)])
def test_newcombe_is_near_another_interval_of_good_coverage(cells: tuple[int, int, int, int]) -> None:
    found, other = newcombe(*cells), tango(*cells)
    width = other[1] - other[0]
    assert found == pytest.approx(other, abs=0.12 * width)
    assert found[0] < (cells[2] - cells[1]) / sum(cells) < found[1]


def test_newcombe_turns_with_its_sides_and_holds_no_more_than_what_can_be() -> None:
    low, high = newcombe(30, 12, 5, 13)
    assert newcombe(30, 5, 12, 13) == pytest.approx((-high, -low))
    for cells in ((10, 0, 0, 0), (0, 10, 0, 0), (0, 0, 10, 0), (0, 0, 0, 10), (5, 0, 0, 5), (0, 0, 0, 1)):
        low, high = newcombe(*cells)
        assert -1 <= low <= (cells[2] - cells[1]) / sum(cells) <= high <= 1


@pytest.mark.parametrize("shares", [(0.6, 0.1, 0.05, 0.25), (0.4, 0.1, 0.1, 0.4), (0.7, 0.02, 0.08, 0.2)])
def test_newcombe_covers_the_truth_in_95_percent_of_all_outcomes(shares: tuple[float, ...]) -> None:
    n, truth = 25, shares[2] - shares[1]
    outcomes = [
        (both, first, second, n - both - first - second)
        for both in range(n + 1)
        for first in range(n + 1 - both)
        for second in range(n + 1 - both - first)
    ]
    chances = multinomial.pmf(outcomes, n, shares)
    covered = [low <= truth <= high for low, high in (newcombe(*outcome) for outcome in outcomes)]
    assert 0.94 < float(chances @ np.array(covered)) < 0.99
