"""Which hidden keys a model finds, of every evaluation that asks for them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lit_pi.callbacks.evaluation_callback import EvaluationCallback, show, table_path
from rich.console import Console
from rich.table import Table

from lit_pi.batches import IGNORE, GenerationBatch, ScoringBatch
from lit_pi.evaluations import Passkey
from lit_pi.evaluations.passkey.figures import passkey_figure
from lit_pi.evaluations.passkey.paired import KIND
from lit_pi.evaluations.passkey.prompt_table import write_passkeys
from lit_pi.evaluations.passkey.scores import PasskeyCell, PasskeyScores, WrittenPasskeys, cells_of, k_max
from lit_pi.evaluations.statistics.intervals import wilson
from lit_pi.module import LitLlama

THRESHOLDS = {20: 0.2, 50: 0.5, 90: 0.9}
"""Shares of prompts answered for which there is a k_max, by per cent; 20 % in Chen et al. 2023."""


class PasskeyRetrieval(EvaluationCallback[Passkey, PasskeyScores]):
    """Turns the scores of validation and test into accuracies by distance, depth and context length.

    They become a table in the terminal, scalars `NAME/passkey/accuracy/LENGTH` and `NAME/passkey/k_max_20/LENGTH` and
    a figure in TensorBoard, a record of all cells and of the protocol in `results.json`, and beside it
    `figures/NAME-passkey.png` and `.svg`, and `passkeys/NAME-STAGE.parquet` with every prompt's outcome.

    k_max is the largest distance up to which at least 20 % (50 %, 90 %) of the prompts of every distance are answered.
    There is none where distances are drawn, nor for context lengths of which cells were left out.
    """

    kind = KIND
    evaluation_class = Passkey

    def metric(self, evaluation: Passkey) -> PasskeyScores:
        """Sums for each prompt."""
        return (PasskeyScores if evaluation.score == "teacher_forced" else WrittenPasskeys)(evaluation.samples)

    def add(self, metric: PasskeyScores, outputs: dict[str, Any], batch: ScoringBatch | GenerationBatch) -> None:
        """Add a batch of prompts."""
        if isinstance(metric, WrittenPasskeys):
            assert isinstance(batch, GenerationBatch)
            real = batch.documents >= 0
            indices, answers = batch.documents[real], outputs["token_ids"][real].tolist()
            lengths = outputs["lengths"][real].tolist()
            said = [answer[:length] for answer, length in zip(answers, lengths, strict=True)]
            answered = self.asked[batch.evaluation].answered(indices.tolist(), said)
            metric.update(indices, torch.tensor(answered, dtype=torch.bool, device=indices.device))
            return
        assert isinstance(batch, ScoringBatch)
        (token_nll,), (token_rank,) = outputs["token_nll"], outputs["token_rank"]
        metric.update(batch.documents, token_nll, token_rank, batch.targets != IGNORE)

    def publish(
        self, trainer: Trainer, module: LitLlama, name: str, metric: PasskeyScores, record: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw and print accuracies."""
        evaluation = self.evaluations(trainer)[name]
        asked = metric.compute()
        cells = cells_of(asked)
        lengths = [
            _summary(length, own, evaluation.mode != "random" and len(own) == evaluation.cells)
            for length, own in _by_length(cells).items()
        ]
        scalars = {f"accuracy/{found['context_length']}": found["accuracy"] for found in lengths}
        scalars |= {f"k_max_20/{found['context_length']}": found["k_max"]["20"] for found in lengths if found["k_max"]}
        title = f"{name}: {module.position.describe()['class']}"
        reached = {found["context_length"]: found["k_max"]["20"] for found in lengths if found["k_max"]}
        figure = passkey_figure(cells, evaluation.mode, module.rope.original_context, title, reached)
        show(trainer, f"{name}/passkey", scalars, figure)
        _print(name, lengths, record["partial"])
        table = table_path("passkeys", record)
        write_passkeys(Path(trainer.default_root_dir) / table, asked)
        return {"cells": [cell._asdict() for cell in cells], "lengths": lengths, "table": table.as_posix()}


def _by_length(cells: Sequence[PasskeyCell]) -> dict[int, list[PasskeyCell]]:
    found = defaultdict(list)
    for cell in sorted(cells):
        found[cell.context_length].append(cell)
    return found


def _summary(length: int, cells: list[PasskeyCell], complete: bool) -> dict[str, Any]:
    n, correct = sum(cell.n for cell in cells), sum(cell.correct for cell in cells)
    low, high = wilson(correct, n)
    reached = {str(name): k_max(cells, threshold) for name, threshold in THRESHOLDS.items()} if complete else None
    return {
        "context_length": length, "n": n, "correct": correct, "accuracy": correct / n, "low": low, "high": high,
        "k_max": reached,
    }  # fmt: skip


def _print(name: str, lengths: list[dict[str, Any]], partial: bool) -> None:
    table = Table(title=f"{name}: passkeys found{' (partial: batches were left out)' if partial else ''}")
    for column in ("length", "samples", "accuracy", "95 % interval", *(f"k_max@{name}" for name in THRESHOLDS)):
        table.add_column(column, justify="right")
    for found in lengths:
        reached = found["k_max"].values() if found["k_max"] else ()
        table.add_row(
            f"{found['context_length']:,}", f"{found['n']:,}", f"{found['accuracy']:.1%}",
            f"{found['low']:.1%} to {found['high']:.1%}", *([f"{k:,}" for k in reached] or ["-"] * len(THRESHOLDS)),
        )  # fmt: skip
    Console().print(table)
