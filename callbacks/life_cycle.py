"""The life of a run: how far it came, and how it stops."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import distributed
from torch.optim import Optimizer

from lit_pi.callbacks.checkpoint import Checkpoint
from lit_pi.parallel.late import LateReader
from lit_pi.runs.ranks import CONTINUE
from lit_pi.runs.signals import SIGNALS, Stopped
from lit_pi.runs.status import note

EVERY = 10.0
"""Seconds, at least, between two notes of the step."""


class LifeCycle(Callback):
    """Notes in `status.json` how far a run came, and stops it when a signal asks for that.

    SIGTERM, SIGUSR1 and Ctrl-C save a checkpoint at the end of the optimizer step and end the process with status 143,
    138 or 130; all ranks stop after the same step, though only one was asked. A validation is cut short on one process,
    and awaited on several. Under Slurm, the signal that asks for a requeue requeues the job.
    """

    def __init__(self) -> None:
        self._step: int | None = None
        self._steps: int | None = None
        self._noted = 0.0
        self._asked = LateReader()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait with signals for the end of steps."""
        steps = trainer.estimated_stepping_batches
        self._step, self._steps = trainer.global_step, None if steps == float("inf") else int(steps)
        note(_run(trainer), step=self._step, steps=self._steps)
        SIGNALS.listen()
        SIGNALS.waits = True

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Tell the other ranks of a signal."""
        if trainer.world_size > 1:
            self._asked.put(trainer.global_step, _largest(SIGNALS.asked, pl_module.device))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """After a step, note it, and stop if that is asked for."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if time.monotonic() - self._noted > EVERY:
            self._noted = time.monotonic()
            note(_run(trainer), step=self._step)
        asked = [int(number) for _, (number,) in self._asked.take()] if trainer.world_size > 1 else [SIGNALS.asked]
        self._stop(trainer, max(asked, default=0))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take signals over from Lightning."""
        SIGNALS.listen()

    def on_validation_batch_start(self, trainer: Trainer, *rest: Any) -> None:
        """Cut a validation of training short."""
        if cut_short(trainer):
            raise StopIteration  # ends Lightning's loop

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after a validation of training, if that is asked for."""
        if SIGNALS.waits:
            several = trainer.world_size > 1
            self._stop(trainer, int(_largest(SIGNALS.asked, pl_module.device)) if several else SIGNALS.asked)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take signals over from Lightning."""
        SIGNALS.listen()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take signals over from Lightning."""
        SIGNALS.listen()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where training ended; what follows may be stopped at once."""
        self._end(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that nothing was left to train, where that is so."""
        if self._step is None:
            step, steps = trainer.global_step, trainer.max_steps
            note(_run(trainer), step=step, steps=max(step, steps), checkpoint=str(trainer.ckpt_path))
            asked = f"trainer.max_steps is {steps:,}" if steps > 0 else "trainer.max_epochs are over"
            rank_zero_warn(f"Nothing is left to train: {trainer.ckpt_path} is of step {step:,}, and {asked}.")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Note where training ended."""
        self._end(trainer)

    def _end(self, trainer: Trainer) -> None:
        SIGNALS.waits = False
        if self._step is not None:
            note(_run(trainer), step=trainer.global_step)

    def _stop(self, trainer: Trainer, number: int) -> None:
        if not number:
            return
        saved = [
            callback.save(trainer) for callback in trainer.checkpoint_callbacks if isinstance(callback, Checkpoint)
        ]
        _requeue(trainer, number)
        place = f"at step {trainer.global_step:,}" + (f" of {self._steps:,}" if self._steps else "")
        raise Stopped(number, f"{place}: {CONTINUE}" if any(saved) else f"{place}, and nothing was saved")


def cut_short(trainer: Trainer) -> bool:
    """Whether a validation of training ends early, because the run is to stop; ranks would not end alike."""
    return SIGNALS.waits and SIGNALS.asked > 0 and trainer.world_size == 1


def _run(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir)


def _largest(number: int, device: torch.device) -> torch.Tensor:
    """The largest of all ranks' numbers, on the device."""
    found = torch.full((1,), number, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return found


def _requeue(trainer: Trainer, number: int) -> None:
    environment = trainer._accelerator_connector.cluster_environment
    if not (isinstance(environment, SLURMEnvironment) and environment.auto_requeue and trainer.is_global_zero):
        return
    if number == environment.requeue_signal:
        array = os.environ.get("SLURM_ARRAY_JOB_ID")
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
        done = subprocess.run(["scontrol", "requeue", job], check=False)  # noqa: S603, S607 - Slurm's, by its number
        rank_zero_info(f"Requeued job {job}." if done.returncode == 0 else f"Job {job} could not be requeued.")
