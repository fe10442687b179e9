"""Activation checkpointing: decoder layers keep little of their forward pass and compute it again in the backward."""

from dataclasses import dataclass
from typing import Literal

from lit_pi.errors import UserError
from lit_pi.models.language_model import LanguageModel
from lit_pi.models.layers.layer_forward import CheckpointingMode


@dataclass(frozen=True)
class ActivationCheckpointing:
    """Activation checkpointing: decoder layers keep less for the backward pass and compute the rest again.

    Gradients are the same.

    Args:
        mode: `none` keeps all activations; `full` keeps each layer's input and runs the layer's forward again;
            `attention_saved` keeps what fused attention kernels give too, so that only the cheaper rest runs again;
            `products_saved` keeps what matrix products give as well, so that only element-wise operations run again;
            `auto` spends the memory that is left on GPUs: the first step runs under `full` and is measured, then as
            many layers as fit keep what attention gives, then products, then all. On CPUs it is `none`.
        every_n_layers: checkpoint one layer of so many; the others keep all activations.
        offload: keep the layers' inputs in the CPU's memory until the backward pass needs them.
        memory_gib: GiB of a GPU that `auto` may fill; by default all but a reserve.

    Raises:
        UserError: `every_n_layers` is not positive; it or `offload` is asked of the mode `none` or `auto`, or
            `memory_gib` of another one than `auto`.
    """

    mode: Literal[CheckpointingMode, "auto"] = "auto"
    every_n_layers: int = 1
    offload: bool = False
    memory_gib: float | None = None

    def __post_init__(self) -> None:
        if self.every_n_layers < 1:
            raise UserError(
                f"model.activation_checkpointing.every_n_layers is {self.every_n_layers}: it must be at least 1, "
                "which checkpoints every layer"
            )
        if self.mode in ("none", "auto") and (self.offload or self.every_n_layers > 1):
            raise UserError(
                f"model.activation_checkpointing chooses no layers with mode `{self.mode}`: choose another one, "
                "or leave out `every_n_layers` and `offload`"
            )
        if self.memory_gib is not None and (self.mode != "auto" or self.memory_gib <= 0):
            raise UserError(
                f"model.activation_checkpointing.memory_gib is {self.memory_gib:g} with mode `{self.mode}`: it is the "
                "positive amount of memory that `auto` may fill; leave it out with other modes"
            )

    def install(self, model: LanguageModel, on_gpu: bool) -> None:
        """Checkpoint the layers of a model, in place; under `auto`, as its first step runs."""
        mode: CheckpointingMode = "full" if self.climbs(on_gpu) else "none" if self.mode == "auto" else self.mode
        for layer in model.layer_forwards[:: self.every_n_layers]:
            layer.mode, layer.offload, layer.pin = mode, self.offload, on_gpu

    def climbs(self, on_gpu: bool) -> bool:
        """Whether the first steps decide what layers keep."""
        return self.mode == "auto" and on_gpu
