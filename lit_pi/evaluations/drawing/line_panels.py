"""A panel of lines: intervals, ticks where points stand, marks across."""

from collections.abc import Sequence
from math import isfinite, log, log10

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from lit_pi.evaluations.drawing.pens import LABEL_POINTS, MARK, TICK_POINTS, Pens, finite, inches, plain, triangle
from lit_pi.evaluations.figures import Line, LinePanel

TICKS = 9
"""As many as a vertical axis has at most."""


def draw_lines(axes: Axes, panel: LinePanel, pens: Pens, width: float) -> None:
    """Draw a panel of lines.

    Args:
        axes: where to draw.
        panel: what to draw.
        pens: how labels look.
        width: inches that the axes are wide, roughly.
    """
    axes.set_xscale("log" if panel.log_x else "linear")
    axes.set_yscale("log" if panel.log_y else "linear")
    for line in panel.lines:
        _line(axes, line, pens)
    if panel.log_x and len({x for line in panel.lines for x in line.x}) == 1:
        # A logarithmic axis of one point has no width of its own.
        ends = [x for line in panel.lines for x in line.x] + [mark.at for mark in panel.marks if mark.axis == "x"]
        axes.set_xlim(min(ends) / 1.5, max(ends) * 1.5)
    for mark in panel.marks:
        across = axes.axvline if mark.axis == "x" else axes.axhline
        if mark.line:
            across(mark.at, color=pens.colours[mark.line], linestyle=":", linewidth=1)
        else:
            across(mark.at, color=MARK, linestyle=pens.dashes[mark.label], linewidth=1)
    for point in panel.points:
        axes.add_line(triangle([point.x], [point.y], pens.colours.get(point.line, MARK)))
    axes.set_xlabel(plain(panel.xlabel), fontsize=LABEL_POINTS)
    axes.set_ylabel(plain(panel.ylabel), fontsize=LABEL_POINTS)
    axes.set_title(plain(panel.title), fontsize=LABEL_POINTS)
    axes.tick_params(labelsize=TICK_POINTS)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.x_from is not None:
        axes.set_xlim(left=panel.x_from)
    _horizontal(axes, panel, width)
    _vertical(axes, panel)


def _line(axes: Axes, line: Line, pens: Pens) -> None:
    colour, y = pens.colours[line.label], finite(line.y)
    marker = pens.symbols[line.label] if line.dots else ""
    axes.plot(line.x, y, color=colour, marker=marker, markersize=4.5, linewidth=1.4)
    low, high = finite(line.low), finite(line.high)
    known = [
        (x, value, below, above)
        for x, value, below, above in zip(line.x, y, low, high, strict=False)
        if isfinite(below) and isfinite(above)
    ]
    if not known:
        return
    x, value, below, above = zip(*known, strict=True)
    if line.bars or len(known) == 1:
        # Rounding may put an end on the wrong side of its value, which matplotlib refuses.
        down = [max(0.0, one - other) for one, other in zip(value, below, strict=True)]
        up = [max(0.0, other - one) for one, other in zip(value, above, strict=True)]
        axes.errorbar(x, value, (down, up), fmt="none", ecolor=colour, elinewidth=1.2, capsize=3)
    else:
        axes.fill_between(x, below, above, color=colour, alpha=0.15, linewidth=0)


def _horizontal(axes: Axes, panel: LinePanel, width: float) -> None:
    places = sorted({float(x) for line in panel.lines if line.dots for x in line.x if x > 0})
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _written(value)))
    left, right = axes.get_xlim()
    if not panel.log_x:
        longest = max(len(_written(round(end))) for end in (left, right)) if right - left > 10 else 5
        axes.xaxis.set_major_locator(MaxNLocator(max(2, int(width / inches(longest + 3))), steps=[1, 2, 2.5, 5, 10]))
    elif 0 < len(places) <= 20:
        scale = width / log(right / left)
        axes.set_xticks(places, _apart(places, [scale * log(place / left) for place in places]))
        axes.xaxis.set_minor_locator(NullLocator())


def _apart(places: Sequence[float], at: Sequence[float]) -> list[str]:
    """Labels of places, the last one first, without those that would touch their neighbour.

    Args:
        places: in ascending order.
        at: where each stands, in inches.
    """
    labels, free = [], float("inf")
    for place, middle in zip(reversed(places), reversed(at), strict=True):
        half = inches(len(text := _written(place)) + 1) / 2
        labels.append(text if middle + half <= free else "")
        free = middle - half if labels[-1] else free
    return labels[::-1]


def _vertical(axes: Axes, panel: LinePanel) -> None:
    if panel.percent:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    elif panel.log_y:
        low, high = axes.get_ylim()
        if ticks := _round_values(low, high):
            axes.set_yticks(ticks)
            axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: _written(value) if value < 1e6 else f"{value:g}".replace("e+0", "e"))
        )
    else:
        axes.ticklabel_format(axis="y", useOffset=False)


def _round_values(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis, as many as there is room for; none where no choice gives two."""
    powers = range(int(log10(low)) - 1, int(log10(high)) + 2)
    choices = [
        [mantissa * 10.0**power for power in powers for mantissa in own]
        for own in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 3), (1,))
    ]
    choices += [[10.0**power for power in powers if power % step == 0] for step in (2, 3, 5, 10, 20, 50)]
    for choice in choices:
        ticks = [tick for tick in choice if low <= tick <= high]
        if len(ticks) <= TICKS:
            return ticks if len(ticks) > 1 else []
    return []


def _written(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.4g}"
