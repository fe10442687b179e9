"""When training state is saved."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class Checkpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, which also saves the last step when no saving was due there."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where training ended."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
