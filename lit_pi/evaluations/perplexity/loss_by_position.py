"""A picture of the loss by position in the document."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from lit_pi.evaluations.perplexity.window_sums import Bucket


def position_figure(positions: Mapping[int, Sequence[Bucket]], title: str) -> Figure:
    """Mean loss against position in the document, one line a context length.

    Args:
        positions: buckets by context length (tokens).
        title: of the picture.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot(
        xscale="log", xlabel="position in the document (tokens)", ylabel="nats a token", title=title
    )
    for index, (length, buckets) in enumerate(sorted(positions.items())):
        # A bucket stands at its geometric middle, where positions count from 1.
        middles = [((bucket.start + 1) * bucket.stop) ** 0.5 for bucket in buckets]
        colour = f"C{index}"
        axes.plot(middles, [bucket.token_nll for bucket in buckets], color=colour, linewidth=1.5, label=f"{length:,}")
        axes.axvline(length, color=colour, linestyle=":", linewidth=1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title="context length")
    return figure
