"""Which hidden keys a model finds, of every evaluation that asks for them."""

from collections import defaultdict
from typing import Any

from lightning.pytorch import Trainer
from lit_pi.callbacks.evaluation_callback import EvaluationCallback, show
from rich.console import Console
from rich.table import Table

from lit_pi.data.batches import ScoringBatch
from lit_pi.data.evaluations import Passkey
from lit_pi.evaluation.passkey import Cell, PasskeyScores, k_max, wilson
from lit_pi.evaluation.passkey_figure import passkey_figure
from lit_pi.module import LitLlama

THRESHOLDS = (0.2, 0.5, 0.9)


class PasskeyRetrieval(EvaluationCallback[Passkey, PasskeyScores]):
    """Turns the scores of validation and test into maps of distance or depth against context length.

    Each map becomes a table in the terminal, scalars `NAME/passkey/accuracy/LENGTH` and `NAME/passkey/k_max_20/LENGTH`
    and a figure in TensorBoard, a record of all cells in `results.json`, and `figures/NAME-passkey.png` and `.svg`.
    """

    kind = "passkey"
    evaluation_class = Passkey

    def metric(self, evaluation: Passkey) -> PasskeyScores:
        """Sums for each question."""
        return PasskeyScores(len(evaluation.samples))

    def add(self, metric: PasskeyScores, outputs: dict[str, Any], batch: ScoringBatch) -> None:
        """Add a batch of questions."""
        (nll,), (rank,) = outputs["token_nll"], outputs["token_rank"]
        metric.update(batch.documents, nll, rank, batch.targets)

    def publish(
        self, trainer: Trainer, module: LitLlama, name: str, metric: PasskeyScores, record: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw and print the map."""
        evaluation = self.evaluations(trainer)[name]
        cells = cells_of(evaluation, metric.compute())
        by_length = defaultdict(list)
        for cell in cells:
            by_length[cell.context_length].append(cell)
        reached = {
            length: {threshold: k_max(own, threshold) for threshold in THRESHOLDS} for length, own in by_length.items()
        }
        scalars = {f"accuracy/{length}": _accuracy(own) for length, own in by_length.items()}
        scalars |= {f"k_max_20/{length}": found[0.2] for length, found in reached.items()}
        title = f"{name}: {module.position.describe()['class']}"
        figure = passkey_figure(cells, evaluation.mode, module.rope.original_context, title)
        show(trainer, f"{name}/passkey", scalars, figure)
        _print(name, by_length, reached, record["partial"])
        return {
            "cells": [cell._asdict() for cell in cells],
            "k_max": [
                {"context_length": length, **{f"{threshold:.0%}": k for threshold, k in found.items()}}
                for length, found in reached.items()
            ],
        }


def cells_of(evaluation: Passkey, scores: dict[str, list[float]]) -> list[Cell]:
    """The cells of an evaluation in which something was asked, by context length and distance."""
    numbers = defaultdict(list)
    for number, sample in enumerate(evaluation.samples):
        if scores["asked"][number]:
            numbers[sample.context_length, sample.cell].append(number)
    cells = []
    for (length, _), own in numbers.items():
        samples = [evaluation.samples[number] for number in own]
        total = {name: sum(values[number] for number in own) for name, values in scores.items()}
        correct = int(total["correct"])
        cells.append(
            Cell(
                length,
                sum(sample.distance for sample in samples) / len(own),
                sum(sample.depth for sample in samples) / len(own),
                len(own),
                correct,
                correct / len(own),
                *wilson(correct, len(own)),
                log_probability=total["log_probability"] / len(own),
                token_accuracy=total["first_choices"] / total["tokens"],
            )
        )
    return sorted(cells)


def _accuracy(cells: list[Cell]) -> float:
    return sum(cell.correct for cell in cells) / sum(cell.questions for cell in cells)


def _print(name: str, by_length: dict[int, list[Cell]], reached: dict[int, dict[float, float]], partial: bool) -> None:
    table = Table(title=f"{name}: passkeys found{' (partial: batches were left out)' if partial else ''}")
    for column in ("length", "asked", "found", "95 % interval"):
        table.add_column(column, justify="right")
    for threshold in THRESHOLDS:
        table.add_column(f"k_max {threshold:.0%}", justify="right")
    for length, cells in by_length.items():
        questions, correct = sum(cell.questions for cell in cells), sum(cell.correct for cell in cells)
        low, high = wilson(correct, questions)
        table.add_row(
            f"{length:,}", f"{questions:,}", f"{correct / questions:.1%}", f"{low:.0%} to {high:.0%}",
            *(f"{reached[length][threshold]:,.0f}" for threshold in THRESHOLDS),
        )  # fmt: skip
    Console().print(table)
