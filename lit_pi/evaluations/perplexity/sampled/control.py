"""Losses that are expected in overlapping windows, judged from windows that do not overlap (control variate).

A pass over disjoint windows is cheap and scores every token. Windows that are drawn then need to say only by how much
they differ from it. The draw has no part in it, so estimates stay unbiased whatever it says.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_pi.evaluations.perplexity.token_scores import Series, TokenLosses
from lit_pi.evaluations.perplexity.window_sums import position_edges
from lit_pi.evaluations.perplexity.windows import WindowPlan

TOLERANCE = 0.05
"""Nats by which typical losses may differ and still be alike: more differ where a model fails at long contexts."""


class Apart(NamedTuple):
    """A pass over the disjoint windows of one context length.

    Attributes:
        context_length: positions of a window (tokens).
        nll: nats of each token.
        places: how many tokens its window scores before each.
        typical: mean nats of the tokens at about the same place in their windows, for each token.
    """

    context_length: int
    nll: NDArray[np.float32]
    places: NDArray[np.int64]
    typical: NDArray[np.float32]

    def level(self, context_length: int, stride: int) -> float:
        """Mean nats in overlapping windows of a context length up to its own, of whose prefix the tokens are."""
        last = (self.places >= context_length - stride) & (self.places < context_length) & np.isfinite(self.nll)
        return float(self.nll[last].mean()) if last.any() else np.nan


def expected_losses(losses: TokenLosses, plan: WindowPlan, disjoint: Sequence[WindowPlan]) -> TokenLosses:
    """Nats that each token is expected to lose in the windows of a plan; NaN where they are not known.

    Of the disjoint windows that hold a token, whatever their context length, that one is asked which gives it the most
    similar context, unless tokens at its place typically lose more or less than similar context would have them lose.
    What they typically lack is added. The first tokens of longer windows stand for a context length without its own.

    Args:
        losses: have the series of the disjoint windows.
        plan: the plan of overlapping windows.
        disjoint: some of `plan.disjoint()`, the longest context length among them.
    """
    apart = [_apart(losses, each) for each in disjoint]
    return TokenLosses(
        losses.offsets,
        {Series(plan.scheme, length): _expected(length, apart, plan.stride) for length in plan.context_lengths},
    )


def _expected(length: int, apart: Sequence[Apart], stride: int) -> NDArray[np.float32]:
    own = min((each for each in apart if each.context_length >= length), key=lambda each: each.context_length)
    level = np.float32(own.level(length, stride))
    expected = np.full(len(own.nll), np.nan, np.float32)
    nearest = np.full(len(own.nll), np.inf)
    alike = np.abs(level - own.typical) + TOLERANCE
    for other in apart:
        lacking = level - other.typical
        distance = np.abs(np.log((other.places + 1) / (length - stride / 2)))
        nearer = (distance < nearest) & np.isfinite(other.nll) & ~(np.abs(lacking) > alike)
        np.copyto(nearest, distance, where=nearer)
        np.copyto(expected, other.nll + lacking, where=nearer)
    return expected


def _apart(losses: TokenLosses, plan: WindowPlan) -> Apart:
    (length,) = plan.context_lengths
    nll = losses.nll[Series(plan.scheme, length)]
    places = np.concatenate([_places(plan.bounds(length, tokens)) for tokens in np.diff(losses.offsets).tolist()])
    edges = position_edges(length)
    bucket = np.searchsorted(edges, places, side="right") - 1
    known = np.isfinite(nll)
    counts = np.bincount(bucket[known], minlength=len(edges))
    totals = np.bincount(bucket[known], nll[known], len(edges))
    means = np.divide(totals, counts, out=np.full(len(edges), np.nan), where=counts > 0)
    return Apart(length, nll, places, means.astype(np.float32)[bucket])


def _places(bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count, for each token, how many tokens its window scores before it."""
    unscored = np.zeros(bounds[0], np.int64)
    return np.concatenate((unscored, np.arange(bounds[0], bounds[-1]) - np.repeat(bounds[:-1], np.diff(bounds))))
