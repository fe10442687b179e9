"""The progress bar of training."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class LossProgressBar(TQDMProgressBar):
    """Lightning's bar and the loss, which is fetched from a GPU only when it is logged: to fetch it is to wait."""

    _loss: float | None = None

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The figures that stand behind the bar."""
        loss = trainer.callback_metrics.get("train/loss")
        due = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if loss is not None and (due or not loss.is_cuda):
            self._loss = float(loss)
        return super().get_metrics(trainer, pl_module) | ({} if self._loss is None else {"loss": f"{self._loss:.3f}"})
