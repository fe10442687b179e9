"""Checkpoints: when training state is saved, and which are kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_pi.ranges import Count
from lit_pi.runs.status import note


class Checkpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, which also saves the last step when no saving was due there.

    Args:
        in_background: write checkpoints while training goes on, from a copy in the CPU's memory; the next one waits.
        options: further options of Lightning's `ModelCheckpoint`.
    """

    def __init__(self, in_background: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.in_background = in_background
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin from the step that a checkpoint was loaded of."""
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        """Save where that is due, after a step: amid micro-batches gradients would be lost."""
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            super().on_train_batch_end(trainer, *rest)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where training ended."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> bool:
        """Save now, unless this step is saved already; return whether it is.

        With `monitor` too, which says which of the others stay: what was trained is not lost to a poor figure.
        """
        if not self._should_skip_saving_checkpoint(trainer):
            found = self._monitor_candidates(trainer)
            if self.monitor is None:
                self._save_topk_checkpoint(trainer, found)
            elif self.save_top_k:
                if self.monitor not in found:
                    rank_zero_warn(f"checkpoint.monitor is {self.monitor}, which was not measured at the last step.")
                self._save_checkpoint(trainer, self._get_metric_interpolated_filepath_name(found, trainer))
        return self._last_global_step_saved == trainer.global_step

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        note(Path(trainer.default_root_dir), step=trainer.global_step, checkpoint=filepath)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for what is written in the background; Lightning's FSDP1 does not."""
        trainer.strategy.checkpoint_io.teardown()


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint that did best in an evaluation of the run, beside the newest one.

    Args:
        monitor: a scalar of an evaluation, named as in TensorBoard: `pg19/perplexity/8192`.
        mode: whether a smaller (`min`) or larger (`max`) value is better.
        keep: how many of the best checkpoints to keep.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"] = "min", keep: int = 1) -> None:
        super().__init__(
            filename="best-{step:06d}",
            monitor=monitor,
            mode=mode,
            save_top_k=keep,
            auto_insert_metric_name=False,
            save_on_train_epoch_end=False,
        )


class CheckpointAt(LightningCheckpoint):
    """Keeps checkpoints of given steps, beside the newest one, as `checkpoints/at-000200.ckpt`.

    Args:
        steps: optimizer steps.
    """

    def __init__(self, steps: Sequence[Count]) -> None:
        self.steps = set(steps)
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin from the step that a checkpoint was loaded of."""
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        """Save after one of the steps."""
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            if self._step in self.steps:
                trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / f"at-{self._step:06d}.ckpt")
