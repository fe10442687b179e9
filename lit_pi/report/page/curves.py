"""Figures of perplexity: against context length, and loss by position."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from lit_pi.evaluations.perplexity.figures import LOGARITHMIC_FROM
from lit_pi.evaluations.tables import in_html
from lit_pi.report.page.axes import layout, length_axis, original_context
from lit_pi.report.page.elements import Plot, drawable
from lit_pi.report.page.series import Shown


class Point(NamedTuple):
    """A figure at one context length.

    Attributes:
        value: the figure; of several seeds, that of their mean loss.
        said: it and its interval, or those of all seeds, in words.
    """

    value: float
    said: str


def perplexities(records: Sequence[dict[str, Any]]) -> dict[int, Point]:
    """Perplexity by context length."""
    by_length: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        for point in record["curve"]:
            by_length.setdefault(point["context_length"], []).append(point)
    return {length: _point(points) for length, points in sorted(by_length.items())}


def _point(points: Sequence[dict[str, Any]]) -> Point:
    values = [point["perplexity"] for point in points]
    if len(values) > 1:
        mean = math.exp(fmean(map(math.log, values))) if all(0 < each < math.inf for each in values) else fmean(values)
        return Point(mean, f"{mean:.3f} (seeds: {', '.join(f'{each:.3f}' for each in values)})")
    ((low, high),) = ((point["low"], point["high"]) for point in points)
    ends = "" if low is None or high is None else f" (95 % interval {low:.3f} to {high:.3f})"
    return Point(values[0], f"{values[0]:.3f}{ends}")


def perplexity_plot(name: str, series: Mapping[int, Shown]) -> Plot:
    """Perplexity against context length.

    Args:
        name: the evaluation's name.
        series: entries that have it, by place.
    """
    curves = {place: perplexities(each.records[name]) for place, each in series.items()}
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "legendgroup": str(place), "showlegend": False,
            "x": list(curve), "y": drawable(point.value for point in curve.values()), "hoverinfo": "text",
            "hovertext": [
                f"<b>{in_html(series[place].name)}</b><br>{length:,} tokens<br>perplexity {point.said}"
                for length, point in curve.items()
            ],
            "line": {"color": series[place].colour, "dash": series[place].dash, "width": 2},
            "marker": {"symbol": series[place].symbol, "size": 8},
        }
        for place, curve in curves.items()
    ]  # fmt: skip
    lengths = sorted({length for curve in curves.values() for length in curve})
    known = [each.value for curve in curves.values() for each in curve.values() if math.isfinite(each.value)]
    logarithmic = bool(known) and min(known) > 0 and max(known) >= LOGARITHMIC_FROM * min(known)
    axis = {"title": {"text": "perplexity"}, "type": "log" if logarithmic else "linear"}
    alt = f"Perplexity of {name} against context length from {lengths[0]:,} to {lengths[-1]:,} tokens, a line a model"
    return Plot(
        name, alt, traces,
        layout(length_axis(lengths), axis | ({"dtick": "D2"} if logarithmic else {}))
        | original_context(_context(name, series)),
    )  # fmt: skip


def position_plot(name: str, series: Mapping[int, Shown]) -> Plot | None:
    """Loss against position in the document at the longest context length; None where no record holds it.

    Args:
        name: the evaluation's name.
        series: entries that have it, by place.
    """
    traces, longest = [], 0
    for place, each in series.items():
        positions = [entry for record in each.records[name] for entry in record["positions"]]
        if not positions:
            continue
        length = max(entry["context_length"] for entry in positions)
        longest = max(longest, length)
        losses: dict[tuple[int, int], list[float]] = {}
        for entry in positions:
            for bucket in entry["buckets"] if entry["context_length"] == length else ():
                losses.setdefault((bucket["start"], bucket["stop"]), []).append(bucket["token_nll"])
        traces.append({
            "type": "scatter", "mode": "lines", "legendgroup": str(place), "showlegend": False,
            # A bucket stands at its geometric middle, where positions count from 1.
            "x": [round(((start + 1) * stop) ** 0.5, 2) for start, stop in losses],
            "y": drawable(fmean(values) for values in losses.values()), "hoverinfo": "text",
            "hovertext": [
                f"<b>{in_html(each.name)}</b>, context {length:,} tokens<br>positions {start:,} to {stop - 1:,}<br>"
                f"{fmean(values):.4f} nats a token"
                for (start, stop), values in losses.items()
            ],
            "line": {"color": each.colour, "dash": each.dash, "width": 1.5},
        })  # fmt: skip
    if not traces:
        return None
    across = {"title": {"text": "position in the document (tokens)"}, "type": "log", "dtick": 1}
    title = f"{name}, context length {longest:,} tokens"
    alt = f"Mean loss of {name} in nats a token against position in the document, a line a model"
    return Plot(
        title, alt, traces,
        layout(across, {"title": {"text": "loss (nats a token)"}}) | original_context(_context(name, series)),
    )  # fmt: skip


def _context(name: str, series: Mapping[int, Shown]) -> int:
    return min(
        record["protocol"]["rope"]["original_context"] for each in series.values() for record in each.records[name]
    )
