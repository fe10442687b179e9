"""Loss, gradients and weights are numbers, or the run ends."""

from collections import deque
from statistics import fmean, pstdev
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, distributed
from torch.optim import Optimizer

from lit_pi.datamodules import LongContextData
from lit_pi.errors import RunError, UserError
from lit_pi.module import LitLlama
from lit_pi.parallel.late import LateReader
from lit_pi.parallel.shards import own_part
from lit_pi.ranges import Count, in_range

RECENT = 50
"""Steps whose losses tell what is usual."""

DEVIATIONS = 8
"""Standard deviations of recent losses beyond which a loss is a spike."""

LEAST_SPIKE = 0.1
"""Nats by which a spike is above recent losses, at least."""

SHOWN = 5
"""Documents that are named."""


class Sentinel(Callback):
    """Ends a run at the step whose loss or gradients are not finite, before a checkpoint of it is saved.

    The run ends with status 1, the step, the rank, the documents of its batch, and the last good checkpoint. Weights
    are looked at whenever a checkpoint is saved. GPUs are never waited for: there, a run ends one step later.

    Args:
        on_nonfinite: `stop` ends the run; `skip` leaves out the update of such a step, and counts them.
        give_up_after: steps in a row that are skipped before the run ends all the same.
    """

    @in_range
    def __init__(self, on_nonfinite: Literal["stop", "skip"] = "stop", give_up_after: Count = 10) -> None:
        self.on_nonfinite = on_nonfinite
        self.give_up_after = give_up_after
        self.skipped = 0
        self._in_a_row = 0
        self._step = 0
        self._found = LateReader()
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._samples: dict[int, tuple[int, int]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to look.

        Raises:
            UserError: the optimizer cannot leave out a step without waiting for the GPU.
        """
        self._step = trainer.global_step
        self._samples = {self._step: (0, _consumed(trainer))}
        (optimizer,) = trainer.optimizers
        on_gpu = pl_module.device.type == "cuda"
        if self.on_nonfinite == "skip" and on_gpu and not getattr(optimizer, "_step_supports_amp_scaling", False):
            raise UserError(
                f"sentinel.on_nonfinite is skip, and {type(optimizer).__name__} cannot skip a step on a GPU: give it "
                "`fused: true` (AdamW, Adam, SGD and Adagrad of torch.optim have it), or leave on_nonfinite at stop"
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the loss and the gradients of a step, on the device."""
        assert isinstance(pl_module, LitLlama)
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None  # leaves out such steps by itself
        norm = torch.zeros_like(pl_module.own_loss) if scaled else _norm(pl_module).to(pl_module.own_loss)
        bad = torch.zeros(2, trainer.world_size, device=pl_module.device)
        bad[:, trainer.global_rank] = torch.stack((pl_module.own_loss, norm)).isfinite().logical_not().float()
        if trainer.world_size > 1:
            distributed.all_reduce(bad)
        if self.on_nonfinite == "skip":
            _skip(optimizer, bad.amax())
        self._found.put(trainer.global_step + 1, torch.cat((pl_module.step_loss[None].float(), bad.flatten())))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """After a step, judge what is known by now."""
        if trainer.global_step != self._step:
            consumed = _consumed(trainer)
            self._samples[trainer.global_step] = (self._samples[self._step][1], consumed)
            self._samples.pop(self._step - 2, None)
            self._step = trainer.global_step
            self._judge(trainer, self._found.take())

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look at everything before it is saved.

        Raises:
            RunError: something is not finite.
        """
        if trainer.state.fn != "fit":
            return
        self._judge(trainer, self._found.take(everything=True))
        finite = [own_part(parameter).isfinite().all() for parameter in pl_module.parameters()]
        bad = torch.stack(finite).all().logical_not().float().to(pl_module.device)
        if trainer.world_size > 1:
            distributed.all_reduce(bad)
        if bad:
            raise RunError(f"weights are not finite after step {trainer.global_step:,}; {_last_good(trainer)}")

    def state_dict(self) -> dict[str, Any]:
        """Steps that were skipped."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on."""
        self.skipped = state_dict["skipped"]

    def _judge(self, trainer: Trainer, found: list[tuple[int, list[float]]]) -> None:
        for step, (loss, *bad) in found:
            of_losses, of_gradients = bad[: trainer.world_size], bad[trainer.world_size :]
            if not any(bad):
                self._in_a_row = 0
                self._look_for_spike(trainer, step, loss)
                continue
            ranks = [rank for rank, is_bad in enumerate(of_losses if any(of_losses) else of_gradients) if is_bad]
            said = f"{'the loss is' if any(of_losses) else 'gradients are'} not finite at step {step:,}"
            if trainer.world_size > 1:
                said += f" on rank {', '.join(map(str, ranks))}"
            said += f", in {self._documents(trainer, step, ranks if any(of_losses) else None)}"
            self._in_a_row += 1
            if self.on_nonfinite == "stop":
                raise RunError(f"{said}; {_last_good(trainer)}")
            if self._in_a_row >= self.give_up_after:
                raise RunError(f"{said}, after {self._in_a_row - 1} others in a row; {_last_good(trainer)}")
            self.skipped += 1
            rank_zero_warn(f"Step {step:,} was skipped, {self.skipped:,} until now: {said}.")

    def _look_for_spike(self, trainer: Trainer, step: int, loss: float) -> None:
        if len(self._recent) == RECENT:
            usual, spread = fmean(self._recent), pstdev(self._recent)
            if loss > usual + max(DEVIATIONS * spread, LEAST_SPIKE):
                rank_zero_warn(
                    f"The loss of step {step:,} is {loss:.3f}, where the {RECENT} before it are {usual:.3f} with a "
                    f"standard deviation of {spread:.3f}: look at {self._documents(trainer, step)}."
                )
        self._recent.append(loss)

    def _documents(self, trainer: Trainer, step: int, ranks: list[int] | None = None) -> str:
        """The documents of a step's batch, or of some ranks' part of it."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, LongContextData) or step not in self._samples:
            return "its batch"
        names = data.documents_of(*self._samples[step], ranks)
        more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
        return f"the documents {', '.join(names[:SHOWN])}{more}"


def _consumed(trainer: Trainer) -> int:
    data = trainer.datamodule  # type: ignore[attr-defined]
    return data.consumed() if isinstance(data, LongContextData) else 0


def _norm(module: LightningModule) -> Tensor:
    """Norm of this rank's gradients, which is finite where all of them are."""
    gradients = [own_part(parameter.grad) for parameter in module.parameters() if parameter.grad is not None]
    norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def _skip(optimizer: Optimizer, bad: Tensor) -> None:
    """Have an optimizer leave out the step if something is bad: on a GPU it looks there, as it does for a scaler."""
    if bad.is_cuda:
        optimizer.grad_scale, optimizer.found_inf = None, bad  # type: ignore[attr-defined]
    elif bad:
        optimizer.zero_grad()


def _last_good(trainer: Trainer) -> str:
    saving = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    saved = [callback._last_checkpoint_saved for callback in saving]
    found = next(filter(None, saved), None) or trainer.ckpt_path
    return f"the last good checkpoint is {found}" if found else "no checkpoint was saved before"
