"""Perplexity of context lengths, summed so that any number of batches and ranks give the same figure."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from lit_pi.batches import IGNORE, Span


class CurvePoint(NamedTuple):
    """Perplexity at one context length.

    Attributes:
        context_length: positions of a window, in tokens.
        perplexity: exponential of `token_nll`.
        token_nll: mean negative log-likelihood of a token, in nats.
        tokens: tokens scored.
    """

    context_length: int
    perplexity: float
    token_nll: float
    tokens: int


class PerplexitySums(Metric):
    """Token-weighted perplexity: the mean is over all scored tokens of all documents alike.

    Args:
        context_lengths: those that the updates' spans may have.
    """

    full_state_update = False
    sum_nll: Float[Tensor, " context_lengths"]
    tokens: Int[Tensor, " context_lengths"]

    def __init__(self, context_lengths: tuple[int, ...]) -> None:
        super().__init__()
        self.context_lengths = context_lengths
        self.add_state("sum_nll", torch.zeros(len(context_lengths), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros(len(context_lengths), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        spans: tuple[Span, ...],
        token_nll: list[Float[Tensor, "batch span"]],
        targets: Int[Tensor, "batch scored"],
    ) -> None:
        """Add a batch.

        Args:
            spans: whose scores `token_nll` holds.
            token_nll: for each span, nats, 0 where nothing is scored.
            targets: tokens at the batch's scored positions, or `IGNORE`.
        """
        for span, nll in zip(spans, token_nll, strict=True):
            place = self.context_lengths.index(span.context_length)
            self.sum_nll[place] += nll.sum(dtype=torch.float64)
            self.tokens[place] += (targets[:, span.start : span.stop] != IGNORE).sum()

    def compute(self) -> list[CurvePoint]:
        """The curve, without context lengths of which no token was scored."""
        return [
            CurvePoint(length, math.exp(mean) if mean < 700 else math.inf, mean, tokens)
            for length, total, tokens in zip(
                self.context_lengths, self.sum_nll.tolist(), self.tokens.tolist(), strict=True
            )
            if tokens
            for mean in (total / tokens,)
        ]
