"""Elements of the page: sections, tables, and figures that plotly draws."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lit_pi.evaluations.tables import in_html
from lit_pi.report.page.series import SYMBOLS, Shown


class Plot(NamedTuple):
    """One pair of axes.

    Attributes:
        title: a heading above it, of anyone; empty for none.
        alt: what it shows, for who does not see it.
        traces: its traces, as plotly takes them; `legendgroup` is the place of an entry.
        layout: its layout, as plotly takes it, with its height.
    """

    title: str
    alt: str
    traces: Sequence[dict[str, Any]]
    layout: dict[str, Any]


def section(title: str, *parts: str) -> str:
    """A section with its heading; nothing where there is nothing in it."""
    inner = "\n".join(filter(None, parts))
    return f"<section>\n<h2>{in_html(title)}</h2>\n{inner}\n</section>" if inner else ""


def note(text: str) -> str:
    """A small sentence below a table or a figure."""
    return f'<p class="note">{in_html(text)}</p>'


def table(caption: str, head: str, rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls where a screen is narrow.

    Args:
        caption: the text above it.
        head: its header, rows of HTML.
        rows: cells of HTML; the first of each row names it.
    """
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    said = in_html(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{said}"><table>'
        f"<caption><span>{said}</span></caption>\n<thead>{head}</thead>\n<tbody>{body}</tbody></table></div>"
    )


def header(names: Sequence[str]) -> str:
    """One row of names of columns."""
    return "<tr>" + "".join(f'<th scope="col">{in_html(name)}</th>' for name in names) + "</tr>"


def sample(each: Shown) -> str:
    """A sample of an entry's line and symbol."""
    line = "solid" if each.tuned else "dashed"
    return (
        f'<span class="sample" style="color:{each.colour};--line:{line}" aria-hidden="true">'
        f"<span>{SYMBOLS[each.symbol]}</span></span>"
    )


def legend(series: Mapping[int, Shown]) -> str:
    """Buttons that show and hide entries, which are given by place, in the figure around them."""
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-entry="{place}">{sample(each)}{in_html(each.name)}</button>'
        for place, each in sorted(series.items(), key=lambda pair: pair[0])
    )
    return f'<div class="legend" role="group" aria-label="show or hide">{buttons}</div>'


def figure(plots: Sequence[Plot], caption: str, above: str = "", small: bool = False) -> str:
    """Plots beside and below one another, as many in a row as there is room for.

    Args:
        plots: what is drawn; without any there is no figure.
        caption: a sentence below them.
        above: HTML above them, as a legend.
        small: whether three of them have room on a wide screen, instead of two.
    """
    if not plots:
        return ""
    drawn = "\n".join(map(_plot, plots))
    kind = "plots small" if small else "plots"
    return f'<figure>{above}<div class="{kind}">{drawn}</div><figcaption>{in_html(caption)}</figcaption></figure>'


def _plot(plot: Plot) -> str:
    spec = json.dumps({"data": plot.traces, "layout": plot.layout}, allow_nan=False)
    title = f"<h3>{in_html(plot.title)}</h3>" if plot.title else ""
    return (
        f'<div class="panel">{title}<div class="plot" role="img" aria-label="{in_html(plot.alt)}" '
        f'style="height:{plot.layout["height"]}px"><script type="application/json">{_inert(spec)}</script></div></div>'
    )


def _inert(script: str) -> str:
    """JSON in which no element of HTML begins or ends."""
    return script.replace("<", "\\u003c")


def drawable(values: Iterable[float | None]) -> list[float | None]:
    """Values with gaps for all that cannot be drawn, which JSON does not know either."""
    return [value if value is not None and math.isfinite(value) else None for value in values]
