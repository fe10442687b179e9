"""A map: values as colours, and as numbers where they can be read."""

from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from lit_pi.evaluations.drawing.pens import LABEL_POINTS, MARK_ON_COLOURS, TICK_POINTS, Pens, finite, inches, plain
from lit_pi.evaluations.figures import MapPanel

NUMBER_POINTS = 7
ROW, LEAST_HEIGHT, MOST_HEIGHT = 0.24, 1.6, 7.0
LEAST_ROW = 0.15
LEAST_WIDTH, MOST_WIDTH = 2.6, 11.0
"""Inches of a map without its labels, and of its cells; a number needs a cell as high as `LEAST_ROW`."""
SCALE = 0.2
"""Inches across the colour scale."""
AROUND = (1.9, 1.0)
"""Inches that labels and the colour scale take, across and down."""


def map_size(panel: MapPanel) -> tuple[float, float]:
    """Inches across and down that a map takes with its labels."""
    width, height = _inner(panel)
    return width + AROUND[0], height + AROUND[1]


def draw_map(axes: Axes, panel: MapPanel, pens: Pens) -> None:
    """Draw a map with its colour scale.

    Args:
        axes: where to draw.
        panel: what to draw.
        pens: how labels look.
    """
    values = np.array([finite(row) for row in panel.values])
    low, high = _limits(panel, values)
    image = axes.imshow(values, vmin=low, vmax=high, cmap="RdBu" if panel.difference else "viridis", aspect="auto")
    axes.set_facecolor("0.9")
    width, height = _inner(panel)
    cell_width, cell_height = width / len(panel.columns), height / len(panel.rows)
    numbers = {place: _number(value, panel) for place, value in np.ndenumerate(values) if not np.isnan(value)}
    longest = max(map(len, numbers.values()), default=0)
    if cell_height >= LEAST_ROW and cell_width >= inches(longest, NUMBER_POINTS):
        light = image.to_rgba(values)[..., :3] @ np.array([0.299, 0.587, 0.114])
        for (row, column), text in numbers.items():
            ink = "black" if light[row, column] > 0.5 else "white"
            axes.text(column, row, text, ha="center", va="center", fontsize=NUMBER_POINTS, color=ink, in_layout=False)
    for mark in panel.marks:
        across = axes.axvline if mark.axis == "x" else axes.axhline
        across(
            mark.at, color=MARK_ON_COLOURS, linestyle=pens.dashes[mark.label], linewidth=1.5, zorder=3, clip_on=False
        )
    columns = range(len(panel.columns))[:: ceil(inches(1 + max(map(len, panel.columns))) / cell_width)]
    axes.set_xticks(columns, [plain(panel.columns[column]) for column in columns])
    rows = range(len(panel.rows))[:: ceil(LEAST_ROW / cell_height)]
    axes.set_yticks(rows, [plain(panel.rows[row]) for row in rows])
    axes.tick_params(labelsize=TICK_POINTS)
    axes.set_xlabel(plain(panel.xlabel), fontsize=LABEL_POINTS)
    axes.set_ylabel(plain(panel.ylabel), fontsize=LABEL_POINTS)
    axes.set_title(plain(panel.title), fontsize=LABEL_POINTS)
    scale = axes.figure.colorbar(
        image, ax=axes, format=PercentFormatter(1.0, 0, symbol="") if panel.percent else None,
        fraction=SCALE / width, pad=SCALE / 2 / width, aspect=height / SCALE,
    )  # fmt: skip
    scale.set_label(plain(panel.scale), fontsize=LABEL_POINTS)
    scale.ax.tick_params(labelsize=TICK_POINTS)


def _inner(panel: MapPanel) -> tuple[float, float]:
    """Inches across and down of a map without its labels."""
    column = max(0.5, inches(1.5 + max(map(len, panel.columns))))
    width = min(max(LEAST_WIDTH, column * len(panel.columns)), MOST_WIDTH)
    return width, min(max(LEAST_HEIGHT, ROW * len(panel.rows)), MOST_HEIGHT)


def _limits(panel: MapPanel, values: NDArray[np.float64]) -> tuple[float, float]:
    known = values[~np.isnan(values)] if not np.isnan(values).all() else np.zeros(1)
    low, high = float(known.min()), float(known.max())
    if panel.difference:
        low, high = -max(-low, high), max(-low, high)
    return low if panel.low is None else panel.low, high if panel.high is None else panel.high


def _number(value: float, panel: MapPanel) -> str:
    shown = f"{100 * value:.0f}" if panel.percent else f"{value:.3g}"
    if not panel.difference or float(shown) == 0:
        return shown.removeprefix("-") if float(shown) == 0 else shown
    return shown if value < 0 else f"+{shown}"
