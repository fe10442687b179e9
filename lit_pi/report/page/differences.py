"""The figure of paired differences from the first arm."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lit_pi.evaluations.tables import in_html
from lit_pi.report.analysis import Comparison
from lit_pi.report.page.axes import HEIGHT, layout, length_axis
from lit_pi.report.page.elements import Plot, header, note, table
from lit_pi.report.page.series import SYMBOLS, Shown

SPREAD = 0.36
"""Share of the step between two context lengths over which points at one length stand beside one another."""
LINE, LETTER, LONGEST = 15, 6.6, 17
"""Pixels of a label's line and of its letters, and letters that are written."""
WORDS = {"better": "better", "worse": "worse", "tied": "no difference is certain"}
"""Verdicts in words."""


def difference_plots(series: Sequence[Shown], found: Sequence[Comparison]) -> list[Plot]:
    """A plot for each evaluation and number of steps: models are compared after as many."""
    looks = {(each.entry.arm, each.entry.steps): each for each in series}
    panels: dict[tuple[str, int], dict[str, list[Comparison]]] = {}
    for each in found:
        panels.setdefault((each.evaluation, each.steps), {}).setdefault(each.arm, []).append(each)
    trained = any(each.entry.steps for each in series)
    plots = []
    for (evaluation, steps), arms in panels.items():
        when = "" if not trained else f", after {steps:,} steps" if steps else ", zero-shot"
        lines = [(looks[arm, steps], own) for arm, own in arms.items()]
        plots.append(_plot(f"{evaluation}{when}", series[0].entry.arm, lines))
    return plots


def difference_table(first: str, found: Sequence[Comparison]) -> str:
    """The figure in numbers, to be unfolded."""
    if not found:
        return ""
    head = header(["model", "evaluation", "steps", "context length (tokens)", "difference (nats a token)",
                   "95 % interval", "perplexity", "p (Holm)", "verdict"])  # fmt: skip
    rows = [
        [
            in_html(each.arm), in_html(each.evaluation), f"{each.steps:,}", f"{each.context_length:,}",
            f"{each.difference.value:+.4f}", _ends(each), f"{each.change:+.1%}", f"{each.p:.3g}", WORDS[each.verdict],
        ]
        for each in found
    ]  # fmt: skip
    few = [f"{each.arm}, {each.context_length:,}: {why}" for each in found if (why := each.difference.unsettled)]
    said = f"Intervals are right only if losses spread alike in all documents, where few carry them: {'; '.join(few)}"
    inner = table(f"Loss less that of {first}, on the same tokens", head, rows) + (note(said) if few else "")
    return f"<details><summary>The same in numbers</summary>{inner}</details>"


def _ends(each: Comparison) -> str:
    low, high = each.difference.low, each.difference.high
    return "none" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"


def _plot(title: str, first: str, lines: Sequence[tuple[Shown, Sequence[Comparison]]]) -> Plot:
    lengths = sorted({each.context_length for _, own in lines for each in own})
    step = min((two / one for one, two in pairwise(lengths)), default=2.0)
    widest = step ** (SPREAD / 2)
    traces: list[dict[str, Any]] = []
    ends: list[float] = [0.0]
    for number, (look, own) in enumerate(lines):
        beside = widest ** (2 * number / (len(lines) - 1) - 1) if len(lines) > 1 else 1.0
        figures = [each.difference for each in own]
        ends += [end for each in figures for end in (each.low, each.value, each.high) if end is not None]
        traces.append({
            "type": "scatter", "mode": "lines+markers", "showlegend": False,
            "x": [each.context_length * beside for each in own], "y": [each.value for each in figures],
            "error_y": {
                "type": "data", "symmetric": False, "color": look.colour, "thickness": 1.5, "width": 3,
                "array": [0 if each.high is None else each.high - each.value for each in figures],
                "arrayminus": [0 if each.low is None else each.value - each.low for each in figures],
            },
            "line": {"color": look.colour, "dash": look.dash, "width": 1},
            "marker": {
                "size": 9, "color": look.colour, "line": {"width": 2, "color": look.colour},
                "symbol": [f"{look.symbol}{'-open' if each.verdict == 'tied' else ''}" for each in own],
            },
            "hoverinfo": "text", "hovertext": [_said(look, first, each) for each in own],
        })  # fmt: skip
    low, high = min(ends), max(ends)
    pad = 0.07 * (high - low or 1.0)
    names = [_cut(look.entry.arm) for look, _ in lines]
    right = int(30 + LETTER * max(map(len, names)))
    yaxis = {
        "title": {"text": "difference (nats a token)"}, "range": [low - pad, high + pad], "zeroline": True,
        "zerolinewidth": 2,
    }  # fmt: skip
    whole = layout(length_axis(lengths, widest), yaxis, right=right)
    inside = HEIGHT - whole["margin"]["t"] - whole["margin"]["b"]
    last = [trace["y"][-1] for trace in traces]
    places = _apart([(high + pad - value) / (high - low + 2 * pad) * inside for value in last], inside)
    whole["annotations"] = [
        {
            "x": 1, "xref": "paper", "xanchor": "left", "y": 1 - place / inside, "yref": "paper", "yanchor": "middle",
            "showarrow": False, "font": {"size": 12},
            "text": f'<span style="color:{look.colour}">{SYMBOLS[look.symbol]}</span> {in_html(name)}',
        }
        for (look, _), name, place in zip(lines, names, places, strict=True)
    ]  # fmt: skip
    alt = f"{title}: loss less that of {first} against context length, with 95 % intervals, a line a model"
    return Plot(title, alt, traces, whole)


def _said(look: Shown, first: str, each: Comparison) -> str:
    parts = [
        f"<b>{in_html(look.name)}</b> less {in_html(first)}", f"{each.context_length:,} tokens",
        f"{each.difference.value:+.4f} nats a token (perplexity {each.change:+.1%})", f"95 % interval {_ends(each)}",
        f"{WORDS[each.verdict]} (p = {each.p:.3g} by Holm)",
    ]  # fmt: skip
    return "<br>".join(parts)


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _apart(places: Sequence[float], height: float) -> list[float]:
    """Places of labels, in pixels from the top, moved so that none stands on another."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + LINE)
    limit = height
    for place in reversed(order):
        moved[place] = min(moved[place], limit)
        limit = moved[place] - LINE
    return moved
