"""Holm's correction, p values of intervals, and intervals over seeds."""

import numpy as np
import pytest
from scipy.stats import t as student

from lit_pi.evaluations.statistics.document_intervals import Figure, ratio
from lit_pi.evaluations.statistics.significance import LEVEL, SeedError, holm, p_value, seed_error, with_seeds


def rejected(values: list[float], level: float) -> list[bool]:
    """Holm's procedure as the paper describes it: step down until one is not small enough."""
    found = [False] * len(values)
    for place, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        if values[index] > level / (len(values) - place):
            break
        found[index] = True
    return found


def test_adjusted_values_reject_what_the_procedure_rejects() -> None:
    chance = np.random.default_rng(0)
    for count in (1, 2, 7, 30):
        values = (chance.random(count) ** 4).tolist()
        for level in (0.01, LEVEL, 0.2):
            assert [each <= level for each in holm(values)] == rejected(values, level)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_p_value_is_that_of_students_test() -> None:
    """Documents of one length, and no skewness: the ratio is a mean."""
    values = np.array([0.3, -0.1, 0.25, 0.05, 0.2, 0.0])
    figure = ratio(values, np.ones(6)).figure()
    statistic = values.mean() / (values.std(ddof=1) / np.sqrt(6))
    assert p_value(figure) == pytest.approx(2 * student.sf(abs(statistic), 5), rel=1e-6)
    assert p_value(figure._replace(value=-figure.value, low=-figure.high, high=-figure.low)) == pytest.approx(
        p_value(figure)
    )
    assert p_value(Figure(0.5, None, None, None, None)) == 1


def test_seeds_that_agree_widen_nothing_and_others_do() -> None:
    figure = Figure(0.1, 0.04, 0.16, 21.0, 0.1)
    same = with_seeds(figure, seed_error([[1.0, 1.0, 1.0], [1.1, 1.1, 1.1]]))
    assert (same.low, same.high) == pytest.approx((0.04, 0.16))
    apart = with_seeds(figure, seed_error([[1.0, 1.1, 1.2], [0.8, 1.0, 1.2]]))
    # Two arms of three seeds have four degrees of freedom, and variances of 0.01 and 0.04.
    reach = np.hypot(0.06, student.ppf(0.975, 4) * np.sqrt(0.025 * 2 / 3))
    assert (apart.low, apart.high) == pytest.approx((0.1 - reach, 0.1 + reach))


def test_a_p_value_over_seeds_is_where_the_interval_touches_zero() -> None:
    figure, seeds = Figure(0.1, 0.06, 0.14, 21.0, 0.1), SeedError(0.03, 4)
    p = p_value(figure, seeds)
    documents = student.isf(p / 2, 20) * 0.04 / student.ppf(0.975, 20)
    assert np.hypot(documents, student.isf(p / 2, 4) * 0.03) == pytest.approx(0.1)
    assert (p < 0.05) == (with_seeds(figure, seeds).low > 0)
    assert p_value(figure, SeedError(0.1, 4)) > p > p_value(figure)


@pytest.mark.parametrize("spread", [0.001, 0.004, 0.02])
def test_intervals_over_seeds_and_documents_hold_the_truth(spread: float) -> None:
    """Differences of documents and losses of seeds are drawn anew; 95 % of the intervals hold the true mean."""
    chance, held, repeats = np.random.default_rng(1), 0, 2000
    for _ in range(repeats):
        documents, seeds = chance.normal(0.02, 0.02, 30), chance.normal(0, spread, (2, 3))
        figure = ratio(documents + seeds[1].mean() - seeds[0].mean(), np.ones(30)).figure()
        found = with_seeds(figure, seed_error(seeds.tolist()))
        held += found.low <= 0.02 <= found.high
    assert held / repeats > 0.945
