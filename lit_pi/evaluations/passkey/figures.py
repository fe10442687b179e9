"""Pictures of which hidden keys were found, as data."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lit_pi.evaluations.figures import Line, LinePanel, MapPanel, Mark, Numbers, Picture, Point
from lit_pi.evaluations.pairing import differences
from lit_pi.evaluations.passkey.paired import paired_passkeys
from lit_pi.evaluations.passkey.scores import PasskeyCell
from lit_pi.evaluations.records import Records, label

Cells = Mapping[int, Sequence[PasskeyCell]]
"""Cells by context length."""
FOUND = "passkeys found"
LENGTH, DISTANCE = "context length (tokens)", "tokens from the key to the prompt's end"
K_MAX, K_MAX_SHARE = "k_max@20", 0.2
"""The name of the largest distance found, and the share of prompts up to whose distance it reaches."""


def passkey_figures(found: Mapping[str, Records]) -> dict[str, Picture]:
    """Return a picture for each evaluation, each named `NAME/WHAT`: one run's, or several runs' side by side.

    Args:
        found: by evaluation, the record of each run that has it.
    """
    pictures = {}
    for name, records in found.items():
        original = min(record["protocol"]["rope"]["original_context"] for record in records.values())
        mode = next(iter(records.values()))["protocol"]["mode"]
        runs = {label(run, record): _cells(record) for run, record in records.items()}
        alike = len({tuple((length, len(own)) for length, own in each.items()) for each in runs.values()}) == 1
        if len(records) == 1:
            (title, own), (record,) = next(iter(runs.items())), records.values()
            reached = {entry["context_length"]: entry["k_max"]["20"] for entry in record["lengths"] if entry["k_max"]}
            flat = [cell for group in own.values() for cell in group]
            picture = passkey_figure(flat, mode, original, f"{name}, {title}", reached)
        elif mode == "grid" and alike and len(next(iter(runs.values()))) > 1:
            picture = passkey_maps(runs, original, f"{name}: {FOUND}")
        else:
            picture = passkey_lines(runs, original, f"{name}: {FOUND}", mode != "random")
            picture = picture._replace(panels=[*picture.panels, *_differences(name, records)])
        pictures[f"{name}/passkey"] = picture
    return pictures


def passkey_figure(
    cells: Sequence[PasskeyCell], mode: str, original_context: int, title: str, k_max: Mapping[int, int]
) -> Picture:
    """Return a map of depth and context length for several lengths in mode `grid`, else accuracy with 95 % intervals.

    Args:
        cells: cells of all context lengths.
        mode: the evaluation's: `paper` and `grid` show accuracy against distance, `random` against context length.
        original_context: context length of pre-training in tokens, marked.
        title: heading of the picture.
        k_max: by context length, the largest distance up to which 20 % were found, marked; in tokens.
    """
    by_length = _by_length(cells)
    if mode == "grid" and len(by_length) > 1:
        return Picture(title, [_map(by_length, _accuracies(by_length), original_context)])
    if mode == "random":
        return Picture(title, [_over_lengths({"": by_length}, original_context)])
    named = {
        length: f"{length:,} tokens" + (f", {K_MAX} {k_max[length]:,}" if length in k_max else "")
        for length in by_length
    }
    panel = _over_distances({named[length]: own for length, own in by_length.items()}, original_context)
    # A key that is not even found at the least distance has no place to point at.
    points = [
        Point(reached, K_MAX_SHARE, K_MAX, named[length]) for length in by_length if (reached := k_max.get(length))
    ]
    threshold = Mark(K_MAX_SHARE, f"{K_MAX_SHARE:.0%} found", axis="y")
    return Picture(title, [panel._replace(marks=[*panel.marks, threshold], points=points)])


def passkey_maps(runs: Mapping[str, Cells], original_context: int, title: str) -> Picture:
    """Return a map of each run, and beside it by how much it differs from the first one's.

    Args:
        runs: cells of the same depths and context lengths, by label.
        original_context: context length of pre-training in tokens, marked.
        title: heading of the picture.
    """
    panels: list[MapPanel | None] = []
    first = _accuracies(next(iter(runs.values())))
    for name, cells in runs.items():
        own = _accuracies(cells)
        less = [[_less(*pair) for pair in zip(*rows, strict=True)] for rows in zip(own, first, strict=True)]
        difference = _map(cells, less, original_context)._replace(
            title="less the first run's", scale="points", low=-1.0, difference=True
        )
        panels += [_map(cells, own, original_context)._replace(title=name), difference if panels else None]
    return Picture(title, panels, columns=2)


def passkey_lines(runs: Mapping[str, Cells], original_context: int, title: str, by_distance: bool) -> Picture:
    """Return accuracy, one line a run, without intervals: those of compared runs overlap and say nothing.

    Args:
        runs: cells by label.
        original_context: context length of pre-training in tokens, marked.
        title: heading of the picture.
        by_distance: one panel a context length, against the distance of the key; else one, against context length.
    """
    if not by_distance:
        return Picture(title, [_bare(_over_lengths(runs, original_context))])
    panels = []
    for length in sorted({length for cells in runs.values() for length in cells}):
        own = {name: cells.get(length, ()) for name, cells in runs.items()}
        panels.append(_bare(_over_distances(own, original_context))._replace(title=f"{length:,} tokens"))
    return Picture(title, panels, columns=2)


def _bare(panel: LinePanel) -> LinePanel:
    return panel._replace(lines=[line._replace(low=(), high=()) for line in panel.lines])


def _differences(name: str, records: Records) -> list[LinePanel]:
    """How many more or fewer of the same keys than the first run the others find, with 95 % intervals."""
    (baseline, _), *_ = records.items()
    found, _ = differences(list(records), paired_passkeys)
    lines = []
    for run, pairs in found.items():
        own = [pair for pair in pairs if pair.evaluation == name]
        points = [[100 * end for end in (each.shares.difference, each.shares.low, each.shares.high)] for each in own]
        value, low, high = zip(*points, strict=True) if points else ((), (), ())
        lines.append(Line(label(run, records[run]), [pair.context_length for pair in own], value, low, high, bars=True))
    if not any(line.x for line in lines):
        return []
    title = f"less {baseline.name}, on the same prompts"
    return [LinePanel(lines, title, LENGTH, f"{FOUND} (points)", log_x=True, marks=[Mark(0, axis="y")])]


def _over_distances(groups: Mapping[str, Sequence[PasskeyCell]], original_context: int) -> LinePanel:
    lines = []
    for name, cells in groups.items():
        points = sorted(cells, key=lambda cell: cell.nominal_distance)
        lines.append(_line(name, [cell.nominal_distance for cell in points], points))
    marks = [_original(original_context)]
    return LinePanel(lines, xlabel=DISTANCE, ylabel=FOUND, percent=True, x_from=0, marks=marks)


def _over_lengths(runs: Mapping[str, Cells], original_context: int) -> LinePanel:
    lines = []
    for name, by_length in runs.items():
        points = [cell for length in sorted(by_length) for cell in by_length[length]]
        lines.append(_line(name, [cell.context_length for cell in points], points)._replace(bars=len(runs) == 1))
    marks = [_original(original_context)]
    return LinePanel(lines, xlabel=LENGTH, ylabel=FOUND, percent=True, log_x=True, marks=marks)


def _line(name: str, places: Sequence[float], cells: Sequence[PasskeyCell]) -> Line:
    accuracies = [cell.accuracy for cell in cells]
    return Line(name, places, accuracies, [cell.low for cell in cells], [cell.high for cell in cells])


def _map(by_length: Cells, values: Sequence[Numbers], original_context: int) -> MapPanel:
    depths = {cell.cell: cell.depth for own in by_length.values() for cell in own}
    # The mark stands on the edge of the last column that does not exceed the original context.
    edge = sum(length <= original_context for length in by_length) - 0.5
    return MapPanel(
        values, [f"{depths[row]:.0%}" if row in depths else "" for row in range(len(values))],
        [f"{length:,}" for length in by_length], xlabel=LENGTH, ylabel="depth of the key in the filler",
        scale=f"{FOUND} (%)", low=0.0, high=1.0, percent=True, marks=[_original(original_context)._replace(at=edge)],
    )  # fmt: skip


def _accuracies(by_length: Cells) -> list[list[float | None]]:
    """Accuracies of each depth (row) and context length (column), None where there is no cell."""
    rows = 1 + max(cell.cell for own in by_length.values() for cell in own)
    found: list[list[float | None]] = [[None] * len(by_length) for _ in range(rows)]
    for column, own in enumerate(by_length.values()):
        for cell in own:
            found[cell.cell][column] = cell.accuracy
    return found


def _less(own: float | None, first: float | None) -> float | None:
    return None if own is None or first is None else own - first


def _original(context: int) -> Mark:
    return Mark(context, f"original context, {context:,}")


def _by_length(cells: Sequence[PasskeyCell]) -> dict[int, list[PasskeyCell]]:
    found = defaultdict(list)
    for cell in sorted(cells):
        found[cell.context_length].append(cell)
    return dict(found)


def _cells(record: dict[str, Any]) -> dict[int, list[PasskeyCell]]:
    return _by_length([PasskeyCell(**cell) for cell in record["cells"]])
