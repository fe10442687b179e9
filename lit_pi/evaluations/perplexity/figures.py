"""Pictures of results."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from lit_pi.evaluations.perplexity.measures import CurvePoint


def perplexity_figure(curves: Mapping[str, Sequence[CurvePoint]], original_context: int | None) -> Figure:
    """Perplexity against context length, one line a curve, with its 95 % interval as a band.

    Args:
        curves: points of each labelled curve.
        original_context: context length of pre-training in tokens, marked if given.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="context length (tokens)", ylabel="perplexity")
    for index, (label, curve) in enumerate(curves.items()):
        lengths = tuple(point.context_length for point in curve)
        marker = "os^Dvp*X"[index % 8]
        (line,) = axes.plot(lengths, [point.perplexity for point in curve], marker=marker, markersize=5, label=label)
        band = [(p.context_length, p.low, p.high) for p in curve if p.low is not None and p.high is not None]
        if band:
            lengths, low, high = zip(*band, strict=True)
            axes.fill_between(lengths, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    if original_context is not None:
        axes.axvline(original_context, color="0.5", linestyle="--", linewidth=1)
        axes.annotate(
            "original context",
            (original_context, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -4),
            textcoords="offset points",
            va="top",
            color="0.4",
            fontsize=8,
        )
    ticks = sorted({point.context_length for curve in curves.values() for point in curve})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    _label_perplexities(figure, [point.perplexity for curve in curves.values() for point in curve])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _label_perplexities(figure: Figure, perplexities: Sequence[float]) -> None:
    """Ticks at round values, so that a narrow range is readable on a logarithmic axis too."""
    (axes,) = figure.axes
    low, high = min(perplexities), max(perplexities)
    if high / low < 3:
        axes.set_yscale("linear")
        return
    decades = [mantissa * 10**power for power in range(-1, 7) for mantissa in (1, 2, 3, 5)]
    ticks = [tick for tick in decades if low / 1.5 <= tick <= high * 1.5]
    axes.set_yticks(ticks)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
