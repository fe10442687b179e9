"""Measures of summaries, by hand; means and intervals over documents, by simulation."""

import socket
from typing import Any, NoReturn

import nltk
import numpy as np
import pytest
import torch
from scipy.stats import t as student

from lit_pi.evaluations.statistics.document_intervals import cluster_mean
from lit_pi.evaluations.summaries.scores import SummaryMeasures, SummarySample, SummaryScores, means, measure


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError("nothing here needs the network, or data of nltk")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(nltk, "download", refuse)
    monkeypatch.setattr(nltk.data, "find", refuse)


def test_rouge_by_hand() -> None:
    """Of six words each five are shared, `cats` by its stem; of five pairs three; the longest common sequence is 5."""
    found = measure("The cats sat on a mat.", "the cat sat on the mat", "", 7, False)
    assert (found.rouge1, found.rouge2, found.rougeL) == pytest.approx((500 / 6, 60, 500 / 6))
    # Two of three words of the summary, of four of the reference; words in another order have no common sequence of 2.
    found = measure("beta alpha delta", "alpha beta gamma gamma", "", 3, False)
    assert (found.rouge1, found.rouge2, found.rougeL) == pytest.approx((100 * 4 / 7, 0, 100 * 2 / 7))
    same = measure("Line one.\nLine two.", "Line one.\nLine two.", "", 4, False)
    assert same[:3] == pytest.approx((100, 100, 100))


def test_repetition_copying_and_limits_by_hand() -> None:
    """Of the five 4-grams of the summary one is there before, and two are in the source."""
    found = measure("a b c d a b c d", "e", "X: A, b c d; y", 8, True)
    assert found == SummaryMeasures(0, 0, 0, tokens=8, capped=100, empty=0, repeated=pytest.approx(20), copied=40)
    assert measure("three words only", "e", "three words only", 3, False)[3:] == (3, 0, 0, 0, 0)
    assert measure(" \n…", "e", "source", 2, False)[3:] == (2, 0, 100, 0, 0)


def test_one_value_a_document_has_students_interval() -> None:
    values = [3.0, 5.0, 4.0, 8.0, 1.0]
    half = student.ppf(0.975, 4) * np.std(values, ddof=1) / np.sqrt(5)
    assert cluster_mean(values, "abcde")[:4] == pytest.approx((4.2, 4.2 - half, 4.2 + half, 5))
    # The same value of every seed tells no more than one.
    assert cluster_mean(values * 3, "abcde" * 3)[:4] == pytest.approx((4.2, 4.2 - half, 4.2 + half, 5))
    assert cluster_mean([1.0, 3.0], "aa") == (2.0, None, None, None, None)


def test_intervals_over_documents_cover_the_mean_95_of_100_times() -> None:
    """Of 50 documents with 1 to 4 summaries each, which agree within a document more than between documents."""
    chance, covered, naive = np.random.default_rng(0), 0, 0
    for _ in range(2000):
        sizes = chance.integers(1, 5, 50)
        clusters = np.repeat(np.arange(50), sizes)
        values = 30 + np.repeat(chance.normal(0, 4, 50), sizes) + chance.normal(0, 2, sizes.sum())
        _, low, high, *_ = cluster_mean(values.tolist(), clusters.tolist())
        covered += low <= 30 <= high
        _, low, high, *_ = cluster_mean(values.tolist(), range(len(values)))
        naive += low <= 30 <= high
    assert 0.93 <= covered / 2000 <= 0.97
    assert naive / 2000 < 0.9


def test_batches_and_their_order_do_not_matter() -> None:
    samples = [SummarySample(document, seed) for document in range(4) for seed in (3, 5)]
    all_measures = [SummaryMeasures(*(10.0 * index + place for place in range(8))) for index in range(8)]
    all_measures = [entry._replace(tokens=1 + index % 3) for index, entry in enumerate(all_measures)]
    tokens = torch.arange(24).reshape(8, 3) + 1
    tokens[torch.arange(3) >= torch.tensor([[entry.tokens] for entry in all_measures])] = 0
    found = []
    for order in ([range(8)], [(7, 2), (0,), (5, 1, 3)]):
        scores = SummaryScores(8, 3)
        scores.update(torch.empty(0, dtype=torch.long), [], tokens[:0])
        for rows in order:
            scores.update(torch.tensor(list(rows)), [all_measures[row] for row in rows], tokens[list(rows)])
        found.append(scores.compute())
    whole, some = found
    assert [summary.sample for summary in some] == [0, 1, 2, 3, 5, 7]
    assert some == [summary for summary in whole if summary.sample in (0, 1, 2, 3, 5, 7)]
    assert [summary.token_ids for summary in whole] == [[t for t in row if t] for row in tokens.tolist()]
    (rouge1, *_) = means(whole, samples)
    documents = [5.0, 25.0, 45.0, 65.0]
    assert rouge1[1:6] == pytest.approx(cluster_mean(documents, range(4))) and rouge1.measure == "rouge1"
    assert rouge1.seed_deviation == pytest.approx(np.std([30, 40], ddof=1))
    (rouge1, *_) = means(some[:1], samples)
    assert rouge1 == ("rouge1", 0.0, None, None, None, None, None) and means([], samples) == []
