"""Pictures of which hidden keys several runs found."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from lit_pi.evaluations.passkey.figure import COLUMN_INCHES, FOUND, MARKERS, PERCENT, accuracies, draw_map
from lit_pi.evaluations.passkey.scores import PasskeyCell

Cells = Mapping[int, Sequence[PasskeyCell]]
"""By context length."""


def passkey_maps(runs: Mapping[str, Cells], original_context: int, title: str) -> Figure:
    """A map of each run, and beside it by how much it differs from the first one's.

    Args:
        runs: cells of the same depths and context lengths, by label.
        original_context: context length of pre-training in tokens, marked.
        title: of the figure.
    """
    width = max(4.2, 1.6 + COLUMN_INCHES * max(len(cells) for cells in runs.values()))
    figure = Figure(figsize=(2 * width, 3.4 * len(runs)), dpi=120, layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(len(runs), 2, squeeze=False)
    first = accuracies(next(iter(runs.values())))
    for row, (label, cells) in enumerate(runs.items()):
        own, (left, right) = accuracies(cells), panels[row]
        image = draw_map(left, cells, own, original_context)
        left.set_title(label, fontsize=9)
        if not row:
            right.set_axis_off()
            figure.colorbar(image, ax=left, label=f"{FOUND} (%)", format=PERCENT)
            continue
        difference = draw_map(right, cells, own - first, original_context, "RdBu", -1.0)
        right.set(title="", ylabel="")
        right.set_title("less the first run's", fontsize=9)
        figure.colorbar(image, ax=left, label=f"{FOUND} (%)", format=PERCENT)
        figure.colorbar(difference, ax=right, label="points", format=PERCENT)
    return figure


def passkey_lines(runs: Mapping[str, Cells], original_context: int, title: str, by_distance: bool) -> Figure:
    """Accuracy with 95 % intervals, one line a run.

    Args:
        runs: cells by label.
        original_context: context length of pre-training in tokens, marked.
        title: of the figure.
        by_distance: one panel a context length, against the distance of the key; else one, against context length.
    """
    lengths = sorted({length for cells in runs.values() for length in cells}) if by_distance else [None]
    figure = Figure(figsize=(max(6.4, 4.2 * len(lengths)), 4.2), dpi=120, layout="constrained")
    figure.suptitle(title)
    panels: Sequence[Axes] = figure.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for axes, length in zip(panels, lengths, strict=True):
        for index, (label, cells) in enumerate(runs.items()):
            own = cells.get(length, ()) if length else [cell for group in cells.values() for cell in group]
            points = sorted((cell.nominal_distance if by_distance else cell.context_length, cell) for cell in own)
            places = [place for place, _ in points]
            (line,) = axes.plot(
                places, [cell.accuracy for _, cell in points], f"{MARKERS[index % 8]}-", markersize=4, linewidth=1.2,
                label=label, clip_on=False,
            )  # fmt: skip
            low, high = [cell.low for _, cell in points], [cell.high for _, cell in points]
            axes.fill_between(places, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        label = f"original context, {original_context:,}"
        axes.axvline(original_context, color="0.4", linestyle="--", linewidth=1, label=label)
        axes.set(xlim=(0, None), ylim=(-0.03, 1.03), title=f"{length:,} tokens" if length else "")
        axes.set_xlabel("tokens from the key to the prompt's end" if by_distance else "context length (tokens)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(FOUND)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure
