"""The loss of an optimizer step: the mean over all its targets, over micro-batches and ranks."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from lit_pi.parallel.shards import own_part


class StepLoss(LightningModule):
    """A module whose optimizer steps mean the same however they are cut into micro-batches and ranks.

    How many targets a step has is known with its last micro-batch. So losses are divided by a power of two, which
    rounds nothing, and gradients are brought from there to the mean once the last of them is there, before anybody sees
    or clips them. A step of one micro-batch is divided at once, but in float64, where LLaMA's norms round to float32
    all the same, and should round alike. Nothing waits for a GPU.

    Attributes:
        step_loss: the loss of the last step, in nats, on the device.
        own_loss: this rank's part of it, the sum over its own targets.
    """

    step_loss: Tensor
    own_loss: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._divisor: Tensor | None = None
        self._sums: Tensor | None = None
        self._is_last = False

    def on_train_start(self) -> None:
        """Forget the micro-batches of a step that was never made."""
        self._divisor = None

    def loss_of(self, nll: Tensor, targets: Tensor) -> Tensor:
        """The loss of a micro-batch, for its backward pass.

        Args:
            nll: negative log-likelihood of all its targets, in nats.
            targets: how many they are.
        """
        sums = torch.stack((nll.detach(), targets.to(nll.dtype)))
        if self._divisor is None or self._sums is None:
            self._divisor, self._sums = _mean_over_ranks(sums[1]).clamp(min=1), torch.zeros_like(sums)
            if self._rescales:
                self._divisor = self._divisor.log2().ceil().exp2()
        self._sums += sums
        # Lightning divides by the number of micro-batches.
        return nll * (self.trainer.accumulate_grad_batches / self._divisor)

    @property
    def _rescales(self) -> bool:
        return self.trainer.accumulate_grad_batches > 1 or self.dtype == torch.float64

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, after the last micro-batch, which the closure runs."""
        self._is_last = True
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self._is_last = False

    def on_after_backward(self) -> None:
        """After the last micro-batch, give gradients their divisor, and log the loss of the step."""
        if not self._is_last or self._divisor is None or self._sums is None:
            return
        nll, targets = _mean_over_ranks(self._sums)
        targets = targets.clamp(min=1)
        if self._rescales:
            self._rescale(self._divisor / targets)
        self.step_loss, self.own_loss = nll / targets, self._sums[0]
        if not self.trainer.barebones:
            self.log("train/loss", self.step_loss)
        self._divisor = None

    @torch.no_grad()
    def _rescale(self, factor: Tensor) -> None:
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        own = [own_part(gradient) for gradient in gradients]
        for device in {gradient.device for gradient in own}:
            torch._foreach_mul_([gradient for gradient in own if gradient.device == device], factor.to(device))


def _mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of numbers over all ranks; themselves where there is one process."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return value
    mean = value.clone()
    torch.distributed.all_reduce(mean)
    return mean / torch.distributed.get_world_size()
