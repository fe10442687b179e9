"""Evaluations in validation and test: their scores summed, what they come to published and kept."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from rich.console import Console
from torch import distributed
from torchmetrics import Metric

from lit_pi.batches import GenerationBatch, ScoringBatch, signed, written
from lit_pi.callbacks.freshness import Freshness
from lit_pi.callbacks.history import History
from lit_pi.callbacks.life_cycle import cut_short
from lit_pi.callbacks.loggers import log_charts, log_curves, log_picture, log_text
from lit_pi.data.documents.overlap import in_words, trained_on
from lit_pi.data.ranks import data_ranks
from lit_pi.datamodules import LongContextData
from lit_pi.datamodules.step_schedule import StepSchedule, validate
from lit_pi.errors import UserError
from lit_pi.evaluations import Evaluation
from lit_pi.evaluations.evaluation import Results, import_path
from lit_pi.evaluations.figures import save
from lit_pi.evaluations.parquet import write_columns
from lit_pi.evaluations.records import FILE, Run, add_record, load_records, marked
from lit_pi.files import beside, file_name
from lit_pi.models import ModelSource, Pretrained
from lit_pi.module import LitLlama
from lit_pi.report import write_tables


class Measurements(Callback):
    """Sums what the evaluations of `data.evaluations` score in validation and test, and publishes what they come to.

    Tables are printed and kept in `tables.md` and `tables.tex`, pictures in `figures/`; every logger gets the scalars
    `NAME/KEY`, and those that can take them the pictures and tables. `results.json` keeps the record with the whole
    protocol, and a Parquet file beside it what was measured item by item, from which another run's difference follows.

    Scalars are there before any callback's `on_validation_end`, so that `EarlyStopping`, `ModelCheckpoint` and
    learning rate schedulers may monitor them; these see a figure once, when it has just been measured.

    Args:
        show: print the tables to the terminal.
    """

    def __init__(self, show: bool = True) -> None:
        self.show = show
        self._asked: dict[str, Evaluation] = {}
        self._sums: dict[str, Metric] = {}
        self._batches: dict[str, int] = {}
        self._digests: dict[str, int] = {}
        self._freshness = Freshness()
        self._charted: set[str] = set()
        self._schedule: StepSchedule | None = None
        self._behind = False
        self._overlaps: dict[str, dict[str, Any] | None] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let callbacks that monitor an evaluation wait for its next measurement."""
        if isinstance(data := trainer.datamodule, LongContextData):  # type: ignore[attr-defined]
            self._freshness.guard(trainer.callbacks, data.evaluations)  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Plan at which steps to validate."""
        if isinstance(data := trainer.datamodule, LongContextData):  # type: ignore[attr-defined]
            self._schedule = StepSchedule(trainer, data.evaluations.values(), data.evaluate_last_step)
            self._behind = trainer.strategy.broadcast(self._schedule.begins_amid and _unmeasured(trainer))

    def on_train_batch_start(self, trainer: Trainer, *rest: Any) -> None:
        """Measure first what a run that was stopped amid a validation still owes."""
        if self._behind:
            self._behind = False
            validate(trainer)

    def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        """Have a validation follow where one is due."""
        if self._schedule is not None:
            self._schedule.after_batch(trainer)

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

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish, unless this was the sanity check, or a validation that was cut short."""
        if not trainer.sanity_checking and not cut_short(trainer):
            self._publish(trainer, pl_module, trainer.val_dataloaders)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish."""
        self._publish(trainer, pl_module, trainer.test_dataloaders)

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not under the LightningModule, whose precision would be theirs.
        self._asked = _data(trainer).evaluations
        self._sums = {name: evaluation.metric().to(pl_module.device) for name, evaluation in self._asked.items()}
        for metric in self._sums.values():
            metric.process_group = data_ranks(trainer).group
        self._batches = dict.fromkeys(self._sums, 0)
        self._digests = dict.fromkeys(self._sums, 0)
        self._freshness.forget(trainer)

    def _add(self, outputs: Any, batch: ScoringBatch | GenerationBatch) -> None:
        name = batch.evaluation
        self._asked[name].add(self._sums[name], outputs, batch)
        self._batches[name] += 1
        self._digests[name] += batch.digest

    def _publish(self, trainer: Trainer, pl_module: LightningModule, loaders: Any) -> None:
        assert isinstance(pl_module, LitLlama) and trainer.state.fn is not None
        batches = {name: len(loader) for name, loader in zip(self._asked, loaders, strict=True)}
        histories = [callback for callback in trainer.callbacks if isinstance(callback, History)]  # type: ignore[attr-defined]
        fitting = trainer.state.fn == "fit"
        if fitting:
            came = histories[0].trainings(trainer, pl_module) if histories else []
        else:
            came = _origin(pl_module).history()
        scalars: dict[str, float] = {}
        for name in [name for name, count in self._batches.items() if count]:
            self._sums[name].compute()  # gathers over the ranks, so all of them take part
            windows = _total(self._digests[name], trainer, pl_module)
            if trainer.is_global_zero:
                partial = self._batches[name] < batches[name]
                scalars |= self._found(trainer, pl_module, name, partial, {"history": came, "windows": windows})
        # Callbacks monitor on all ranks what rank 0 published.
        scalars = trainer.strategy.broadcast(scalars)
        if not trainer.barebones:
            # Lightning's own logging of a validation amid training says the step before.
            pl_module.log_dict(scalars, logger=False if fitting else None)
            for logger in trainer.loggers if fitting else ():
                logger.log_metrics(scalars, trainer.global_step)
            self._log_curves(trainer.loggers, scalars, fitting)
        self._freshness.measured([name for name, count in self._batches.items() if count])

    def _log_curves(self, loggers: Sequence[Logger], scalars: dict[str, float], fitting: bool) -> None:
        new = scalars.keys() - self._charted
        self._charted |= new
        for logger in loggers:
            if not fitting:
                log_curves(logger, scalars)
            elif new:
                log_charts(logger, self._charted)

    def _found(
        self, trainer: Trainer, module: LitLlama, name: str, partial: bool, origin: dict[str, Any]
    ) -> dict[str, float]:
        """Publish what one evaluation found, and return its scalars; called by rank 0 only."""
        assert trainer.state.fn is not None
        evaluation, model = self._asked[name], module.describe()
        results = evaluation.results(self._sums[name], model)
        protocol = evaluation.describe()
        seed = os.environ.get("PL_GLOBAL_SEED")  # where Lightning's `seed_everything` keeps it
        record = {
            "kind": evaluation.kind,
            "class_path": import_path(type(evaluation)),
            "evaluation": name,
            "stage": trainer.state.fn.value,
            "step": trainer.global_step,
            "partial": partial,
            "unfinished": None if trainer.state.fn == "fit" else _origin(module).unfinished(),
            **origin,
            "trained_on": self._trained_on(trainer, name),
            **results.record,
            "asked": _digest(name, protocol),
            "protocol": protocol | model,
            "seed_everything": None if seed is None else int(seed),
        }
        run = Path(trainer.default_root_dir)
        record["table"] = _write_items(run, evaluation, record, results)
        record = marked(record)
        if "failed" in record:
            rank_zero_warn(f"{name} failed at step {trainer.global_step}: {record['failed']}")
        add_record(run, record)
        _show(trainer, evaluation, record, self.show)
        return {f"{name}/{key}": float(value) for key, value in results.scalars.items()}

    def _trained_on(self, trainer: Trainer, name: str) -> dict[str, Any] | None:
        """Which of the documents of an evaluation the model was trained on; found out once, and said."""
        if name not in self._overlaps:
            hashes, stores = self._asked[name].document_hashes(), _data(trainer).training_records
            found = None if hashes is None or not stores else trained_on(hashes, stores)
            if found is not None and found["documents"]:
                rank_zero_info(
                    f"{name}: the model was {in_words(found)} that are measured, in {'; '.join(found['in'])}."
                )
            self._overlaps[name] = found
        return self._overlaps[name]


def _total(digest: int, trainer: Trainer, module: LitLlama) -> str:
    """The digest of what all ranks measured."""
    part = torch.tensor([signed(digest)], device=module.device)
    if trainer.world_size > 1:
        distributed.all_reduce(part, group=data_ranks(trainer).group)
    return written(int(part))


def _origin(module: LitLlama) -> ModelSource:
    """Whence the weights that are measured come."""
    return Pretrained(module.checkpoint_path) if module.checkpoint_path else module.source


def _unmeasured(trainer: Trainer) -> bool:
    """Whether the run has no results of the step it begins at."""
    run = Path(trainer.default_root_dir)
    found = load_records(run) if (run / FILE).exists() else []
    return not any((record["stage"], record["step"]) == ("fit", trainer.global_step) for record in found)


def _digest(name: str, protocol: dict[str, Any]) -> str:
    """Digest what was asked: runs that share it are compared item by item.

    Raises:
        UserError: the protocol is not plain JSON.
    """
    try:
        return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]
    except TypeError as error:
        raise UserError(f"the evaluation {name} describes itself by what is not plain JSON: {error}") from error


def _write_items(run: Path, evaluation: Evaluation, record: dict[str, Any], results: Results) -> str | None:
    """Write the items that were measured; a run that trains on has a file for each step."""
    fitting = record["stage"] == "fit"
    step = f"-{record['step']:06d}" if fitting else ""
    table = Path(evaluation.folder) / f"{record['evaluation']}-{record['stage']}{step}.parquet"
    if results.items is None:
        return None
    write_columns(run / table, results.items)
    for ending, write in () if fitting else results.files.items():
        with beside(run / table.with_name(f"{table.stem}-{ending}.parquet")) as partial:
            write(partial)
    return table.as_posix()


def _show(trainer: Trainer, evaluation: Evaluation, record: dict[str, Any], to_terminal: bool) -> None:
    """Print, draw and log what one evaluation found."""
    run = Path(trainer.default_root_dir)
    found = {record["evaluation"]: {Run(run.resolve().name, run): record}}
    for table in evaluation.tables(found) if to_terminal else ():
        table.print(Console())
    for name, picture in evaluation.figures(found).items():
        png, _ = save(picture, run / "figures", file_name(name))
        for logger in trainer.loggers:
            log_picture(logger, name, png, trainer.global_step)
    markdown = write_tables(run)
    for logger in trainer.loggers:
        log_text(logger, "results", markdown, trainer.global_step)


def _data(trainer: Trainer) -> LongContextData:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, LongContextData)
    return data
