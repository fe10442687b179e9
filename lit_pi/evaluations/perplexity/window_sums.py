"""Losses of tokens summed by windows, and by position in the document."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_pi.evaluations.perplexity.definitions import Floats, WindowSums, sum_by
from lit_pi.evaluations.perplexity.sampled.sampling import WindowSample
from lit_pi.evaluations.perplexity.token_scores import Series, TokenLosses
from lit_pi.evaluations.perplexity.windows import WindowPlan


class Bucket(NamedTuple):
    """Tokens at document positions `start` to `stop`, less one.

    Attributes:
        start: first position (tokens).
        stop: position after the last.
        token_nll: mean loss, in nats.
        tokens: tokens scored.
    """

    start: int
    stop: int
    token_nll: float
    tokens: int


def window_sums(
    losses: TokenLosses, plan: WindowPlan, context_length: int, common_from: int, token_bytes: Sequence[Floats] | None
) -> WindowSums:
    """Sum the losses of one series by the windows of its plan.

    Args:
        losses: losses of all series.
        plan: the plan of the windows.
        context_length: one of the plan's.
        common_from: document position from which tokens are common to all context lengths.
        token_bytes: bytes of each document's tokens, if known.
    """
    lengths = np.diff(losses.offsets)
    bounds = [plan.bounds(context_length, int(length)) for length in lengths]
    counts = np.array([len(found) - 1 for found in bounds])
    document = np.repeat(np.arange(len(lengths)), counts)
    number = np.concatenate([np.arange(count) for count in counts])
    start, stop = (np.concatenate([found[part] for found in bounds]) for part in (slice(-1), slice(1, None)))
    common_start = np.minimum(np.maximum(start, common_from), stop)
    tokens = stop - start
    values = losses.nll[Series(plan.scheme, context_length)]
    scored = ~np.isnan(values)
    nll = np.where(scored, values, np.float32(0))
    base = losses.offsets[document]
    run = _sums(scored, base + start, base + stop) == tokens
    totals = sum_by(document, tokens, len(lengths))
    return WindowSums(
        document=document,
        number=number,
        tokens=tokens.astype(np.float64),
        nll=_sums(nll, base + start, base + stop),
        common_tokens=(stop - common_start).astype(np.float64),
        common_nll=_sums(nll, base + common_start, base + stop),
        document_tokens=totals[document],
        bytes=None if token_bytes is None else np.concatenate(
            [_sums(found, bound[:-1], bound[1:]) for found, bound in zip(token_bytes, bounds, strict=True)]
        ),
        run=run,
    )  # fmt: skip


def by_position(
    losses: TokenLosses, series: Series, windows: WindowSums, weights: Floats, expected: NDArray[np.float32] | None
) -> list[Bucket]:
    """Mean loss by position in the document, in buckets that grow by a factor of the square root of 2.

    Args:
        losses: losses of all series.
        series: whose losses to average.
        windows: windows of that series.
        weights: how many windows each stands for.
        expected: nats of each token, from which those of windows that were run differ, if known.
    """
    lengths = np.diff(losses.offsets)
    edges = position_edges(int(lengths.max()))
    position = np.concatenate([np.arange(length) for length in lengths])
    bucket = np.searchsorted(edges, position, side="right") - 1
    weight = np.zeros(len(position))
    # The tokens that no window scores are each document's first ones.
    unscored = (lengths - sum_by(windows.document, windows.tokens, len(lengths))).astype(np.int64)
    held = position >= np.repeat(unscored, lengths)
    weight[held] = np.repeat(weights, windows.tokens.astype(np.int64))
    values, size = losses.nll[series], len(edges) - 1
    scored = ~np.isnan(values) & (weight > 0)

    def sums(of: NDArray[np.bool_], amounts: NDArray | None = None) -> NDArray:
        return np.bincount(bucket[of], None if amounts is None else amounts[of], size)

    counts, weighed = sums(scored), sums(scored, weight)
    totals = sums(scored, weight * values)
    if expected is not None:
        totals, weighed = sums(scored, weight * (values - expected)) + sums(held, expected), sums(held)
    return [
        Bucket(int(edges[place]), int(edges[place + 1]), float(totals[place] / weighed[place]), int(counts[place]))
        for place in np.flatnonzero(counts)
    ]


def weights_of(windows: WindowSums, sample: WindowSample | None) -> Floats:
    """How many windows each stands for."""
    drawn = 1.0 if sample is None else sample.weights(windows.document, windows.number)
    return np.asarray(windows.run * drawn, np.float64)


def position_edges(longest: int) -> NDArray[np.int64]:
    """Where buckets of positions begin, and the end of the last, `longest`; they grow by the square root of 2."""
    powers = np.round(2 ** (np.arange(2 * int(np.ceil(np.log2(longest + 1))) + 1) / 2)).astype(np.int64)
    return np.unique(np.concatenate(([0], powers[powers < longest], [longest])))


def _sums(values: NDArray, start: NDArray[np.int64], stop: NDArray[np.int64]) -> Floats:
    """Sums of `values[start:stop]`, of slices in ascending order that do not overlap, in float64."""
    edges = np.stack((start, stop), axis=1).ravel()
    padded = np.append(values, values.dtype.type(0))
    found = np.add.reduceat(padded, edges, dtype=np.float64)[::2]
    return np.where(stop > start, found, 0.0)
