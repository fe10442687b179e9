"""How many questions a model answers, of every evaluation that asks some with options."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table

from lit_pi.batches import ScoringBatch
from lit_pi.callbacks.evaluation_callback import EvaluationCallback, log_scalars, table_path
from lit_pi.evaluations import MultipleChoice
from lit_pi.evaluations.choices.paired import KIND
from lit_pi.evaluations.choices.question_table import write_questions
from lit_pi.evaluations.choices.scores import LABELS, Accuracy, ChoiceScores, Normalisation, accuracies
from lit_pi.module import LitLlama


class MultipleChoiceAccuracy(EvaluationCallback[MultipleChoice, ChoiceScores]):
    """Turns the scores of validation and test into accuracies, one for each way to compare options.

    They become a table in the terminal, where the way that the field uses for the task is marked, scalars
    `NAME/accuracy/NORMALISATION` in TensorBoard, a record with intervals and protocol in `results.json`, and
    `questions/NAME-STAGE.parquet` beside it with every question's scores and choices, from which another run's
    difference follows question by question. Questions count whose options were all scored.
    """

    kind = KIND
    evaluation_class = MultipleChoice

    def metric(self, evaluation: MultipleChoice) -> ChoiceScores:
        """Sums for each row."""
        return ChoiceScores(evaluation.questions)

    def add(self, metric: ChoiceScores, outputs: dict[str, Any], batch: ScoringBatch) -> None:
        """Add a batch of rows."""
        (token_nll,) = outputs["token_nll"]
        metric.update(batch.documents, token_nll)

    def publish(
        self, trainer: Trainer, module: LitLlama, name: str, metric: ChoiceScores, record: dict[str, Any]
    ) -> dict[str, Any]:
        """Print accuracies, and keep every question's choices."""
        questions = metric.compute()
        found = accuracies(questions)
        usual = self.evaluations(trainer)[name].task.normalisation
        log_scalars(trainer, f"{name}/accuracy", {entry.normalisation: entry.accuracy for entry in found})
        _print(name, found, usual, record["partial"])
        table = table_path("questions", record)
        if questions:
            write_questions(Path(trainer.default_root_dir) / table, questions, [entry.normalisation for entry in found])
        return {"accuracies": [entry._asdict() for entry in found], "table": table.as_posix() if questions else None}


def _print(name: str, found: Sequence[Accuracy], usual: Normalisation, partial: bool) -> None:
    title = f"{name}: questions answered{' (partial: batches were left out)' if partial else ''}"
    table = Table(title=title, caption="* as the field compares options of this task")
    table.add_column("options compared by")
    for column in ("questions", "accuracy", "95 % interval"):
        table.add_column(column, justify="right")
    for entry in found:
        table.add_row(
            f"{LABELS[entry.normalisation]}{' *' if entry.normalisation == usual else ''}", f"{entry.n:,}",
            f"{entry.accuracy:.1%}", f"{entry.low:.1%} to {entry.high:.1%}",
        )  # fmt: skip
    Console().print(table)
