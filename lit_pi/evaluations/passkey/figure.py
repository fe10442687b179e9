"""Pictures of which hidden keys were found."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter
from numpy.typing import NDArray

from lit_pi.evaluations.passkey.scores import PasskeyCell

NUMBERED_CELLS = 200
"""Up to so many cells, a map says the number in each."""
COLUMN_INCHES = 0.62
PERCENT = PercentFormatter(1.0, decimals=0, symbol="")
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
        image = draw_map(axes, by_length, accuracies(by_length), original_context)
        figure.colorbar(image, ax=axes, label=f"{FOUND} (%)", format=PERCENT)
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


def accuracies(by_length: Mapping[int, Sequence[PasskeyCell]]) -> NDArray[np.float64]:
    """Of each depth (row) and context length (column), NaN where there is no cell."""
    found = np.full((1 + max(cell.cell for own in by_length.values() for cell in own), len(by_length)), np.nan)
    for column, own in enumerate(by_length.values()):
        for cell in own:
            found[cell.cell, column] = cell.accuracy
    return found


def draw_map(
    axes: Axes,
    by_length: Mapping[int, Sequence[PasskeyCell]],
    values: NDArray[np.float64],
    original_context: int,
    colours: str = "viridis",
    low: float = 0.0,
) -> AxesImage:
    """A map of depth and context length.

    Args:
        axes: to draw on.
        by_length: cells by context length, which name rows and columns.
        values: of each depth and context length, from `low` to 1.
        original_context: context length of pre-training in tokens, marked.
        colours: name of a colour map.
        low: the least value.
    """
    lengths = list(by_length)
    depths = {cell.cell: cell.depth for own in by_length.values() for cell in own}
    image = axes.imshow(values, vmin=low, vmax=1, cmap=colours, aspect="auto")
    shades = image.to_rgba(values)[..., :3].mean(axis=-1)
    if values.size <= NUMBERED_CELLS:
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                ink = "black" if shades[row, column] > 0.45 else "white"
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    axes.axvline(_between(lengths, original_context), color="tab:red", linestyle="--", linewidth=1.5)
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], rotation=45 if len(lengths) > 7 else 0)
    rows = sorted(depths)[:: -(-len(depths) // 11)]
    axes.set_yticks(rows, [f"{depths[row]:.0%}" for row in rows])
    axes.set(
        xlabel=f"context length (tokens; dashed: original context, {original_context:,})",
        ylabel="depth of the key in the filler",
    )
    return image


def _between(lengths: Sequence[int], original_context: int) -> float:
    """Where a context length stands among columns: on the edge of the last one that does not exceed it."""
    for column, (shorter, longer) in enumerate(pairwise(lengths)):
        if shorter <= original_context < longer:
            return column + 0.5
    return -0.5 if original_context < lengths[0] else len(lengths) - 0.5
