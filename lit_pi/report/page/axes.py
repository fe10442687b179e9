"""Axes that several figures of the page have."""

import math
from collections.abc import Sequence
from typing import Any

HEIGHT = 380
"""Pixels of a plot of lines with its axes."""


def layout(xaxis: dict[str, Any], yaxis: dict[str, Any], height: int = HEIGHT, right: int = 12) -> dict[str, Any]:
    """A layout for plotly; colours come from the page's template.

    Args:
        xaxis: the horizontal axis.
        yaxis: the vertical one.
        height: in pixels.
        right: pixels to the right of the axes.
    """
    return {
        "xaxis": xaxis, "yaxis": {"automargin": True} | yaxis, "height": height, "dragmode": False,
        "hovermode": "closest", "margin": {"l": 52, "r": right, "t": 22, "b": 52},
    }  # fmt: skip


def length_axis(lengths: Sequence[int], shift: float = 1.0) -> dict[str, Any]:
    """A logarithmic axis of context lengths with a tick at each.

    Args:
        lengths: in ascending order.
        shift: points stand beside their length, by this factor at most.
    """
    pad = math.log10(shift) + 0.05 * max(math.log10(lengths[-1] / lengths[0]), 0.3)
    return {
        "title": {"text": "context length (tokens)"}, "type": "log", "tickvals": list(lengths),
        "ticktext": [f"{length:,}" for length in lengths],
        "range": [math.log10(lengths[0]) - pad, math.log10(lengths[-1]) + pad],
    }  # fmt: skip


def original_context(tokens: int) -> dict[str, Any]:
    """Parts of a layout that mark the context length of pre-training on a logarithmic axis."""
    line = {
        "type": "line", "x0": tokens, "x1": tokens, "y0": 0, "y1": 1, "yref": "paper",
        "line": {"dash": "dot", "width": 1},
    }  # fmt: skip
    said = {
        "x": math.log10(tokens), "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False,
        "text": f"original context, {tokens:,}", "font": {"size": 11},
    }  # fmt: skip
    return {"shapes": [line], "annotations": [said]}
