"""How a decoder layer runs: what it keeps for the backward pass, compiled or not, and for which positions."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from lit_pi.models.attention.masks import Lengths
from lit_pi.models.attention.packages import OPERATION
from lit_pi.models.layers.compilation import run_compiled
from lit_pi.models.layers.family import LLAMA_FAMILY
from lit_pi.models.layers.last_layer import last_layer
from lit_pi.models.rotary import RotaryEmbedding
from lit_pi.models.training.offload import KeptOnCpu

CheckpointingMode = Literal["none", "full", "attention_saved", "products_saved"]
"""Modes of checkpointing: of nothing, of all but the layer's input, or of all but that and what named kernels give."""

ATTENTION_KERNELS: list[Any] = [
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.higher_order.flex_attention,
    OPERATION,
]
"""Operations whose results `attention_saved` keeps; other attention runs again with the rest of its layer."""

MATRIX_PRODUCTS: list[Any] = [
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_mm.default,
]
"""Operations whose results `products_saved` keeps too."""

SAVED: dict[CheckpointingMode, list[Any]] = {
    "attention_saved": ATTENTION_KERNELS,
    "products_saved": ATTENTION_KERNELS + MATRIX_PRODUCTS,
}

PRUNED_SHARE = 0.5
"""Share of a window's positions: beyond it, the matrix of who sees whom costs the last layer more than it spares."""


class LayerForward:
    """Stands in for the `forward` of a decoder layer; parameters keep their names, and gradients their values.

    Args:
        layer: the decoder layer.
        rotary: the rotary embedding, whose state an attention rule reads inside the layer.

    Attributes:
        mode: how the layer is checkpointed where gradients are wanted.
        offload: move what is kept to the CPU's memory until the backward pass.
        pin: keep it in memory that GPUs read directly.
        compiled: run as one graph, the same for all layers; not while decoding with a cache, under attention rules, or
            where sequences are split over ranks.
        scored: positions to compute alone, where that is exact; only the last layer may leave out others.
        measure: gets the bytes of GPU memory that each forward has kept for its backward.
    """

    def __init__(self, layer: nn.Module, rotary: RotaryEmbedding) -> None:
        self.mode: CheckpointingMode = "none"
        self.offload = self.pin = False
        self.compiled = False
        self.scored: Int[Tensor, " scored"] | None = None
        self.measure: Callable[[int], None] | None = None
        self._layer = layer
        self._rotary = rotary
        layer.forward = self

    def __call__(self, hidden_states: Float[Tensor, "batch seq hidden"], *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output, at all positions or the scored ones."""
        if kwargs.get("past_key_values") is not None:
            return _original(self._layer)(hidden_states, *args, **kwargs)
        if self.scored is not None and self._prunable(hidden_states, kwargs):
            run = partial(run_compiled, last_layer) if self.compiled else last_layer
            return run(self._layer, hidden_states, self.scored, kwargs["position_embeddings"])
        if not torch.is_grad_enabled():
            return self._run("none", hidden_states, *args, **kwargs)
        before = torch.cuda.memory_allocated() if self.measure is not None else 0
        with self._offloading(args, kwargs) if self.offload else nullcontext():
            output = self._run(self.mode, hidden_states, *args, **kwargs)
        if self.measure is not None:
            self.measure(torch.cuda.memory_allocated() - before)
        return output

    def _offloading(self, *shared: Any) -> KeptOnCpu:
        # Compiled layers have autograd keep weights, and what all layers get, too.
        staying = [each for each in tree_leaves(shared) if isinstance(each, Tensor)]
        return KeptOnCpu(self.pin, [*staying, *self._layer.parameters()])

    def _run(self, mode: CheckpointingMode, *args: Any, **kwargs: Any) -> Tensor:
        if self._rotary.position.attention_rule is not None:
            state = self._rotary.position_ids, self._rotary.context_length
            run = partial(_with_state, _original(self._layer), self._rotary, *state)
            return _checkpointed(run, mode, *args, **kwargs)
        if self.compiled and kwargs.get("sequence_split") is None:
            return run_compiled(_layer, self._layer, mode, *args, **kwargs)
        return _layer(self._layer, mode, *args, **kwargs)

    def _prunable(self, hidden_states: Tensor, kwargs: dict[str, Any]) -> bool:
        assert self.scored is not None
        mask = kwargs.get("attention_mask")
        return (
            isinstance(self._layer, LLAMA_FAMILY)
            and self._rotary.position.attention_rule is None
            and (mask is None or (isinstance(mask, Lengths) and mask.hides_only_what_follows(len(hidden_states))))
            and len(self.scored) <= PRUNED_SHARE * hidden_states.shape[1]
        )


def _original(layer: nn.Module) -> Callable[..., Tensor]:
    return partial(type(layer).forward, layer)


def _layer(layer: nn.Module, mode: CheckpointingMode, *args: Any, **kwargs: Any) -> Tensor:
    return _checkpointed(_original(layer), mode, *args, **kwargs)


def _checkpointed(run: Callable[..., Tensor], mode: CheckpointingMode, *args: Any, **kwargs: Any) -> Tensor:
    if mode == "none":
        return run(*args, **kwargs)
    options: dict[str, Any] = {"use_reentrant": False}
    if mode in SAVED:
        options["context_fn"] = partial(create_selective_checkpoint_contexts, SAVED[mode])
    return checkpoint(run, *args, **options, **kwargs)


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
