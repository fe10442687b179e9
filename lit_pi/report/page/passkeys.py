"""Maps of the hidden keys that were found, all on one colour scale."""

import math
from collections.abc import Sequence
from typing import Any

from lit_pi.evaluations.tables import in_html
from lit_pi.report.page.axes import layout
from lit_pi.report.page.elements import Plot
from lit_pi.report.page.series import Shown

SCALE = "Cividis"
"""A colour scale whose lightness grows evenly, for colour-blind readers too; `page.css` draws it as `.scale`."""
LIGHT = 0.45
"""The share from which black is easier to read on the scale than white."""
ROW, LEAST, AROUND = 30, 150, 80
"""Pixels of a row of a map, of all of them at least, and of its axes."""
MOST_ROWS = 14
"""Rows of which each is that high."""
ROWS = {"grid": "depth of the key in the filler", "paper": "distance of the key (share of context)"}
"""The rows of maps, by the mode of the evaluation; keys at drawn depths have one row."""


def shares(records: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Shares of keys found by context length, over all seeds."""
    found: dict[int, list[int]] = {}
    for record in records:
        for entry in record["lengths"]:
            correct, n = found.setdefault(entry["context_length"], [0, 0])
            found[entry["context_length"]] = [correct + entry["correct"], n + entry["n"]]
    return {length: correct / n if n else math.nan for length, (correct, n) in sorted(found.items())}


def passkey_plots(evaluation: str, series: Sequence[Shown]) -> list[Plot]:
    """A map for each entry."""
    return [_map(evaluation, each) for each in series]


def _map(evaluation: str, each: Shown) -> Plot:
    records = each.records[evaluation]
    mode = records[0]["protocol"]["mode"]
    cells: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for record in records:
        for cell in record["cells"]:
            cells.setdefault((cell["cell"], cell["context_length"]), []).append(cell)
    rows, lengths = (sorted({key[side] for key in cells}) for side in (0, 1))
    labels = [_label(mode, next(own[0] for key, own in cells.items() if key[0] == row)) for row in rows]
    share: list[list[float | None]] = []
    said = []
    for row in rows:
        group = [cells.get((row, length), []) for length in lengths]
        sums = [(sum(cell["correct"] for cell in own), sum(cell["n"] for cell in own)) for own in group]
        share.append([correct / n if n else None for correct, n in sums])
        said.append([
            "" if not own else f"<b>{in_html(each.name)}</b><br>{own[0]['context_length']:,} tokens, "
            f"key {own[0]['distance']:,.0f} tokens before the end<br>{correct:,} of {n:,} found{_ends(own)}"
            for own, (correct, n) in zip(group, sums, strict=True)
        ])  # fmt: skip
    legible = len(rows) <= MOST_ROWS and len(lengths) <= 6
    trace: dict[str, Any] = {
        "type": "heatmap", "z": share, "x": [f"{length:,}" for length in lengths], "y": labels, "zmin": 0, "zmax": 1,
        "colorscale": SCALE, "showscale": False, "xgap": 1, "ygap": 1, "hoverinfo": "text", "hovertext": said,
    }  # fmt: skip
    yaxis = {"title": {"text": ROWS.get(mode, "")}, "type": "category", "autorange": "reversed", "showgrid": False}
    xaxis = {"title": {"text": "context length (tokens)"}, "type": "category", "showgrid": False}
    alt = f"{evaluation}: share of keys that {each.name} found, by depth or distance and context length"
    whole = layout(xaxis, yaxis, height=AROUND + max(LEAST, ROW * min(len(rows), MOST_ROWS)))
    if legible:
        whole["annotations"] = [
            # Places by number, as a label that looks like one would be taken for it.
            {"x": column, "y": row, "text": f"{100 * value:.0f}", "showarrow": False,
             "font": {"color": "#000" if value > LIGHT else "#fff", "size": 12}}
            for row, values in enumerate(share) for column, value in enumerate(values) if value is not None
        ]  # fmt: skip
    return Plot(each.name, alt, [trace], whole)


def _label(mode: str, cell: dict[str, Any]) -> str:
    if mode == "grid":
        return f"{cell['depth']:.0%}"
    return f"{cell['nominal_distance'] / cell['context_length']:.0%}" if mode == "paper" else "drawn"


def _ends(cells: Sequence[dict[str, Any]]) -> str:
    if len(cells) > 1:
        return f" over {len(cells)} seeds"
    return f" (95 % interval {cells[0]['low']:.0%} to {cells[0]['high']:.0%})"
