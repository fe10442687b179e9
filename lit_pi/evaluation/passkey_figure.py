"""Pictures of passkey retrieval."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from lit_pi.evaluation.passkey import Cell, k_max

NUMBERED_CELLS = 200
"""Up to so many cells a map says the number in each."""


def passkey_figure(cells: Sequence[Cell], mode: str, original_context: int, title: str) -> Figure:
    """A map of depth against context length in mode `grid`, else accuracy against distance or context length.

    Args:
        cells: of all context lengths.
        mode: of the evaluation.
        original_context: context length of pre-training in tokens, marked.
        title: of the figure.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot(title=title)
    lengths = sorted({cell.context_length for cell in cells})
    if mode == "grid" and len(lengths) > 1:
        _draw_map(figure, axes, cells, lengths, original_context)
        return figure
    groups: dict[str, list[tuple[float, Cell]]]
    if mode == "random":
        groups = {"all depths": [(cell.context_length, cell) for cell in cells]}
        axes.set_xlabel("context length (tokens)")
    else:
        groups = {
            f"{length:,} tokens": [(cell.distance, cell) for cell in cells if cell.context_length == length]
            for length in lengths
        }
        axes.set_xlabel("tokens from the key to the end of the prompt")
    for index, (label, points) in enumerate(groups.items()):
        points.sort()
        if mode != "random":
            label += f", k_max {k_max([cell for _, cell in points], 0.2):,.0f}"
        places = [place for place, _ in points]
        line = axes.plot(
            places, [cell.accuracy for _, cell in points], "os^Dv"[index % 5] + "-", markersize=4, label=label
        )
        bounds = [cell.low for _, cell in points], [cell.high for _, cell in points]
        axes.fill_between(places, *bounds, color=line[0].get_color(), alpha=0.15, linewidth=0)
    axes.axvline(original_context, color="0.5", linestyle="--", linewidth=1, label="original context")
    axes.set(ylabel="keys found", ylim=(-0.03, 1.03), xlim=(0, None))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _draw_map(figure: Figure, axes: Axes, cells: Sequence[Cell], lengths: list[int], original_context: int) -> None:
    depths = max(sum(cell.context_length == length for cell in cells) for length in lengths)
    found = np.full((depths, len(lengths)), np.nan)
    for column, length in enumerate(lengths):
        own = sorted((cell for cell in cells if cell.context_length == length), key=lambda cell: cell.depth)
        found[: len(own), column] = [cell.accuracy for cell in own]
    image = axes.imshow(found, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    if found.size <= NUMBERED_CELLS:
        for (row, column), value in np.ndenumerate(found):
            if not np.isnan(value):
                axes.text(column, row, f"{value:.0%}", ha="center", va="center", fontsize=7, color=_ink(value))
    within = sum(length <= original_context for length in lengths)
    axes.axvline(within - 0.5, color="0.2", linestyle="--", linewidth=1.5)
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], rotation=45 if len(lengths) > 8 else 0)
    step = max(1, depths // 10)
    ticks = range(0, depths, step)
    axes.set_yticks(ticks, [f"{tick / max(depths - 1, 1):.0%}" for tick in ticks])
    axes.set(xlabel="context length (tokens); dashed: original context", ylabel="depth of the key in the text")
    bar = figure.colorbar(image, ax=axes, label="keys found")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _ink(value: float) -> str:
    """Colour of a number that is readable on the map's colour."""
    return "white" if abs(value - 0.5) > 0.35 else "black"
