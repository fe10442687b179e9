"""Figures as data: what a picture shows, apart from how it is drawn.

A curve with its interval takes three lines:

    line = Line("base", [2048, 4096], [0.9, 0.6], low=[0.8, 0.5], high=[0.95, 0.7])
    panel = LinePanel([line], xlabel="context length (tokens)", ylabel="keys found", log_x=True, percent=True)
    save(Picture("retrieval", [panel]), Path("figures"), "retrieval")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:  # matplotlib takes long to import, and most commands draw nothing
    from matplotlib.figure import Figure

Numbers = Sequence[float | None]
"""Values in order; None (and what is not finite) leaves a gap."""


class Line(NamedTuple):
    """A line through points, with an interval around each point that has one.

    Lines of one label have one colour in all panels of a picture, and one place in its legend.

    Attributes:
        label: what the legend calls it; empty for a line that the legend leaves out.
        x: where its points stand.
        y: a value for each point.
        low: the lower end of each point's interval; empty where there are none.
        high: the upper end of each.
        dots: whether a symbol stands at each point.
        bars: whether intervals are bars at the points; by default they are a band along the line.
    """

    label: str
    x: Sequence[float]
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    dots: bool = True
    bars: bool = False


class Mark(NamedTuple):
    """A straight line across a panel at one value of an axis, such as the original context.

    Attributes:
        at: the value; columns of a map count from 0, and 0.5 stands between the first two.
        label: what the legend calls it; empty for a mark that the legend leaves out.
        axis: the axis that has the value.
        line: the label of a line whose colour the mark takes; by default it has one of its own.
    """

    at: float
    label: str = ""
    axis: Literal["x", "y"] = "x"
    line: str = ""


class Point(NamedTuple):
    """A large triangle that points at a place.

    Attributes:
        x: its place along the horizontal axis.
        y: its place along the vertical axis.
        label: what the legend calls it, once for all points of one label; empty for none.
        line: the label of a line whose colour the point takes.
    """

    x: float
    y: float
    label: str = ""
    line: str = ""


class LinePanel(NamedTuple):
    """Lines over one pair of axes.

    Attributes:
        lines: what is shown.
        title: a heading above the panel.
        xlabel: the name and unit of the horizontal axis.
        ylabel: the name and unit of the vertical axis.
        log_x: whether the horizontal axis is logarithmic.
        log_y: whether the vertical axis is logarithmic.
        percent: whether values are shares from 0 to 1, to be read in per cent.
        x_from: where the horizontal axis begins; by default near the first point.
        marks: straight lines across the panel.
        points: single places to point at.
    """

    lines: Sequence[Line]
    title: str = ""
    xlabel: str = ""
    ylabel: str = ""
    log_x: bool = False
    log_y: bool = False
    percent: bool = False
    x_from: float | None = None
    marks: Sequence[Mark] = ()
    points: Sequence[Point] = ()


class MapPanel(NamedTuple):
    """A table of values as colours, with the number in each cell where it can be read.

    Attributes:
        values: a row of values for each row label; None leaves a cell empty.
        rows: the label of each row, from top to bottom.
        columns: the label of each column.
        title: a heading above the panel.
        xlabel: what columns are.
        ylabel: what rows are.
        scale: the name and unit of the colour scale.
        low: the least value of the colour scale; by default that of the values.
        high: its largest value; by default that of the values.
        difference: whether values are differences: numbers bear a sign, and zero is white.
        percent: whether values are shares of 1, to be read in per cent.
        marks: straight lines across the panel, between columns or rows.
    """

    values: Sequence[Numbers]
    rows: Sequence[str]
    columns: Sequence[str]
    title: str = ""
    xlabel: str = ""
    ylabel: str = ""
    scale: str = ""
    low: float | None = None
    high: float | None = None
    difference: bool = False
    percent: bool = False
    marks: Sequence[Mark] = ()


class Picture(NamedTuple):
    """Panels beside and below one another, with one legend below them all.

    Attributes:
        title: a heading above all panels; empty for none.
        panels: row by row; None leaves a place empty.
        columns: how many panels stand in a row.
        legend: a heading of the legend.
    """

    title: str
    panels: Sequence[LinePanel | MapPanel | None]
    columns: int = 1
    legend: str = ""


def draw(picture: Picture) -> Figure:
    """Draw a picture with matplotlib."""
    from lit_pi.evaluations.drawing.picture import drawn

    return drawn(picture)


def save(picture: Picture, folder: Path, name: str) -> list[Path]:
    """Draw a picture into `NAME.png` and `NAME.svg`, which are whole at any instant.

    Args:
        picture: what to draw.
        folder: where the files go; it is made if it is not there.
        name: their name without its ending.

    Returns:
        The two files, the PNG first.
    """
    from lit_pi.files import beside

    figure, paths = draw(picture), [folder / f"{name}.{ending}" for ending in ("png", "svg")]
    for path in paths:
        with beside(path) as partial:
            figure.savefig(partial, format=path.suffix[1:])
        figure.set_layout_engine("none")  # what is laid out once stays so
    return paths
