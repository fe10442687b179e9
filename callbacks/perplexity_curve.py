"""Perplexity against context length, of every evaluation that measures it."""

from typing import Any

from lightning.pytorch import Trainer
from lit_pi.callbacks.evaluation_callback import EvaluationCallback, show
from rich.console import Console
from rich.table import Table

from lit_pi.batches import ScoringBatch
from lit_pi.data.evaluations import Perplexity
from lit_pi.evaluation.figures import perplexity_figure
from lit_pi.evaluation.perplexity import CurvePoint, PerplexitySums
from lit_pi.module import LitLlama


class PerplexityCurve(EvaluationCallback[Perplexity, PerplexitySums]):
    """Turns the scores of validation and test into curves.

    Each curve becomes a table in the terminal, scalars `NAME/perplexity/LENGTH` and a figure in TensorBoard, a
    record with its whole protocol in `results.json`, and `figures/NAME-perplexity.png` and `.svg` beside it.
    """

    kind = "perplexity_curve"
    evaluation_class = Perplexity

    def metric(self, evaluation: Perplexity) -> PerplexitySums:
        """Sums for each context length."""
        return PerplexitySums(evaluation.plan.context_lengths)

    def add(self, metric: PerplexitySums, outputs: dict[str, Any], batch: ScoringBatch) -> None:
        """Add a batch of windows."""
        metric.update(batch.spans, outputs["token_nll"], batch.targets)

    def publish(
        self, trainer: Trainer, module: LitLlama, name: str, metric: PerplexitySums, record: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw and print the curve."""
        curve = metric.compute()
        label = f"{name}: {module.position.describe()['class']}"
        scalars = {str(point.context_length): point.perplexity for point in curve}
        show(trainer, f"{name}/perplexity", scalars, perplexity_figure({label: curve}, module.rope.original_context))
        _print(name, curve, record["partial"])
        return {"definition": "token_weighted", "curve": [point._asdict() for point in curve]}


def _print(name: str, curve: list[CurvePoint], partial: bool) -> None:
    table = Table(title=f"{name}: perplexity{' (partial: batches were left out)' if partial else ''}")
    for column in ("context length", "perplexity", "nats a token", "tokens scored"):
        table.add_column(column, justify="right")
    for point in curve:
        table.add_row(
            f"{point.context_length:,}", f"{point.perplexity:.3f}", f"{point.token_nll:.4f}", f"{point.tokens:,}"
        )
    Console().print(table)
