"""Intervals over documents hold the truth as often as they say, and say what they rest on.

`book_losses.csv` holds the words of 178 books (English, before 1919) and the nats that six small models lose on them. A
model mixes frequencies of pairs of words in the other half of the books with those of words in the window, of 1,024
words at most. Models differ from `bigram` by fewer books, more or less weight of the window, words without their
pairs, or windows of 256 words (`short_cache`).
"""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from lit_pi.evaluations.statistics.document_intervals import Estimate, cluster_mean, ratio, ratio_difference
from lit_pi.evaluations.statistics.settled import FEW, LARGEST_SHARE, warnings

SIMULATIONS = 4000
BOOKS = np.genfromtxt(Path(__file__).parent / "book_losses.csv", delimiter=",", names=True)


def covered(estimate: Estimate, truth: float) -> float:
    """How often intervals hold the truth."""
    return float(((estimate.low <= truth) & (truth <= estimate.high)).mean())


def similar(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
    """Tokens of documents whose lengths spread by a factor of 2, and nats of two models on them, with their means.

    A document's mean loss differs from others' by 0.25 nats, and depends on its length; the second model is 0.02
    better, and by how much differs from document to document.
    """
    chance = np.random.default_rng(1000 + count)
    log_length = chance.normal(0, 0.35, (SIMULATIONS, count))
    tokens = np.round(5000 * np.exp(log_length))
    first = 2 + 0.1 * log_length + chance.normal(0, 0.25, tokens.shape)
    second = first - 0.02 + 0.03 * log_length + chance.normal(0, 0.02, tokens.shape)
    # Lengths are log-normal, so that tokens lie at a mean log-length of 0.35 squared.
    return tokens, tokens * first, tokens * second, [2 + 0.1 * 0.35**2, 1.98 + 0.13 * 0.35**2]


def unequal(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
    """The same of documents of which a tenth is 40 times longer."""
    chance = np.random.default_rng(1000 + count)
    tokens = np.where(chance.random((SIMULATIONS, count)) < 0.1, 20_000.0, 500.0)
    first = 3 + 0.3 * chance.standard_normal(tokens.shape)
    second = first - 0.02 + 0.02 * chance.standard_normal(tokens.shape)
    return tokens, tokens * first, tokens * second, [3.0, 2.98]


@pytest.mark.parametrize("count", [20, 50, 100])
@pytest.mark.parametrize("documents", [similar, unequal])
def test_coverage_of_means_and_paired_differences(documents, count: int) -> None:
    tokens, first, second, (one, other) = documents(count)
    assert 0.93 <= covered(ratio(first, tokens), one) <= 0.97
    assert 0.93 <= covered(ratio(second, tokens), other) <= 0.97
    assert 0.93 <= covered(ratio_difference(first, second, tokens), one - other) <= 0.97


def books(nats: np.ndarray, count: int) -> tuple[Estimate, float]:
    """Intervals of as many books, drawn again and again, and the mean of all."""
    tokens = BOOKS["tokens"]
    drawn = np.random.default_rng(1000 + count).integers(0, len(tokens), (SIMULATIONS, count))
    return ratio(nats[drawn], tokens[drawn]), float(nats.sum() / tokens.sum())


@pytest.mark.parametrize("count", [20, 50, 100])
@pytest.mark.parametrize("other", ["", "fewer_books", "little_cache", "unigram", "much_cache", "short_cache"])
def test_coverage_on_real_books(other: str, count: int) -> None:
    """Of the gain from the window one book carries a quarter of the variance, which most draws of 20 do not hold."""
    difference = BOOKS[other] - BOOKS["bigram"] if other else BOOKS["bigram"]
    estimate, truth = books(difference, count)
    least = 0.89 if other in ("much_cache", "short_cache") and count == 20 else 0.93
    assert least <= covered(estimate, truth) <= 0.97
    assert np.mean((estimate.effective < 4) | (estimate.largest_share > LARGEST_SHARE)) <= 0.1


@pytest.mark.parametrize("count", [20, 50, 100])
def test_intervals_are_not_much_wider_than_students_where_that_covers(count: int) -> None:
    """No narrower one covers where documents are unequal: with a quantile for n documents it is 90 % at most."""
    tokens, first, _, (truth, _) = unequal(count)
    pairs = [(ratio(first, tokens), tokens), (books(BOOKS["fewer_books"] - BOOKS["bigram"], count)[0], None)]
    for estimate, lengths in pairs:
        error = (estimate.value - estimate.low) / student.ppf(0.975, estimate.effective - 1)
        error = np.minimum(error, (estimate.high - estimate.value) / student.ppf(0.975, estimate.effective - 1))
        width = (estimate.high - estimate.low) / (2 * error * student.ppf(0.975, estimate.effective - 1))
        assert np.mean(width) < 1.2
        if lengths is not None:
            naive = np.abs(estimate.value - truth) <= error * student.ppf(0.975, count - 1)
            assert naive.mean() < 0.935


def test_equal_documents_give_the_students_interval() -> None:
    y = np.array([1.0, 2.0, 4.0, 5.0])
    estimate = ratio(y * 10, np.full(4, 10.0))
    half = 3.182446305284263 * np.std(y, ddof=1) / 2  # Student's 0.975 quantile of 3 degrees of freedom
    assert estimate[:3] == pytest.approx((3.0, 3.0 - half, 3.0 + half))
    assert estimate[3:] == pytest.approx((4, 0.4))


def test_the_error_is_that_of_leaving_out_one_document_at_a_time() -> None:
    y, x = np.array([30.0, 9.0, 8.0, 5.0, 1.0]), np.array([10.0, 4.0, 3.0, 2.0, 1.0])
    without = np.array([np.delete(y, place).sum() / np.delete(x, place).sum() for place in range(5)])
    squares = np.square(without - y.sum() / x.sum())
    effective = 20**2 / (100 + 16 + 9 + 4 + 1)
    half = student.ppf(0.975, effective - 1) * np.sqrt(4 / 5 * squares.sum())
    figure = ratio(y, x).figure()
    assert figure[:3] == pytest.approx((53 / 20, 53 / 20 - half, 53 / 20 + half))
    assert figure[3:] == pytest.approx((effective, squares.max() / squares.sum()))
    assert figure.unsettled == "3.1 documents in effect, fewer than 4" and not figure.tells


def test_an_interval_reaches_further_towards_the_tail() -> None:
    """The quantiles of Hall's transformation, by search."""
    losses = np.concatenate((np.zeros(17), [1.0, 1.5, 3.0]))
    figure = ratio(losses, np.ones(20)).figure()
    changes = losses - losses.mean()
    skewness = min((changes**3).sum() / (changes**2).sum() ** 1.5, 0.3)
    error, quantile = np.std(losses, ddof=1) / np.sqrt(20), student.ppf(0.975, 19)
    places = np.linspace(-6, 0, 600_001)
    transformed = places + skewness * places**2 / 3 + skewness**2 * places**3 / 27 + skewness / 6
    assert figure.low == pytest.approx(figure.value - quantile * error)
    (crossed,) = np.flatnonzero(np.diff(transformed > -quantile))
    assert figure.high == pytest.approx(figure.value - places[crossed] * error, rel=1e-4)


def test_documents_without_tokens_do_not_count_and_one_has_no_interval() -> None:
    y, x = np.array([3.0, 0.0, 5.0, 0.0]), np.array([2.0, 0.0, 2.0, 0.0])
    padded, plain = ratio(y, x), ratio(y[::2], x[::2])
    assert [float(part) for part in padded] == [float(part) for part in plain]
    assert ratio(y[:1], x[:1]).figure() == (1.5, None, None, None, None)
    dwarfed = ratio(np.array([300.0, 1.0]), np.array([100.0, 1.0])).figure()
    assert dwarfed.low is None and dwarfed.effective_documents == pytest.approx(101**2 / 10_001)


def test_few_documents_in_effect_are_warned_of() -> None:
    even = cluster_mean([1.0, 2.0] * 4, range(8))
    assert even.effective_documents == FEW and warnings([even.effective_documents, None]) == []
    (warning,) = warnings([20.0, cluster_mean([1.0, 2.0, 4.0], "abc").effective_documents])
    assert warning.startswith("Warning: 3.0 documents are in effect, fewer than 8")
