"""Activation checkpointing: decoder layers keep little of their forward pass and compute it again in the backward."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from lit_pi.errors import UserError
from lit_pi.models.language_model import LanguageModel
from lit_pi.models.rotary import RotaryEmbedding

Mode = Literal["none", "full", "attention_saved"]

ATTENTION_KERNELS: list[Any] = [
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.higher_order.flex_attention,
]
"""What `attention_saved` keeps the results of; other attention runs again with the rest of its layer."""


@dataclass(frozen=True)
class ActivationCheckpointing:
    """What decoder layers keep for the backward pass; gradients are the same.

    Args:
        mode: `none` keeps all activations; `full` keeps each layer's input and runs the layer's forward again;
            `attention_saved` keeps what fused attention kernels give too, so that only the cheaper rest runs again.
        every_n_layers: checkpoint one layer of so many; the others keep all activations.
        offload: keep the layers' inputs in the CPU's memory until the backward pass needs them.

    Raises:
        UserError: `every_n_layers` is not positive, or it or `offload` is asked of the mode `none`.
    """

    mode: Mode = "none"
    every_n_layers: int = 1
    offload: bool = False

    def __post_init__(self) -> None:
        if self.every_n_layers < 1:
            raise UserError(
                f"model.activation_checkpointing.every_n_layers is {self.every_n_layers}: it must be at least 1, "
                "which checkpoints every layer"
            )
        if self.mode == "none" and (self.offload or self.every_n_layers > 1):
            raise UserError(
                "model.activation_checkpointing checkpoints no layer with mode `none`: choose `full` or "
                "`attention_saved`, or leave out `every_n_layers` and `offload`"
            )

    def install(self, model: LanguageModel) -> None:
        """Checkpoint the layers of a model, in place, before they are compiled or sharded; parameters keep names."""
        if self.mode == "none":
            return
        options: dict[str, Any] = {"use_reentrant": False}
        if self.mode == "attention_saved":
            options["context_fn"] = partial(create_selective_checkpoint_contexts, ATTENTION_KERNELS)
        # Only an attention rule reads the rotary embedding's state inside a layer.
        rotary = model.rotary if model.position.attention_rule is not None else None

        def forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
            run = partial(type(layer).forward, layer)
            if not torch.is_grad_enabled():
                return run(*args, **kwargs)
            if rotary is not None:
                run = partial(_with_state, run, rotary, rotary.position_ids, rotary.context_length)
            pin = args[0].is_cuda
            with save_on_cpu(pin_memory=pin) if self.offload else nullcontext():
                return checkpoint(run, *args, **options, **kwargs)

        # One function for all layers, so that one compiled graph serves them all.
        for layer in model.decoder_layers[:: self.every_n_layers]:
            layer.forward = MethodType(forward, layer)


def _with_state(
    run: Callable[..., Tensor],
    rotary: RotaryEmbedding,
    position_ids: Tensor | None,
    context_length: int,
    /,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Run a layer at the positions of its own forward, whatever the model has seen since."""
    now = rotary.position_ids, rotary.context_length
    rotary.position_ids, rotary.context_length = position_ids, context_length
    try:
        return run(*args, **kwargs)
    finally:
        rotary.position_ids, rotary.context_length = now
