"""Colours and symbols by label, the same in all panels of a picture."""

from collections.abc import Sequence
from math import isfinite, nan
from typing import Literal

from matplotlib.lines import Line2D

from lit_pi.errors import printable
from lit_pi.evaluations.figures import LinePanel, Numbers, Picture

SYMBOLS = "os^Dvp*X"
DASHES: tuple[Literal["--", ":", "-."], ...] = ("--", ":", "-.")
TICK_POINTS, LABEL_POINTS, TITLE_POINTS = 8.5, 9.5, 11.5
"""Font sizes; legends are written as large as ticks, headings of panels as large as labels."""
MARK, MARK_ON_COLOURS = "0.4", "tab:red"
"""Colours of marks on white and on a map."""


class Pens:
    """The look of lines and marks, by label.

    Args:
        picture: whose panels they are for.

    Attributes:
        colours: colours of lines.
        symbols: at the points of lines.
        dashes: dashes of marks.
        legend: a sample for each label that is not empty: lines first, then points, then marks.
    """

    def __init__(self, picture: Picture) -> None:
        panels = [panel for panel in picture.panels if panel is not None]
        curves = [panel for panel in panels if isinstance(panel, LinePanel)]
        labels = list(dict.fromkeys(line.label for panel in curves for line in panel.lines))
        self.colours = {label: f"C{index % 10}" for index, label in enumerate(labels)}
        self.symbols = {label: SYMBOLS[index % len(SYMBOLS)] for index, label in enumerate(labels)}
        marks = dict.fromkeys(mark.label for panel in panels for mark in panel.marks if not mark.line)
        self.dashes = {label: DASHES[index % len(DASHES)] for index, label in enumerate(marks)}
        dotted = {line.label for panel in curves for line in panel.lines if line.dots}
        self.legend = {
            label: Line2D([], [], color=colour, marker=self.symbols[label] if label in dotted else "", markersize=4.5)
            for label, colour in self.colours.items()
        }
        for label in dict.fromkeys(point.label for panel in curves for point in panel.points):
            self.legend.setdefault(label, triangle([], [], "0.6"))
        for label, dash in self.dashes.items():
            colour = MARK if curves else MARK_ON_COLOURS
            self.legend.setdefault(label, Line2D([], [], color=colour, linestyle=dash, linewidth=1))
        self.legend.pop("", None)


def triangle(x: Sequence[float], y: Sequence[float], colour: str) -> Line2D:
    """Large triangles that point at places."""
    return Line2D(x, y, color=colour, marker="v", markersize=10, markeredgecolor="black", linestyle="none", zorder=4)


def finite(values: Numbers) -> list[float]:
    """Values with NaN, which leaves a gap, for all that cannot be drawn."""
    return [nan if value is None or not isfinite(value) else float(value) for value in values]


def plain(text: str) -> str:
    """A text of anyone on one line, with its dollars as they are, between which matplotlib would set a formula."""
    return printable(text).replace("$", r"\$")


def inches(letters: float, points: float = TICK_POINTS) -> float:
    """How wide so many letters are, roughly."""
    return letters * 0.6 * points / 72
