"""Intervals over documents hold the truth as often as they say."""

import numpy as np
import pytest

from lit_pi.evaluations.statistics.document_intervals import ratio, ratio_difference

SIMULATIONS = 2000


def documents(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of documents whose lengths spread by a factor of 2, and nats of two models on them.

    A document's mean loss differs from others' by 0.25 nats, and depends on its length; the second model is 0.02
    better, and by how much differs from document to document.
    """
    chance = np.random.default_rng(seed)
    log_length = chance.normal(0, 0.35, (SIMULATIONS, count))
    tokens = np.round(5000 * np.exp(log_length))
    first = 2 + 0.1 * log_length + chance.normal(0, 0.25, tokens.shape)
    second = first - 0.02 + 0.03 * log_length + chance.normal(0, 0.02, tokens.shape)
    return tokens, tokens * first, tokens * second


def means(slope: float, loss: float) -> float:
    """The mean over tokens: lengths are log-normal, so tokens lie at a mean log-length of 0.35 squared."""
    return loss + slope * 0.35**2


@pytest.mark.parametrize("count", [50, 100])
def test_coverage_of_means_and_paired_differences(count: int) -> None:
    tokens, first, second = documents(count, seed=count)
    for estimate, truth in (
        (ratio(first, tokens), means(0.1, 2.0)),
        (ratio(second, tokens), means(0.13, 1.98)),
        (ratio_difference(first, second, tokens), means(-0.03, 0.02)),
    ):
        covered = float(((estimate.low <= truth) & (truth <= estimate.high)).mean())
        assert 0.93 <= covered <= 0.97


def test_equal_documents_give_the_students_interval() -> None:
    y = np.array([1.0, 2.0, 4.0, 5.0])
    estimate = ratio(y * 10, np.full(4, 10.0))
    half = 3.182446305284263 * np.std(y, ddof=1) / 2  # Student's 0.975 quantile of 3 degrees of freedom
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((3.0, 3.0 - half, 3.0 + half))


def test_documents_without_tokens_do_not_count_and_one_has_no_interval() -> None:
    y, x = np.array([3.0, 0.0, 5.0, 0.0]), np.array([2.0, 0.0, 2.0, 0.0])
    padded, plain = ratio(y, x), ratio(y[::2], x[::2])
    assert [float(part) for part in padded] == [float(part) for part in plain]
    alone = ratio(y[:1], x[:1])
    assert float(alone.value) == 1.5 and np.isnan(alone.low) and np.isnan(alone.high)
