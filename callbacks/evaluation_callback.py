"""What callbacks that turn scores into results share."""

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torchmetrics import Metric

from lit_pi.batches import GenerationBatch, ScoringBatch
from lit_pi.data.ranks import data_ranks
from lit_pi.datamodules import LongContextData
from lit_pi.evaluations import Evaluation
from lit_pi.evaluations.figures import Picture, draw, save
from lit_pi.evaluations.records import add_record
from lit_pi.module import LitLlama
from lit_pi.report import write_tables

E = TypeVar("E", bound=Evaluation)
M = TypeVar("M", bound=Metric)


class EvaluationCallback(Callback, Generic[E, M]):
    """Sums the scores of one kind of evaluation in validation and test, and publishes what they come to.

    Attributes:
        asked: the evaluations of this kind, by name.
    """

    kind: str
    """Of the record in `results.json`."""
    evaluation_class: type[E]

    def __init__(self) -> None:
        self.asked: dict[str, E] = {}
        self._sums: dict[str, M] = {}
        self._batches: dict[str, int] = {}

    @abstractmethod
    def metric(self, evaluation: E) -> M:
        """Sums, at zero."""

    @abstractmethod
    def add(self, metric: M, outputs: dict[str, Any], batch: Any) -> None:
        """Add a batch, `ScoringBatch` or `GenerationBatch`, and what the step made of it to the sums."""

    @abstractmethod
    def publish(
        self, trainer: Trainer, module: LitLlama, name: str, metric: M, record: dict[str, Any]
    ) -> dict[str, Any]:
        """Show what an evaluation found, and return its part of the record; called by rank 0 only.

        Args:
            trainer: of the run.
            module: the model that was scored.
            name: of the evaluation.
            metric: its sums.
            record: what all kinds of records have.
        """

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
        """Publish, unless this was the sanity check."""
        if not trainer.sanity_checking:
            self._publish(trainer, pl_module, trainer.val_dataloaders)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish."""
        self._publish(trainer, pl_module, trainer.test_dataloaders)

    def evaluations(self, trainer: Trainer) -> dict[str, E]:
        """The evaluations of this kind, by name."""
        found = _data(trainer).evaluations.items()
        return {name: evaluation for name, evaluation in found if isinstance(evaluation, self.evaluation_class)}

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not under the LightningModule, whose precision would be theirs.
        self.asked = self.evaluations(trainer)
        self._sums = {name: self.metric(evaluation).to(pl_module.device) for name, evaluation in self.asked.items()}
        for metric in self._sums.values():
            metric.process_group = data_ranks(trainer).group
        self._batches = dict.fromkeys(self._sums, 0)

    def _add(self, outputs: Any, batch: ScoringBatch | GenerationBatch) -> None:
        if (metric := self._sums.get(batch.evaluation)) is not None:
            self.add(metric, outputs, batch)
            self._batches[batch.evaluation] += 1

    def _publish(self, trainer: Trainer, pl_module: LightningModule, loaders: Any) -> None:
        assert isinstance(pl_module, LitLlama)
        assert trainer.state.fn is not None
        batches = {name: len(loader) for name, loader in zip(_data(trainer).evaluations, loaders, strict=True)}
        for name, evaluation in self.evaluations(trainer).items():
            if not self._batches[name]:
                continue
            metric = self._sums[name]
            metric.compute()  # gathers over the ranks, so all of them take part
            if not trainer.is_global_zero:
                continue
            record = {
                "kind": self.kind,
                "evaluation": name,
                "stage": trainer.state.fn.value,
                "step": trainer.global_step,
                "partial": self._batches[name] < batches[name],
            }
            found = self.publish(trainer, pl_module, name, metric, record)
            protocol = {"protocol": evaluation.describe() | pl_module.describe()}
            seed = os.environ.get("PL_GLOBAL_SEED")  # where Lightning's `seed_everything` keeps it
            seeds = {"seed_everything": None if seed is None else int(seed)}
            add_record(Path(trainer.default_root_dir), record | found | protocol | seeds)
            _show_tables(trainer)
        # Callbacks monitor on all ranks what rank 0 published.
        tags = tuple(f"{name}/" for name in self.asked)
        scalars = {name: value for name, value in trainer.callback_metrics.items() if name.startswith(tags)}
        trainer.callback_metrics.update(trainer.strategy.broadcast(scalars))


def show(trainer: Trainer, tag: str, scalars: dict[str, float], picture: Picture) -> None:
    """Log scalars and a figure, and save the figure in the run directory as PNG and SVG.

    Args:
        trainer: of the run.
        tag: of the figure, `NAME/KIND`.
        scalars: by what follows the tag.
        picture: to show.
    """
    save(picture, Path(trainer.default_root_dir) / "figures", tag.replace("/", "-"))
    log_scalars(trainer, tag, scalars)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(tag, draw(picture), trainer.global_step)


def log_scalars(trainer: Trainer, tag: str, scalars: dict[str, float]) -> None:
    """Log scalars `TAG/NAME` by their names, which callbacks may monitor."""
    named = {f"{tag}/{name}": value for name, value in scalars.items()}
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in named.items()})
    for logger in trainer.loggers:
        logger.log_metrics(named, trainer.global_step)


def table_path(kind: str, record: dict[str, Any]) -> Path:
    """Where in the run directory a record's table is; a run that trains on has one for each step."""
    step = f"-{record['step']:06d}" if record["stage"] == "fit" else ""
    return Path(kind) / f"{record['evaluation']}-{record['stage']}{step}.parquet"


def _show_tables(trainer: Trainer) -> None:
    """Every table of the run so far, in its directory and in TensorBoard's text tab."""
    markdown = write_tables(Path(trainer.default_root_dir))
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("results", markdown, trainer.global_step)


def _data(trainer: Trainer) -> LongContextData:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, LongContextData)
    return data
