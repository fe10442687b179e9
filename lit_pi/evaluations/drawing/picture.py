"""A whole picture: the places of its panels, its title and its legend."""

import textwrap
from math import ceil

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lit_pi.evaluations.drawing.line_panels import draw_lines
from lit_pi.evaluations.drawing.map_panels import draw_map, map_size
from lit_pi.evaluations.drawing.pens import LABEL_POINTS, TICK_POINTS, TITLE_POINTS, Pens, inches, plain
from lit_pi.evaluations.figures import LinePanel, MapPanel, Picture

ALONE, BESIDE_OTHERS = (6.4, 3.6), (4.8, 3.0)
"""Inches across and down of a panel of lines with its labels."""
AXIS_LABELS = 0.9
"""Inches that the labels of a vertical axis take."""
LEGEND_COLUMNS = 5
PAD = 0.07
"""Inches around a panel with its labels."""


def drawn(picture: Picture) -> Figure:
    """Draw a picture, which grows with its panels, its title and its legend, so that none is cut off."""
    columns = max(1, min(picture.columns, len(picture.panels)))
    sizes = [_size(panel, len(picture.panels)) for panel in picture.panels]
    widths = [max(width for width, _ in sizes[column::columns]) for column in range(columns)]
    heights = [max(height for _, height in sizes[row : row + columns]) for row in range(0, len(sizes), columns)]
    figure = Figure((sum(widths), sum(heights)), dpi=120, layout=ConstrainedLayoutEngine(h_pad=PAD, w_pad=PAD))
    grid = figure.add_gridspec(len(heights), columns, width_ratios=widths, height_ratios=heights)
    pens = Pens(picture)
    for place, panel in enumerate(picture.panels):
        if isinstance(panel, LinePanel):
            draw_lines(figure.add_subplot(grid[divmod(place, columns)]), panel, pens, sizes[place][0] - AXIS_LABELS)
        elif isinstance(panel, MapPanel):
            draw_map(figure.add_subplot(grid[divmod(place, columns)]), panel, pens)
    _title(figure, picture.title)
    _legend(figure, pens, picture.legend)
    return figure


def _size(panel: LinePanel | MapPanel | None, panels: int) -> tuple[float, float]:
    if isinstance(panel, MapPanel):
        return map_size(panel)
    return (ALONE if panels == 1 else BESIDE_OTHERS) if panel else (1.0, 1.0)


def _title(figure: Figure, title: str) -> None:
    if title:
        lines = _wrapped(title, figure.get_figwidth(), TITLE_POINTS)
        figure.suptitle(lines, fontsize=TITLE_POINTS)
        figure.set_figheight(figure.get_figheight() + (1 + lines.count("\n")) * 1.3 * TITLE_POINTS / 72)


def _legend(figure: Figure, pens: Pens, title: str) -> None:
    """Set the legend below all panels, in as many columns as the picture is wide enough for."""
    labels = [_wrapped(label, figure.get_figwidth() - 0.7, TICK_POINTS) for label in pens.legend]
    for most in range(min(len(labels), LEGEND_COLUMNS), 0, -1):
        columns = ceil(len(labels) / ceil(len(labels) / most))  # as even as their rows allow
        legend = figure.legend(
            list(pens.legend.values()), labels, ncols=columns, loc="outside lower center", frameon=False,
            fontsize=TICK_POINTS, title=plain(title), title_fontsize=LABEL_POINTS,
        )  # fmt: skip
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
            return
        legend.remove()


def _wrapped(text: str, width: float, points: float) -> str:
    """A text in lines that a width in inches holds."""
    return "\n".join(map(plain, textwrap.wrap(text, max(10, int(width / inches(1, points))))))
