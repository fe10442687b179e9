"""Whether decoding with a cache agrees with a full pass, of every evaluation that compares them."""

from typing import Any

from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table

from lit_pi.batches import GenerationBatch
from lit_pi.callbacks.evaluation_callback import EvaluationCallback, log_scalars
from lit_pi.evaluations import DecodeConsistency
from lit_pi.evaluations.decoding.differences import KIND, DecodeDifference, DecodeDifferenceSums, overall, tolerance_of
from lit_pi.module import LitLlama


class DecodeDifferences(EvaluationCallback[DecodeConsistency, DecodeDifferenceSums]):
    """Compares `token_nll` of a full pass with what decoding reads step by step from its KV cache.

    The largest and the mean absolute difference in nats become a table with the verdict in the terminal, scalars
    `NAME/decode/max` and `NAME/decode/mean` in TensorBoard, and a record in `results.json` with every document's.
    """

    kind = KIND
    evaluation_class = DecodeConsistency

    def metric(self, evaluation: DecodeConsistency) -> DecodeDifferenceSums:
        """Sums for each document."""
        return DecodeDifferenceSums(len(evaluation.samples))

    def add(self, metric: DecodeDifferenceSums, outputs: dict[str, Any], batch: GenerationBatch) -> None:
        """Add a batch of windows."""
        metric.update(batch.documents, outputs["token_nll"], outputs["decoded_nll"])

    def publish(
        self, trainer: Trainer, module: LitLlama, name: str, metric: DecodeDifferenceSums, record: dict[str, Any]
    ) -> dict[str, Any]:
        """Print the differences and the verdict."""
        evaluation, dtype = self.asked[name], module.describe()["compute_dtype"]
        tolerance = tolerance_of(dtype) if evaluation.tolerance is None else evaluation.tolerance
        documents = metric.compute()
        found = overall(documents)
        consistent = found.max is not None and found.max <= tolerance
        scalars = {"max": found.max, "mean": found.mean}
        log_scalars(trainer, f"{name}/decode", {key: value for key, value in scalars.items() if value is not None})
        _print(name, module.position.describe()["class"], found, f"{tolerance:g} in {dtype}", consistent, record)
        return {
            "consistent": consistent,
            "tolerance": tolerance,
            "tokens": found.tokens,
            "max_difference": found.max,
            "mean_difference": found.mean,
            "documents": [
                {"id": evaluation.document_ids[entry.document], **entry._asdict()} for entry in documents
            ],
        }  # fmt: skip


def _print(
    name: str, strategy: str, found: DecodeDifference, tolerance: str, consistent: bool, record: dict[str, Any]
) -> None:
    partial = " (partial: batches were left out)" if record["partial"] else ""
    table = Table(title=f"{name}: decoding against a full pass, {strategy}{partial}")
    for column in ("tokens", "largest difference", "mean difference", "tolerance (nats)", "verdict"):
        table.add_column(column, justify="right")
    differences = ("not finite" if value is None else f"{value:.2e}" for value in (found.max, found.mean))
    verdict = "consistent" if consistent else "[bold red]NOT consistent[/]"
    table.add_row(f"{found.tokens:,}", *differences, tolerance, verdict)
    Console().print(table)
