"""What tokens are expected to lose in overlapping windows, judged from windows that do not overlap (control variate).

A pass over disjoint windows is cheap and scores every token. Windows that are drawn then need to say only by how much
they differ from it. The draw has no part in it, so estimates stay unbiased whatever it says.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_pi.evaluation.token_scores import Series, TokenLosses
from lit_pi.evaluation.window_sums import position_edges
from lit_pi.evaluation.windows import WindowPlan

TOLERANCE = 0.05
"""Nats by which typical losses may differ and still be alike: more differ where a model fails at long contexts."""


class Apart(NamedTuple):
    """A pass over the disjoint windows of one context length.

    Attributes:
        context_length: positions of a window (tokens).
        nll: nats of each token.
        places: how many tokens its window scores before each.
        typical: mean nats of the tokens at about the same place in their windows, for each token.
        full: mean nats of those at the windows' last `stride` places: overlapping windows give all tokens as much
            context.
    """

    context_length: int
    nll: NDArray[np.float32]
    places: NDArray[np.int64]
    typical: NDArray[np.float32]
    full: float


def expected_losses(losses: TokenLosses, plan: WindowPlan) -> TokenLosses:
    """Nats that each token is expected to lose in the windows of a plan; NaN where they are not known.

    Of the disjoint windows that hold a token, whatever their context length, that one is asked which gives it the most
    similar context, unless tokens at its place typically lose more or less than similar context would have them lose.
    What they typically lack is added.

    Args:
        losses: have the series of `plan.disjoint()`.
        plan: of overlapping windows.
    """
    apart = [_apart(losses, disjoint, plan.stride) for disjoint in plan.disjoint()]
    return TokenLosses(
        losses.offsets, {Series(plan.scheme, own.context_length): _expected(own, apart, plan.stride) for own in apart}
    )


def _expected(own: Apart, apart: list[Apart], stride: int) -> NDArray[np.float32]:
    expected = np.full(len(own.nll), np.nan, np.float32)
    nearest = np.full(len(own.nll), np.inf)
    alike = np.abs(own.full - own.typical) + TOLERANCE
    for other in apart:
        lacking = np.float32(own.full) - other.typical
        distance = np.abs(np.log((other.places + 1) / (own.context_length - stride / 2)))
        nearer = (distance < nearest) & np.isfinite(other.nll) & ~(np.abs(lacking) > alike)
        np.copyto(nearest, distance, where=nearer)
        np.copyto(expected, other.nll + lacking, where=nearer)
    return expected


def _apart(losses: TokenLosses, plan: WindowPlan, stride: int) -> Apart:
    (length,) = plan.context_lengths
    nll = losses.nll[Series(plan.scheme, length)]
    places = np.concatenate([_places(plan.bounds(length, tokens)) for tokens in np.diff(losses.offsets).tolist()])
    edges = position_edges(length)
    bucket = np.searchsorted(edges, places, side="right") - 1
    known = np.isfinite(nll)
    counts = np.bincount(bucket[known], minlength=len(edges))
    totals = np.bincount(bucket[known], nll[known], len(edges))
    means = np.divide(totals, counts, out=np.full(len(edges), np.nan), where=counts > 0)
    last = known & (places > places[known].max(initial=0) - stride)
    full = float(nll[last].mean()) if last.any() else np.nan
    return Apart(length, nll, places, means.astype(np.float32)[bucket], full)


def _places(bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each token, how many tokens its window scores before it."""
    unscored = np.zeros(bounds[0], np.int64)
    return np.concatenate((unscored, np.arange(bounds[0], bounds[-1]) - np.repeat(bounds[:-1], np.diff(bounds))))
