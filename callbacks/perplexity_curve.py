"""Perplexity against context length, of every evaluation that measures it."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from lit_pi.data import LongContextData
from lit_pi.data.batches import ScoringBatch
from lit_pi.data.evaluations import Perplexity
from lit_pi.evaluation.figures import perplexity_figure
from lit_pi.evaluation.perplexity import CurvePoint, PerplexitySums
from lit_pi.evaluation.results import add_record
from lit_pi.module import LitLlama


class PerplexityCurve(Callback):
    """Turns the scores of validation and test into curves.

    Each curve becomes a table in the terminal, scalars `NAME/perplexity/LENGTH` and a figure in TensorBoard, a
    record with its whole protocol in `results.json`, and `figures/NAME-perplexity.png` and `.svg` beside it.
    """

    def __init__(self) -> None:
        self._sums: dict[str, PerplexitySums] = {}
        self._batches: dict[str, int] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from zero."""
        self._start(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from zero."""
        self._start(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *indices: int
    ) -> None:
        """Add a batch."""
        self._add(outputs, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *indices: int
    ) -> None:
        """Add a batch."""
        self._add(outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the curves, unless this was the sanity check."""
        if not trainer.sanity_checking:
            self._publish(trainer, pl_module, trainer.val_dataloaders)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the curves."""
        self._publish(trainer, pl_module, trainer.test_dataloaders)

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not under the LightningModule, whose precision would be theirs.
        self._sums = {
            name: PerplexitySums(evaluation.plan.context_lengths).to(pl_module.device)
            for name, evaluation in _evaluations(trainer).items()
        }
        self._batches = dict.fromkeys(self._sums, 0)

    def _add(self, outputs: Any, batch: ScoringBatch) -> None:
        if (sums := self._sums.get(batch.evaluation)) is not None:
            sums.update(batch.spans, outputs["token_nll"], batch.targets)
            self._batches[batch.evaluation] += 1

    def _publish(self, trainer: Trainer, pl_module: LightningModule, loaders: Any) -> None:
        assert isinstance(pl_module, LitLlama)
        assert trainer.state.fn is not None
        batches = {name: len(loader) for name, loader in zip(_data(trainer).evaluations, loaders, strict=True)}
        for name, evaluation in _evaluations(trainer).items():
            if not self._batches[name]:
                continue
            curve = self._sums[name].compute()
            if not trainer.is_global_zero:
                continue
            record = {
                "kind": "perplexity_curve",
                "evaluation": name,
                "stage": trainer.state.fn.value,
                "step": trainer.global_step,
                "partial": self._batches[name] < batches[name],
                "definition": "token_weighted",
                "curve": [point._asdict() for point in curve],
                "protocol": evaluation.describe() | pl_module.describe(),
            }
            add_record(Path(trainer.default_root_dir), record)
            _draw(trainer, name, curve, pl_module)
            _print(name, curve, record)


def _data(trainer: Trainer) -> LongContextData:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, LongContextData)
    return data


def _evaluations(trainer: Trainer) -> dict[str, Perplexity]:
    return {name: found for name, found in _data(trainer).evaluations.items() if isinstance(found, Perplexity)}


def _draw(trainer: Trainer, name: str, curve: list[CurvePoint], pl_module: LitLlama) -> None:
    label = f"{name}: {pl_module.position.describe()['class']}"
    figure = perplexity_figure({label: curve}, pl_module.rope.original_context)
    folder = Path(trainer.default_root_dir) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for ending in ("png", "svg"):
        figure.savefig(folder / f"{name}-perplexity.{ending}")
    for logger in trainer.loggers:
        logger.log_metrics(
            {f"{name}/perplexity/{point.context_length}": point.perplexity for point in curve}, trainer.global_step
        )
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(f"{name}/perplexity", figure, trainer.global_step)


def _print(name: str, curve: list[CurvePoint], record: dict[str, Any]) -> None:
    table = Table(title=f"{name}: perplexity{' (partial: batches were left out)' if record['partial'] else ''}")
    for column in ("context length", "perplexity", "nats a token", "tokens scored"):
        table.add_column(column, justify="right")
    for point in curve:
        table.add_row(
            f"{point.context_length:,}", f"{point.perplexity:.3f}", f"{point.token_nll:.4f}", f"{point.tokens:,}"
        )
    Console().print(table)
