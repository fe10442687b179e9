"""Every definition of perplexity out of one store of token losses, each with its interval."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lit_pi.evaluations.perplexity.control import expected_losses
from lit_pi.evaluations.perplexity.definitions import DEFINITIONS, Definition, Floats, WindowSums, sum_by
from lit_pi.evaluations.perplexity.sampling import Totals, WindowSample
from lit_pi.evaluations.perplexity.token_scores import Series, TokenLosses
from lit_pi.evaluations.perplexity.window_sums import Bucket, by_position, weights_of, window_sums
from lit_pi.evaluations.perplexity.windows import WindowPlan
from lit_pi.evaluations.statistics.document_intervals import ratio, ratio_difference


class Point(NamedTuple):
    """A figure at one context length.

    Attributes:
        context_length: positions of a window, in tokens.
        value: the figure.
        low: lower end of its 95 % interval over documents, if there are two or more.
        high: upper end.
        sampling_low: lower end of the 95 % interval of what all windows would give, if some were drawn.
        sampling_high: upper end.
        documents: that take part.
    """

    context_length: int
    value: float
    low: float | None
    high: float | None
    sampling_low: float | None
    sampling_high: float | None
    documents: int


class CurvePoint(NamedTuple):
    """Token-weighted perplexity at one context length.

    Attributes:
        context_length: positions of a window, in tokens.
        perplexity: exponential of `token_nll`.
        token_nll: mean negative log-likelihood of a token, in nats.
        tokens: tokens scored.
        low: lower end of the perplexity's 95 % interval over documents, if there are two or more.
        high: upper end.
        sampling_low: lower end of the 95 % interval of what all windows would give, if some were drawn.
        sampling_high: upper end.
    """

    context_length: int
    perplexity: float
    token_nll: float
    tokens: int
    low: float | None = None
    high: float | None = None
    sampling_low: float | None = None
    sampling_high: float | None = None


class ContextGain(NamedTuple):
    """The loss that a longer context length saves on the same tokens.

    Attributes:
        context_length: the longer one, in tokens.
        shortest: the one it is compared with.
        gain: nats a token by which the loss is lower.
        low: lower end of its 95 % interval over documents, if there are two or more.
        high: upper end.
    """

    context_length: int
    shortest: int
    gain: float
    low: float | None
    high: float | None


class SeriesTotals(NamedTuple):
    """Sums over the documents of one series; arrays are `[documents]`.

    Attributes:
        series: context length and scheme.
        tokens: scored.
        nll: nats of them.
        bytes: UTF-8 bytes of them, or None where they are not known.
        definitions: numerators and denominators of every definition.
    """

    series: Series
    tokens: Floats
    nll: Floats
    bytes: Floats | None
    definitions: dict[str, Totals]


class Perplexities(NamedTuple):
    """All that one store of token losses says.

    Attributes:
        curve: token-weighted perplexity.
        definitions: every definition's figures.
        context_gain: gains of the longer context lengths.
        positions: loss by position in the document, by context length.
        totals: what the figures are made of.
    """

    curve: list[CurvePoint]
    definitions: dict[str, list[Point]]
    context_gain: list[ContextGain]
    positions: dict[int, list[Bucket]]
    totals: list[SeriesTotals]

    def record(self) -> dict[str, Any]:
        """Return all figures as plain JSON."""
        return {
            "definition": "token_weighted",
            "curve": [point._asdict() for point in self.curve],
            "definitions": {key: [point._asdict() for point in points] for key, points in self.definitions.items()},
            "context_gain": [gain._asdict() for gain in self.context_gain],
            "positions": [
                {"context_length": length, "buckets": [bucket._asdict() for bucket in buckets]}
                for length, buckets in self.positions.items()
            ],
        }

    def scalars(self) -> dict[str, float]:
        """Return `perplexity/LENGTH` (every token counts alike), `DEFINITION/LENGTH` and `context_gain/LENGTH`."""
        found = {f"perplexity/{point.context_length}": point.perplexity for point in self.curve}
        for key, points in self.definitions.items():
            if key != "token_weighted":
                found |= {f"{key}/{point.context_length}": point.value for point in points}
        return found | {f"context_gain/{gain.context_length}": gain.gain for gain in self.context_gain}


def measure(
    losses: TokenLosses,
    plans: Sequence[WindowPlan],
    sample: WindowSample | None = None,
    token_bytes: Sequence[Floats] | None = None,
) -> Perplexities:
    """Derive every figure; context lengths of which no window was run are left out.

    Where windows were drawn, and disjoint ones scored beside them, figures are estimated from the differences of both.

    Args:
        losses: losses of the tokens of all documents.
        plans: the sliding windows, and others that were scored beside them.
        sample: which sliding windows were to be run; all where there is none.
        token_bytes: UTF-8 bytes of each document's tokens, if known.
    """
    sliding = plans[0]
    common_from = sliding.context_lengths[-1] - sliding.stride
    totals, positions = [], {}
    # A model that has diverged has infinite losses, which have no interval.
    with np.errstate(invalid="ignore", over="ignore"):
        control = expected_losses(losses, sliding, plans[1:]) if sample is not None and len(plans) > 1 else None
        for plan in plans:
            drawn = sample if plan is sliding else None
            for length in plan.context_lengths:
                windows = window_sums(losses, plan, length, common_from, token_bytes)
                if not windows.run.any():
                    continue
                series = Series(plan.scheme, length)
                # Weights are of no use where a run was cut short.
                whole = drawn if drawn is not None and _whole(windows, drawn) else None
                by_token, expected = None, windows
                if whole is not None:
                    expected = _as_first_windows(windows)
                    if control is not None:
                        known = window_sums(control, plan, length, common_from, token_bytes)
                        if known.run.all():  # not so where the model has diverged
                            by_token, expected = control.nll[series], known
                totals.append(_series_totals(series, windows, whole, expected, len(losses.offsets) - 1))
                if plan is sliding:
                    positions[length] = by_position(losses, series, windows, weights_of(windows, whole), by_token)
        definitions = {name: points for name in DEFINITIONS if (points := [*_points(name, totals)])}
        return Perplexities(_curve(definitions, totals), definitions, _gains(totals), positions, totals)


def _whole(windows: WindowSums, sample: WindowSample) -> bool:
    return bool((windows.run == sample.includes(windows.document, windows.number)).all())


def _series_totals(
    series: Series, windows: WindowSums, sample: WindowSample | None, expected: WindowSums, documents: int
) -> SeriesTotals:
    def scored(values: Floats) -> Floats:
        return sum_by(windows.document, values * windows.run, documents)

    return SeriesTotals(
        series,
        scored(windows.tokens),
        scored(windows.nll),
        None if windows.bytes is None else scored(windows.bytes),
        {
            name: _totals(definition, windows, sample, expected, documents)
            for name, definition in DEFINITIONS.items()
            if definition.scheme == series.scheme and not (name == "bits_per_byte" and windows.bytes is None)
        },
    )


def _totals(
    definition: Definition, windows: WindowSums, sample: WindowSample | None, expected: WindowSums, documents: int
) -> Totals:
    y, x = definition.contribution(windows)
    if sample is None:
        y, x = (sum_by(windows.document, np.where(windows.run, values, 0.0), documents) for values in (y, x))
        return Totals(y, x, 0.0)
    return sample.totals(y, definition.contribution(expected)[0], x, windows.document, windows.number, documents)


def _as_first_windows(windows: WindowSums) -> WindowSums:
    """Windows whose tokens all lose what those of first windows do on average."""
    first = windows.number == 0
    mean = windows.nll[first].sum() / windows.tokens[first].sum()
    # Of first windows, those of the longest context length alone hold common tokens.
    common = windows.common_tokens[first].sum()
    common_mean = windows.common_nll[first].sum() / common if common else mean
    return windows._replace(nll=mean * windows.tokens, common_nll=common_mean * windows.common_tokens)


def _points(name: str, totals: Sequence[SeriesTotals]) -> list[Point]:
    points = []
    for entry in totals:
        if (sums := entry.definitions.get(name)) is None or not sums.x.any():
            continue
        estimate = ratio(sums.y, sums.x)
        value = float(estimate.value)
        half = sums.half_width or math.nan
        ends = (float(estimate.low), float(estimate.high), value - half, value + half)
        low, high, sampling_low, sampling_high = (_known(_shown(end, DEFINITIONS[name])) for end in ends)
        points.append(
            Point(
                context_length=entry.series.context_length,
                value=_shown(value, DEFINITIONS[name]),
                low=low,
                high=high,
                sampling_low=sampling_low,
                sampling_high=sampling_high,
                documents=int((sums.x > 0).sum()),
            )
        )
    return points


def _curve(definitions: dict[str, list[Point]], totals: Sequence[SeriesTotals]) -> list[CurvePoint]:
    sums = {entry.series: entry for entry in totals}
    curve = []
    for point in definitions["token_weighted"]:
        entry = sums[Series("sliding", point.context_length)]
        weighed = entry.definitions["token_weighted"]
        curve.append(
            CurvePoint(
                point.context_length,
                point.value,
                float(weighed.y.sum() / weighed.x.sum()),
                int(entry.tokens.sum()),
                point.low,
                point.high,
                point.sampling_low,
                point.sampling_high,
            )
        )
    return curve


def _gains(totals: Sequence[SeriesTotals]) -> list[ContextGain]:
    common = [
        (entry.series.context_length, sums)
        for entry in totals
        if (sums := entry.definitions.get("common_tokens")) is not None and sums.x.any()
    ]
    gains = []
    for length, sums in common[1:]:
        shortest, base = common[0]
        if (base.x == sums.x).all():  # not so where a run was cut short
            estimate = ratio_difference(base.y, sums.y, sums.x)
            value, low, high = (float(part) for part in estimate)
            gains.append(ContextGain(length, shortest, value, _known(low), _known(high)))
    return gains


def _shown(value: float, definition: Definition) -> float:
    return float(np.exp(value)) if definition.exponential else value


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
