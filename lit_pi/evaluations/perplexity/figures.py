"""Pictures of perplexities, as data."""

from collections.abc import Mapping, Sequence
from math import isfinite

from lit_pi.evaluations.figures import Line, LinePanel, Mark, Picture
from lit_pi.evaluations.perplexity.measures import CurvePoint
from lit_pi.evaluations.perplexity.window_sums import Bucket
from lit_pi.evaluations.records import Records, label

LOGARITHMIC_FROM = 3
"""As often as the least perplexity is the largest one from which on a logarithmic axis shows more."""


def perplexity_figures(found: Mapping[str, Records]) -> dict[str, Picture]:
    """Return perplexity against context length, and each run's loss by position, each named `NAME/WHAT`.

    Args:
        found: by evaluation, the record of each run that has it.
    """
    pictures = {}
    for name, records in found.items():
        curves = {
            label(run, record): [CurvePoint(**point) for point in record["curve"]] for run, record in records.items()
        }
        original = min(record["protocol"]["rope"]["original_context"] for record in records.values())
        pictures[f"{name}/perplexity"] = perplexity_figure(curves, original, f"{name}: perplexity")
        for run, record in records.items():
            positions = {
                entry["context_length"]: [Bucket(**bucket) for bucket in entry["buckets"]]
                for entry in record["positions"]
            }
            title = f"{name}, {label(run, record)}"
            which = "" if len(records) == 1 else f"-{run.name}"
            pictures[f"{name}/loss_by_position{which}"] = loss_by_position_figure(positions, title)
    return pictures


def perplexity_figure(
    curves: Mapping[str, Sequence[CurvePoint]], original_context: int | None, title: str = ""
) -> Picture:
    """Return perplexity against context length, one line a curve, with its 95 % interval as a band.

    Args:
        curves: points of each labelled curve.
        original_context: context length of pre-training in tokens, marked if given.
        title: heading of the picture.
    """
    lines = [
        Line(
            name, [p.context_length for p in curve], [p.perplexity for p in curve], [p.low for p in curve],
            [p.high for p in curve],
        )
        for name, curve in curves.items()
    ]  # fmt: skip
    known = [p.perplexity for curve in curves.values() for p in curve if isfinite(p.perplexity)]
    marks = [] if original_context is None else [Mark(original_context, f"original context, {original_context:,}")]
    panel = LinePanel(
        lines, xlabel="context length (tokens)", ylabel="perplexity", log_x=True,
        log_y=bool(known) and max(known) >= LOGARITHMIC_FROM * min(known), marks=marks,
    )  # fmt: skip
    return Picture(title, [panel])


def loss_by_position_figure(positions: Mapping[int, Sequence[Bucket]], title: str) -> Picture:
    """Return mean loss against position in the document, one line a context length, each marked in its colour.

    Args:
        positions: buckets by context length in tokens.
        title: heading of the picture.
    """
    lines = [
        # A bucket stands at its geometric middle, where positions count from 1.
        Line(
            f"{length:,}", [((bucket.start + 1) * bucket.stop) ** 0.5 for bucket in buckets],
            [bucket.token_nll for bucket in buckets], dots=False,
        )
        for length, buckets in sorted(positions.items())
    ]  # fmt: skip
    panel = LinePanel(
        lines, xlabel="position in the document (tokens)", ylabel="nats a token", log_x=True,
        marks=[Mark(length, line=f"{length:,}") for length in sorted(positions)],
    )  # fmt: skip
    return Picture(title, [panel], legend="context length (dotted: where it ends)")
