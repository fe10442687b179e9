"""The one store that every figure is derived from: a loss for each document, token and context length."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_pi.batches import IGNORE, Scheme, Span
from lit_pi.evaluations.perplexity.windows import WindowPlan


class Series(NamedTuple):
    """Losses that belong together: those of one context length (tokens), in windows that overlap or do not."""

    scheme: Scheme
    context_length: int

    def __str__(self) -> str:
        return f"{self.scheme}_{self.context_length}"


def series_of(plans: Iterable[WindowPlan]) -> list[Series]:
    """List the series in which windows of plans give each token a loss."""
    return [Series(plan.scheme, length) for plan in plans for length in plan.context_lengths]


class TokenLosses(NamedTuple):
    """Negative log-likelihoods of the tokens of documents.

    Attributes:
        offsets: where each document starts, and the end of the last (tokens).
        nll: for each series, nats of every token, one document after another; NaN where it was not scored, and
            infinite where the model's loss was not a number.
    """

    offsets: NDArray[np.int64]
    nll: dict[Series, NDArray[np.float32]]


class TokenScores(Metric):
    """Gathers what the windows of documents score, on any number of ranks, in any order and batches.

    Args:
        series: those that the updates' spans may have.
        tokens: tokens of each document.
    """

    full_state_update = False
    token_nll: list[Tensor]
    rows: list[Tensor]

    def __init__(self, series: Sequence[Series], tokens: Sequence[int]) -> None:
        super().__init__()
        self.series = tuple(series)
        self.offsets = np.concatenate(([0], np.cumsum(tokens, dtype=np.int64)))
        self.add_state("token_nll", [], dist_reduce_fx="cat")
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(
        self,
        spans: Sequence[Span],
        token_nll: Sequence[Float[Tensor, "batch span"]],
        targets: Int[Tensor, "batch scored"],
        scored: Int[Tensor, " scored"],
        documents: Int[Tensor, " batch"],
        begins: Int[Tensor, " batch"],
    ) -> None:
        """Add a batch; nothing waits for the device.

        Args:
            spans: whose scores `token_nll` holds.
            token_nll: for each span, nats.
            targets: tokens at the batch's scored positions, or `IGNORE`.
            scored: positions whose next token is scored; those of a span follow one another.
            documents: document of each row, -1 where it only fills up.
            begins: index in the document of what stands at each row's position 0.
        """
        for span, nll in zip(spans, token_nll, strict=True):
            counts = (targets[:, span.start : span.stop] != IGNORE).sum(dim=1)
            place = self.series.index(Series(span.scheme, span.context_length))
            first = begins + scored[span.start] + 1
            constants = (torch.full_like(first, value) for value in (place, span.stop - span.start))
            self.rows.append(torch.stack((documents, first, counts, *constants), dim=1))
            self.token_nll.append(nll.float().flatten())

    def compute(self) -> TokenLosses:
        """All that was scored, in a place of its own for every token."""
        token_nll = dim_zero_cat(self.token_nll).cpu().numpy()
        rows = dim_zero_cat(self.rows).cpu().numpy()
        losses = TokenLosses(
            self.offsets, {series: np.full(self.offsets[-1], np.nan, np.float32) for series in self.series}
        )
        arrays, read = list(losses.nll.values()), 0
        for document, first, count, place, width in rows.tolist():
            if document >= 0:
                start = int(self.offsets[document]) + first
                found = token_nll[read : read + count]
                arrays[place][start : start + count] = np.where(np.isnan(found), np.inf, found)
            read += width
        return losses
