"""Which hidden keys runs found, as pictures."""

from typing import Any

from lit_pi.evaluations.evaluation import Found
from lit_pi.evaluations.figures import Picture
from lit_pi.evaluations.passkey.figure import passkey_figure
from lit_pi.evaluations.passkey.panels import passkey_lines, passkey_maps
from lit_pi.evaluations.passkey.scores import PasskeyCell
from lit_pi.evaluations.records import label


def passkey_figures(found: Found) -> dict[str, Picture]:
    """One figure an evaluation, by the name of its file: of one run its map, of several their maps side by side."""
    figures = {}
    for name, records in found.items():
        original = min(record["protocol"]["rope"]["original_context"] for record in records.values())
        mode = next(iter(records.values()))["protocol"]["mode"]
        cells = {label(run, record): _cells(record) for run, record in records.items()}
        alike = len({tuple((length, len(own)) for length, own in each.items()) for each in cells.values()}) == 1
        if len(records) == 1:
            (title, own), (record,) = next(iter(cells.items())), records.values()
            reached = {entry["context_length"]: entry["k_max"]["20"] for entry in record["lengths"] if entry["k_max"]}
            flat = [cell for group in own.values() for cell in group]
            figure = passkey_figure(flat, mode, original, f"{name}, {title}", reached)
        elif mode == "grid" and alike and len(next(iter(cells.values()))) > 1:
            figure = passkey_maps(cells, original, f"{name}: passkeys found")
        else:
            figure = passkey_lines(cells, original, f"{name}: passkeys found", mode != "random")
        figures[f"{name}/passkey"] = figure
    return figures


def _cells(record: dict[str, Any]) -> dict[int, list[PasskeyCell]]:
    found: dict[int, list[PasskeyCell]] = {}
    for cell in sorted(PasskeyCell(**cell) for cell in record["cells"]):
        found.setdefault(cell.context_length, []).append(cell)
    return found
