"""Pictures of perplexities, as data."""

from collections.abc import Mapping, Sequence
from math import isfinite

from lit_pi.evaluations.figures import Line, LinePanel, Mark, Picture
from lit_pi.evaluations.pairing import differences
from lit_pi.evaluations.perplexity.measures import CurvePoint
from lit_pi.evaluations.perplexity.paired import paired_perplexities
from lit_pi.evaluations.perplexity.tables import protocol_named
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
        named = dict.fromkeys(map(protocol_named, records.values()))
        picture = perplexity_figure(curves, original, f"{name}: perplexity{''.join(named)}")
        pictures[f"{name}/perplexity"] = picture._replace(panels=[*picture.panels, *_differences(name, records)])
        for run, record in records.items():
            if not record["positions"]:
                continue
            positions = {
                entry["context_length"]: [Bucket(**bucket) for bucket in entry["buckets"]]
                for entry in record["positions"]
            }
            title = f"{name}, {label(run, record)}"
            which = "" if len(records) == 1 else f"-{run.name}"
            pictures[f"{name}/loss_by_position{which}"] = loss_by_position_figure(positions, title)
    return pictures


def _differences(name: str, records: Records) -> list[LinePanel]:
    """How much more or less than the first one runs lose on the same documents, with 95 % intervals."""
    (baseline, first), *others = records.items()
    definition = first["definition"]
    found, _ = differences(list(records), paired_perplexities) if others else ({}, [])
    lines = []
    for run, entries in found.items():
        own = [entry for entry in entries if (entry.evaluation, entry.definition) == (name, definition)]
        figures = [entry.difference for entry in own]
        lines.append(
            Line(
                label(run, records[run]), [entry.context_length for entry in own], [each.value for each in figures],
                [each.low for each in figures], [each.high for each in figures], bars=True,
            )
        )  # fmt: skip
    if not any(line.x for line in lines):
        return []
    return [
        LinePanel(
            lines, title=f"less {baseline.name}, on the same documents", xlabel="context length (tokens)",
            ylabel="nats a token", log_x=True, marks=[Mark(0, axis="y")],
        )
    ]  # fmt: skip


def perplexity_figure(
    curves: Mapping[str, Sequence[CurvePoint]], original_context: int | None, title: str = ""
) -> Picture:
    """Return perplexity against context length, one line a curve; the band of a single one is its 95 % interval.

    Documents that are hard are so for every model: where several curves are compared, bands that overlap say nothing,
    and there are none.

    Args:
        curves: points of each labelled curve.
        original_context: context length of pre-training in tokens, marked if given.
        title: heading of the picture.
    """
    lines = [
        Line(name, [point.context_length for point in curve], [point.perplexity for point in curve])
        for name, curve in curves.items()
    ]
    if len(curves) == 1:
        ((_, curve),) = curves.items()
        lines = [lines[0]._replace(low=[point.low for point in curve], high=[point.high for point in curve])]
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
