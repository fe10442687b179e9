"""How good the summaries are, of every evaluation that asks for some."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table

from lit_pi.batches import GenerationBatch
from lit_pi.callbacks.evaluation_callback import EvaluationCallback, log_scalars, table_path
from lit_pi.evaluations import Summarization
from lit_pi.evaluations.statistics.document_intervals import FEW_DOCUMENTS
from lit_pi.evaluations.summaries.scores import KIND, LABELS, MeasureMean, SummaryScores, means
from lit_pi.evaluations.summaries.summary_table import write_summaries
from lit_pi.module import LitLlama


class SummaryQuality(EvaluationCallback[Summarization, SummaryScores]):
    """Turns the summaries written in validation and test into ROUGE, length, cap rate, repetition and copying.

    Means, their intervals over documents and the deviation between seeds become a table in the terminal, scalars
    `NAME/summaries/MEASURE` in TensorBoard, a record with the protocol in `results.json`, and
    `summaries/NAME-STAGE.parquet` beside it with every summary and its measures.
    """

    kind = KIND
    evaluation_class = Summarization

    def metric(self, evaluation: Summarization) -> SummaryScores:
        """Measures of each summary."""
        return SummaryScores(len(evaluation.samples), evaluation.max_new_tokens)

    def add(self, metric: SummaryScores, outputs: dict[str, Any], batch: GenerationBatch) -> None:
        """Measure a batch of summaries, on the rank that wrote them."""
        evaluation, real = self.asked[batch.evaluation], batch.documents >= 0
        samples, token_ids = batch.documents[real], outputs["token_ids"][real]
        lengths, stopped = outputs["lengths"][real].tolist(), outputs["stopped"][real].tolist()
        rows = zip(samples.tolist(), token_ids.tolist(), lengths, stopped, strict=True)
        measures = [evaluation.measure(sample, row[:length], end) for sample, row, length, end in rows]
        metric.update(samples, measures, token_ids)

    def publish(
        self, trainer: Trainer, module: LitLlama, name: str, metric: SummaryScores, record: dict[str, Any]
    ) -> dict[str, Any]:
        """Print means, and keep every summary."""
        evaluation, summaries = self.asked[name], metric.compute()
        found = means(summaries, evaluation.samples)
        log_scalars(trainer, f"{name}/summaries", {entry.measure: entry.mean for entry in found})
        samples = [evaluation.samples[summary.sample] for summary in summaries]
        documents = len({sample.document for sample in samples})
        cut = evaluation.describe()["documents_cut"]
        notes = [f"{part} cut to its limit in {number:,} of {documents:,} documents" for part, number in cut.items()]
        notes += (
            [f"fewer than {FEW_DOCUMENTS} documents: the intervals may be too narrow"]
            if documents < FEW_DOCUMENTS
            else []
        )
        title = f"{name}: {len(samples):,} summaries of {documents:,} documents"
        _print(f"{title}{' (partial: batches were left out)' if record['partial'] else ''}", found, notes)
        table = table_path("summaries", record)
        ids = [evaluation.documents[sample.document].id for sample in samples]
        texts = [evaluation.text(summary.sample, summary.token_ids) for summary in summaries]
        seeds = [sample.seed for sample in samples]
        write_summaries(Path(trainer.default_root_dir) / table, summaries, ids, seeds, texts)
        return {
            "summaries": len(samples),
            "documents": documents,
            "measures": [entry._asdict() for entry in found],
            "table": table.as_posix(),
        }


def _print(title: str, found: list[MeasureMean], notes: list[str]) -> None:
    table = Table(title=title, caption="\n".join(notes) or None)
    table.add_column("")
    for column in ("mean", "95 % interval", "deviation of seeds"):
        table.add_column(column, justify="right")
    for entry in found:
        interval = "-" if entry.low is None else f"{entry.low:.2f} to {entry.high:.2f}"
        deviation = "-" if entry.seed_deviation is None else f"{entry.seed_deviation:.2f}"
        table.add_row(LABELS[entry.measure], f"{entry.mean:.2f}", interval, deviation)
    Console().print(table)
