"""Perplexity against context length, of every evaluation that measures it."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lit_pi.callbacks.evaluation_callback import EvaluationCallback, log_scalars, show, table_path
from rich.console import Console
from rich.table import Table

from lit_pi.batches import ScoringBatch
from lit_pi.evaluations import Perplexity
from lit_pi.evaluations.perplexity.definitions import DEFINITIONS
from lit_pi.evaluations.perplexity.figures import loss_by_position_figure, perplexity_figure
from lit_pi.evaluations.perplexity.measures import Perplexities, measure
from lit_pi.evaluations.perplexity.paired import KIND
from lit_pi.evaluations.perplexity.score_tables import write_documents, write_tokens
from lit_pi.evaluations.perplexity.tables import protocol_note
from lit_pi.evaluations.perplexity.token_scores import TokenScores, series_of
from lit_pi.evaluations.statistics.document_intervals import FEW_DOCUMENTS
from lit_pi.module import LitLlama


class PerplexityCurve(EvaluationCallback[Perplexity, TokenScores]):
    """Turns the scores of validation and test into curves, one for each definition of perplexity.

    They become tables in the terminal, with 95 % intervals over documents; scalars `NAME/perplexity/LENGTH` (every
    token counts alike), `NAME/DEFINITION/LENGTH` and `NAME/context_gain/LENGTH`, and figures of the curve and of the
    loss by position in TensorBoard and in `figures/`; a record with the whole protocol in `results.json`; and
    `scores/NAME-STAGE.parquet` beside it with the sums of every document, from which another run's difference follows.
    After a test or a validation, `scores/NAME-STAGE-tokens.parquet` has the loss of every token.
    """

    kind = KIND
    evaluation_class = Perplexity

    def metric(self, evaluation: Perplexity) -> TokenScores:
        """An empty store of losses."""
        return TokenScores(series_of(evaluation.plans), evaluation.lengths.tolist())

    def add(self, metric: TokenScores, outputs: dict[str, Any], batch: ScoringBatch) -> None:
        """Add a batch of windows."""
        metric.update(batch.spans, outputs["token_nll"], batch.targets, batch.scored, batch.documents, batch.begins)

    def publish(
        self, trainer: Trainer, module: LitLlama, name: str, metric: TokenScores, record: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw and print the curve."""
        evaluation, losses = self.evaluations(trainer)[name], metric.compute()
        known = evaluation.token_bytes(trainer.datamodule.tokenizer)  # type: ignore[attr-defined]
        found = measure(losses, evaluation.plans, evaluation.sample, known.token_bytes)
        protocol = evaluation.describe() | module.describe()
        label = f"{name}: {protocol['position']['class']}"
        scalars = {str(point.context_length): point.perplexity for point in found.curve}
        figure = perplexity_figure({label: found.curve}, module.rope.original_context)
        show(trainer, f"{name}/perplexity", scalars, figure)
        for key, points in found.definitions.items():
            if key != "token_weighted":
                log_scalars(trainer, f"{name}/{key}", {str(point.context_length): point.value for point in points})
        gains = {str(gain.context_length): gain.gain for gain in found.context_gain}
        log_scalars(trainer, f"{name}/context_gain", gains)
        show(trainer, f"{name}/loss_by_position", {}, loss_by_position_figure(found.positions, label))
        _print(name, found, protocol, record["partial"], known.reason)
        table = table_path("scores", record)
        write_documents(Path(trainer.default_root_dir) / table, protocol["document_ids"], found.totals)
        if record["stage"] != "fit":
            write_tokens(Path(trainer.default_root_dir) / table.with_name(f"{table.stem}-tokens.parquet"), losses)
        return {
            "definition": "token_weighted",
            "curve": [point._asdict() for point in found.curve],
            "definitions": {key: [point._asdict() for point in points] for key, points in found.definitions.items()},
            "context_gain": [gain._asdict() for gain in found.context_gain],
            "positions": [
                {"context_length": length, "buckets": [bucket._asdict() for bucket in buckets]}
                for length, buckets in found.positions.items()
            ],
            "bits_per_byte_left_out": known.reason,
            "table": table.as_posix(),
        }


def _print(name: str, found: Perplexities, protocol: dict[str, Any], partial: bool, no_bytes: str | None) -> None:
    console = Console()
    sampled = protocol["sampling"] is not None and not partial
    table = Table(title=f"{name}: perplexity{' (partial: batches were left out)' if partial else ''}")
    intervals = ["95 % interval\nover documents", *(["95 % interval\nof all windows"] if sampled else [])]
    for column in ("context\nlength", "perplexity", *intervals, "tokens\nscored"):
        table.add_column(column, justify="right", no_wrap=True)
    for point in found.curve:
        ends = [(point.low, point.high), *([(point.sampling_low, point.sampling_high)] if sampled else [])]
        table.add_row(
            f"{point.context_length:,}", f"{point.perplexity:.3f}", *(_interval(*end) for end in ends),
            f"{point.tokens:,}",
        )  # fmt: skip
    console.print(table)
    console.print(_definitions(name, found))
    console.print(f"{name}: {protocol_note(protocol)}.")
    if no_bytes is not None:
        console.print(f"{name}: bits per byte are left out: {no_bytes}.")
    if (documents := protocol["documents"]) < FEW_DOCUMENTS:
        console.print(
            f"Warning: intervals over {documents} documents are too narrow where documents differ much: "
            f"measure {FEW_DOCUMENTS} or more."
        )


def _definitions(name: str, found: Perplexities) -> Table:
    rows = {
        DEFINITIONS[key].label: {point.context_length: f"{point.value:.3f}" for point in points}
        for key, points in found.definitions.items()
        if key != "token_weighted"
    }
    gains = {gain.context_length: gain for gain in found.context_gain}
    if gains:
        rows["context gain on common tokens (nats)"] = {length: f"{gain.gain:.4f}" for length, gain in gains.items()}
        rows["  its 95 % interval, low"] = {length: _number(gain.low) for length, gain in gains.items()}
        rows["  its 95 % interval, high"] = {length: _number(gain.high) for length, gain in gains.items()}
    table = Table(title=f"{name}: other definitions")
    table.add_column("context length", no_wrap=True)
    for point in found.curve:
        table.add_column(f"{point.context_length:,}", justify="right")
    for label, cells in rows.items():
        table.add_row(label, *(cells.get(point.context_length, "") for point in found.curve))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
