"""Every definition of perplexity out of one store of token losses, each with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lit_pi.evaluations.perplexity.definitions import DEFINITIONS, OF_BYTES, Definition, Floats, WindowSums, sum_by
from lit_pi.evaluations.perplexity.sampled.control import expected_losses
from lit_pi.evaluations.perplexity.sampled.sampling import Totals, WindowSample
from lit_pi.evaluations.perplexity.token_scores import Series, TokenLosses
from lit_pi.evaluations.perplexity.window_sums import Bucket, by_position, weights_of, window_sums
from lit_pi.evaluations.perplexity.windows import WindowPlan
from lit_pi.evaluations.statistics.block_intervals import sampling_error
from lit_pi.evaluations.statistics.document_intervals import ratio, ratio_difference
from lit_pi.evaluations.statistics.uncertainty import Uncertainty, uncertainty

FEWEST_UNSEEN = 300
"""A model may fail on one window in a hundred, and of so many drawn ones none is such a window in 1 of 20 draws."""


@dataclass(frozen=True)
class Point(Uncertainty):
    """A figure at one context length.

    Attributes:
        context_length: positions of a window, in tokens.
        value: the figure.
        documents: that take part.
    """

    context_length: int
    value: float
    documents: int


@dataclass(frozen=True)
class CurvePoint(Uncertainty):
    """Perplexity at one context length by the definition that the result names, whose intervals are its own.

    Attributes:
        context_length: positions of a window, in tokens.
        perplexity: exponential of `token_nll`.
        token_nll: mean negative log-likelihood of a token (of a byte, in a byte perplexity), in nats.
        tokens: tokens scored.
    """

    context_length: int
    perplexity: float
    token_nll: float
    tokens: int


@dataclass(frozen=True)
class ContextGain(Uncertainty):
    """The loss that a longer context length saves on the same tokens.

    Attributes:
        context_length: the longer one, in tokens.
        shortest: the one it is compared with.
        gain: nats a token by which the loss is lower.
    """

    context_length: int
    shortest: int
    gain: float


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
        definition: the one of the curve.
        curve: perplexity by that definition.
        definitions: every definition's figures.
        context_gain: gains of the longer context lengths.
        positions: loss by position in the document, by context length.
        totals: what the figures are made of.
        unsettled: the reason why the windows that were drawn may not stand for all, if there is one.
    """

    definition: str
    curve: list[CurvePoint]
    definitions: dict[str, list[Point]]
    context_gain: list[ContextGain]
    positions: dict[int, list[Bucket]]
    totals: list[SeriesTotals]
    unsettled: str | None

    def record(self) -> dict[str, Any]:
        """Return all figures as plain JSON."""
        return {
            "definition": self.definition,
            "sampling_unsettled": self.unsettled,
            "curve": [asdict(point) for point in self.curve],
            "definitions": {key: [asdict(point) for point in points] for key, points in self.definitions.items()},
            "context_gain": [asdict(gain) for gain in self.context_gain],
            "positions": [
                {"context_length": length, "buckets": [bucket._asdict() for bucket in buckets]}
                for length, buckets in self.positions.items()
            ],
        }

    def scalars(self) -> dict[str, float]:
        """Return `perplexity/LENGTH` (of the curve's definition), `DEFINITION/LENGTH` and `context_gain/LENGTH`."""
        found = {f"perplexity/{point.context_length}": point.perplexity for point in self.curve}
        for key, points in self.definitions.items():
            if key != self.definition:
                found |= {f"{key}/{point.context_length}": point.value for point in points}
        return found | {f"context_gain/{gain.context_length}": gain.gain for gain in self.context_gain}


def measure(
    losses: TokenLosses,
    plans: Sequence[WindowPlan],
    sample: WindowSample | None = None,
    token_bytes: Sequence[Floats] | None = None,
    definition: str = "token_weighted",
) -> Perplexities:
    """Derive every figure; context lengths of which no window was run are left out.

    Where windows were drawn, and disjoint ones scored beside them, figures are estimated from the differences of both.

    Args:
        losses: losses of the tokens of all documents.
        plans: the sliding windows, and others that were scored beside them.
        sample: which sliding windows were to be run; all where there is none.
        token_bytes: UTF-8 bytes of each document's tokens, if known.
        definition: that of the curve.
    """
    sliding = plans[0]
    common_from = sliding.context_lengths[-1] - sliding.stride
    totals, positions, unseen = [], {}, False
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
                    unseen = unseen or by_token is None
                documents = len(losses.offsets) - 1
                totals.append(_series_totals(series, windows, whole, expected, documents, definition))
                if plan is sliding:
                    positions[length] = by_position(losses, series, windows, weights_of(windows, whole), by_token)
        found = _perplexities(definition, totals)
        unsettled = _unsettled(found.curve, sample if unseen else None)
        return found._replace(context_gain=_gains(totals), positions=positions, unsettled=unsettled)


def measure_windows(windows: Mapping[int, WindowSums], documents: int, definition: str) -> Perplexities:
    """Derive every figure that whole windows tell; a token may be scored by several of them.

    Args:
        windows: those that were run, by context length.
        documents: how many there are.
        definition: that of the curve.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return _perplexities(
            definition,
            [
                _series_totals(Series("sliding", length), sums, None, sums, documents, definition)
                for length, sums in windows.items()
            ],
        )


def _perplexities(definition: str, totals: list[SeriesTotals]) -> Perplexities:
    points = {name: points for name in DEFINITIONS if (points := _points(name, totals))}
    curve = _curve(definition, points.get(definition, []), totals)
    return Perplexities(definition, curve, points, [], {}, totals, None)


def _unsettled(curve: Sequence[CurvePoint], unseen: WindowSample | None) -> str | None:
    """Say why windows may not stand for all; `unseen` are those whose tokens no disjoint windows have scored."""
    if unseen is not None and unseen.num_windows < FEWEST_UNSEEN:
        return (
            f"{unseen.num_windows} windows were drawn, fewer than {FEWEST_UNSEEN}, and no disjoint windows tell of the "
            "others"
        )
    reasons = {point.context_length: point.sampling_unsettled for point in curve}
    return "; ".join(f"at {length:,} tokens {reason}" for length, reason in reasons.items() if reason) or None


def _whole(windows: WindowSums, sample: WindowSample) -> bool:
    return bool((windows.run == sample.includes(windows.document, windows.number)).all())


def _series_totals(
    series: Series,
    windows: WindowSums,
    sample: WindowSample | None,
    expected: WindowSums,
    documents: int,
    asked: str,
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
            if definition.scheme == series.scheme
            and (name == asked or not definition.asked)
            and not (name in OF_BYTES and windows.bytes is None)
        },
    )


def _totals(
    definition: Definition, windows: WindowSums, sample: WindowSample | None, expected: WindowSums, documents: int
) -> Totals:
    y, x = definition.contribution(windows)
    if sample is None:
        y, x = (sum_by(windows.document, np.where(windows.run, values, 0.0), documents) for values in (y, x))
        return Totals(y, x, np.empty(0))
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
    points, shown = [], partial(_shown, definition=DEFINITIONS[name])
    for entry in totals:
        if (sums := entry.definitions.get(name)) is None or not sums.x.any():
            continue
        figure = ratio(sums.y, sums.x).figure()
        found = uncertainty(figure, sampling_error(sums.errors), sums.x.sum(), shown)
        documents = int((sums.x > 0).sum())
        points.append(Point(entry.series.context_length, shown(figure.value), documents, **asdict(found)))
    return points


def _curve(definition: str, points: Sequence[Point], totals: Sequence[SeriesTotals]) -> list[CurvePoint]:
    curve = []
    for point in points:
        (entry,) = (each for each in totals if each.series == Series("sliding", point.context_length))
        sums = entry.definitions[definition]
        fields = asdict(point)
        del fields["value"], fields["documents"]
        mean = float(sums.y.sum() / sums.x.sum())
        token_nll = mean if DEFINITIONS[definition].exponential else float(np.log(mean))
        curve.append(CurvePoint(perplexity=point.value, token_nll=token_nll, tokens=int(entry.tokens.sum()), **fields))
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
            figure = ratio_difference(base.y, sums.y, sums.x).figure()
            found = uncertainty(figure, sampling_error(base.errors - sums.errors), sums.x.sum())
            gains.append(ContextGain(length, shortest, figure.value, **asdict(found)))
    return gains


def _shown(value: float, definition: Definition) -> float:
    return float(np.exp(value)) if definition.exponential else value
