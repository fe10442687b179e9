"""Sums that are as exact with a million tokens as with ten."""

import math

import pytest
import torch

from lit_pi.batches import IGNORE, Span
from lit_pi.evaluation.perplexity import PerplexitySums


def test_small_losses_count_beside_large_ones() -> None:
    sums = PerplexitySums((8,))
    token_nll = torch.ones(1, 102)
    token_nll[0, 0] = 2.0**24  # where float32 ends to tell n from n + 1
    targets = torch.zeros(1, 102, dtype=torch.long)
    for _ in range(3):
        sums.update((Span(8, 0, 102),), [token_nll], targets)
    (point,) = sums.compute()
    assert point.token_nll == (2.0**24 + 101) / 102
    assert point.perplexity == math.inf


def test_spans_count_apart_and_only_what_is_scored() -> None:
    sums = PerplexitySums((4, 8, 16)).bfloat16()
    targets = torch.tensor([[5, 5, IGNORE], [IGNORE, 5, 5]])
    token_nll = [torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[2.0, 0.0], [3.0, 4.0]])]
    sums.update((Span(4, 0, 2), Span(16, 1, 3)), token_nll, targets)
    points = {point.context_length: point for point in sums.compute()}
    assert points.keys() == {4, 16}
    assert (points[4].token_nll, points[4].tokens) == (2.0, 3)
    assert points[16].perplexity == pytest.approx(math.exp(3))
