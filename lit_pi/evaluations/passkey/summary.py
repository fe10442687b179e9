"""Sums over found keys: accuracy and k_max of each context length."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from lit_pi.evaluations.evaluation import Results
from lit_pi.evaluations.passkey.scores import AskedPasskey, PasskeyCell, PasskeySample, cells_of, k_max
from lit_pi.evaluations.statistics.intervals import wilson

THRESHOLDS = {20: 0.2, 50: 0.5, 90: 0.9}
"""Shares of prompts answered for which there is a k_max, by per cent; 20 % in Chen et al. 2023."""


def summarise(asked: Sequence[AskedPasskey], cells_of_a_length: int | None) -> Results:
    """Sum up the prompts that were asked.

    Args:
        asked: prompts and their outcomes.
        cells_of_a_length: how many distances each context length has where there is a k_max; None where distances are
            drawn, which has none.
    """
    cells = cells_of(asked)
    lengths = [_summary(length, own, len(own) == cells_of_a_length) for length, own in _by_length(cells).items()]
    scalars = {f"passkey/accuracy/{found['context_length']}": found["accuracy"] for found in lengths}
    scalars |= {
        f"passkey/k_max_20/{found['context_length']}": found["k_max"]["20"] for found in lengths if found["k_max"]
    }
    items: dict[str, list[Any]] = {
        name: [getattr(entry.sample, name) for entry in asked] for name in PasskeySample._fields
    }
    items |= {name: [getattr(entry, name) for entry in asked] for name in AskedPasskey._fields[1:]}
    return Results({"cells": [cell._asdict() for cell in cells], "lengths": lengths}, scalars, items)


def _by_length(cells: Sequence[PasskeyCell]) -> dict[int, list[PasskeyCell]]:
    found = defaultdict(list)
    for cell in sorted(cells):
        found[cell.context_length].append(cell)
    return found


def _summary(length: int, cells: list[PasskeyCell], complete: bool) -> dict[str, Any]:
    n, correct = sum(cell.n for cell in cells), sum(cell.correct for cell in cells)
    low, high = wilson(correct, n)
    reached = {str(name): k_max(cells, threshold) for name, threshold in THRESHOLDS.items()} if complete else None
    found = [cell.nominal_distance for cell in cells if cell.accuracy >= THRESHOLDS[20]]
    missed = [cell.nominal_distance for cell in cells if cell.accuracy < THRESHOLDS[20]]
    return {
        "context_length": length, "n": n, "correct": correct, "accuracy": correct / n, "low": low, "high": high,
        "k_max": reached, "nearest_missed": min(missed, default=None), "furthest_found": max(found, default=None),
    }  # fmt: skip
