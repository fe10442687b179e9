"""How a model came to be: its trainings, each with what determined it, and digests of what it began with and saw."""

import resource
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed

from lit_pi.batches import TrainingBatch, at_step, signed, written
from lit_pi.data.ranks import data_ranks
from lit_pi.datamodules import LongContextData
from lit_pi.models.sources.checkpoint import HISTORY
from lit_pi.module import LitLlama
from lit_pi.parallel.weight_digest import weight_digest

GIB = 2**30


class History(Callback):
    """Keeps in every checkpoint the trainings that its weights come from, which results and model cards tell.

    Of each: the base, the strategy, what is trained, optimizer, learning rate, seeds, data, steps and tokens, seconds
    and GiB; a digest of the weights that it began with, and one of the sequences that it saw, in order. Runs whose
    digests are equal began with the same weights, and saw the same.

    Attributes:
        told: the trainings as they were told last, to a checkpoint or a result.
    """

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self._trainings: list[dict[str, Any]] = []
        self._first_step = 0
        self._digest = self._tokens = 0
        self._seconds = 0.0
        self._since: float | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over what the checkpoint tells."""
        self._trainings = checkpoint.get(HISTORY, [])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the training that the checkpoint is of, or begin one."""
        assert isinstance(pl_module, LitLlama)
        asked, before = _asked(trainer, pl_module), self._trainings or pl_module.source.history()
        last = before[-1] if self._trainings else {}
        goes_on = all(last.get(name) == value for name, value in asked.items())
        if not goes_on:
            begins = {
                "initial_weights": weight_digest(pl_module, pl_module.device),
                "steps": 0,
                "tokens": 0,
                "seconds": 0.0,
            }
            last = asked | begins | {"sequences": written(0), "gib": 0.0}
            before = [*before, last]
        self._trainings = before
        self._first_step = trainer.global_step - last["steps"]
        first = trainer.global_rank == 0  # the ranks' parts are added up
        self._digest = int(last["sequences"], 16) if first else 0
        self._tokens = last["tokens"] if first else 0
        self._seconds, self._since = last["seconds"], time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: TrainingBatch, *_: Any) -> None:
        """Note a batch."""
        if not data_ranks(trainer).repeats:
            self._digest += at_step(batch.digest, trainer.global_step)
            self._tokens += batch.input_ids.numel()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave its time out."""
        self._pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count again."""
        if not trainer.sanity_checking:
            self._since = time.monotonic()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Tell it."""
        if self._trainings:
            checkpoint[HISTORY] = self.trainings(trainer, pl_module)

    def trainings(self, trainer: Trainer, module: LightningModule) -> list[dict[str, Any]]:
        """The trainings until now; all ranks ask together."""
        counted = self._since is not None
        self._pause()
        if counted:
            self._since = time.monotonic()
        parts = torch.tensor([signed(self._digest), self._tokens], device=module.device)
        peak = torch.tensor(_peak(module.device), dtype=torch.float64, device=module.device)
        if trainer.world_size > 1:
            distributed.all_reduce(parts)
            distributed.all_reduce(peak, distributed.ReduceOp.MAX)
        digest, tokens = parts.tolist()
        last = self._trainings[-1]
        now = {
            "steps": trainer.global_step - self._first_step,
            "tokens": tokens,
            "sequences": written(digest),
            "seconds": round(self._seconds, 3),
            "gib": round(max(peak.item(), last["gib"]), 3),
        }
        self.told = [*self._trainings[:-1], last | now]
        return self.told

    def _pause(self) -> None:
        if self._since is not None:
            self._seconds += time.monotonic() - self._since
            self._since = None


def _asked(trainer: Trainer, module: LitLlama) -> dict[str, Any]:
    """All that determines a training, beside its number of steps."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    (optimizer,) = trainer.optimizers
    group = optimizer.param_groups[0]
    asked = {
        "base": module.source.describe(),
        "position": module.position.describe(),
        "train_positions": module.train_positions.describe(),
        "adapter": None if module.adapter is None else module.adapter.describe(),
        "optimizer": type(optimizer).__name__,
        "learning_rate": float(group.get("initial_lr", group["lr"])),
        "precision": trainer.precision,
        "attention_kernel": module.attention_kernel(),
    }
    if isinstance(data, LongContextData) and data.train is not None:
        size = data.batch_size * trainer.accumulate_grad_batches * data_ranks(trainer).size
        asked |= {
            "corpus": data.train.name, "context_length": data.context_length, "sequences_a_step": size,
            "packing": data.packing, "seed": data.seed,
        }  # fmt: skip
    return asked


def _peak(device: torch.device) -> float:
    """GiB of memory at the peak: the GPU's, or the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
