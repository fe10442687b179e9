"""Pictures of which hidden keys were found."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from lit_pi.evaluation.passkey import PasskeyCell

NUMBERED_CELLS = 200
"""Up to so many cells, a map says the number in each."""
COLUMN_INCHES = 0.62
MARKERS = "osDp*Xh8"
FOUND = "passkeys found"


def passkey_figure(
    cells: Sequence[PasskeyCell], mode: str, original_context: int, title: str, k_max: Mapping[int, int]
) -> Figure:
    """A map of depth and context length for several lengths in mode `grid`, else accuracy with 95 % intervals.

    Args:
        cells: of all context lengths.
        mode: of the evaluation: `paper` and `grid` draw accuracy against distance, `random` against context length.
        original_context: context length of pre-training in tokens, marked.
        title: of the figure.
        k_max: by context length, the largest distance up to which 20 % were found, marked; in tokens.
    """
    by_length: dict[int, list[PasskeyCell]] = defaultdict(list)
    for cell in sorted(cells):
        by_length[cell.context_length].append(cell)
    is_map = mode == "grid" and len(by_length) > 1
    width = max(6.4, 2.2 + COLUMN_INCHES * len(by_length)) if is_map else 6.4
    figure = Figure(figsize=(width, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot(title=title)
    if is_map:
        _draw_map(figure, axes, by_length, original_context)
        return figure
    if mode == "random":
        _draw_lengths(axes, [cell for own in by_length.values() for cell in own])
    else:
        _draw_distances(axes, by_length, k_max)
    axes.axvline(
        original_context, color="0.4", linestyle="--", linewidth=1, label=f"original context, {original_context:,}"
    )
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    axes.set(ylim=(-0.03, 1.03), ylabel=FOUND)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_distances(axes: Axes, by_length: Mapping[int, Sequence[PasskeyCell]], k_max: Mapping[int, int]) -> None:
    for index, (length, own) in enumerate(by_length.items()):
        points = sorted(own, key=lambda cell: cell.nominal_distance)
        places = [point.nominal_distance for point in points]
        label = f"{length:,} tokens" + (f", k_max@20 {k_max[length]:,}" if length in k_max else "")
        (line,) = axes.plot(
            places, [point.accuracy for point in points], MARKERS[index % 8] + "-", markersize=4, linewidth=1.2,
            label=label, clip_on=False,
        )  # fmt: skip
        axes.fill_between(
            places, [point.low for point in points], [point.high for point in points], color=line.get_color(),
            alpha=0.15, linewidth=0,
        )  # fmt: skip
        if reached := k_max.get(length):
            axes.plot(reached, 0.2, "v", color=line.get_color(), markersize=10, markeredgecolor="black", zorder=4)
    axes.axhline(0.2, color="0.5", linestyle=":", linewidth=1)
    axes.set(xlabel="tokens from the key to the prompt's end (large triangle: k_max@20)", xlim=(0, None))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _draw_lengths(axes: Axes, cells: Sequence[PasskeyCell]) -> None:
    lengths, found = [cell.context_length for cell in cells], [cell.accuracy for cell in cells]
    errors = [[cell.accuracy - cell.low for cell in cells], [cell.high - cell.accuracy for cell in cells]]
    axes.errorbar(lengths, found, errors, marker="o", markersize=5, capsize=3, linewidth=1.2)
    axes.set(xscale="log", xlabel="context length (tokens)")
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())


def _draw_map(
    figure: Figure, axes: Axes, by_length: Mapping[int, Sequence[PasskeyCell]], original_context: int
) -> None:
    lengths = list(by_length)
    depths = {cell.cell: cell.depth for own in by_length.values() for cell in own}
    found = np.full((max(depths) + 1, len(lengths)), np.nan)
    for column, own in enumerate(by_length.values()):
        for cell in own:
            found[cell.cell, column] = cell.accuracy
    colours = colormaps["viridis"]
    image = axes.imshow(found, vmin=0, vmax=1, cmap=colours, aspect="auto")
    if found.size <= NUMBERED_CELLS:
        for (row, column), value in np.ndenumerate(found):
            if not np.isnan(value):
                ink = "black" if value > 0.6 else "white"
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    place = _between(lengths, original_context)
    axes.axvline(place, color="tab:red", linestyle="--", linewidth=1.5)
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], rotation=45 if len(lengths) > 7 else 0)
    rows = sorted(depths)[:: -(-len(depths) // 11)]
    axes.set_yticks(rows, [f"{depths[row]:.0%}" for row in rows])
    axes.set(
        xlabel=f"context length (tokens; dashed: original context, {original_context:,})",
        ylabel="depth of the key in the filler",
    )
    figure.colorbar(image, ax=axes, label=f"{FOUND} (%)", format=PercentFormatter(1.0, decimals=0, symbol=""))


def _between(lengths: Sequence[int], original_context: int) -> float:
    """Where a context length stands among columns: on the edge of the last one that does not exceed it."""
    for column, (shorter, longer) in enumerate(pairwise(lengths)):
        if shorter <= original_context < longer:
            return column + 0.5
    return -0.5 if original_context < lengths[0] else len(lengths) - 0.5
