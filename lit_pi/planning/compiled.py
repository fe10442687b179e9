"""The activations that compiled decoder layers keep for the backward pass."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_pi.models.layers.family import LLAMA_FAMILY


def keep_as_compiled(layer: nn.Module) -> None:
    """Have a layer keep for the backward pass, in place, what it keeps when torch has compiled it.

    Compiled layers compute element-wise operations again rather than keep what is between them: of a norm its input, of
    a gated MLP the two products that enter its gate. Layers outside `LLAMA_FAMILY` stay as they are and keep more.
    """
    if not isinstance(layer, LLAMA_FAMILY):
        return
    for module in layer.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_again, module.forward)
    mlp = layer.get_submodule("mlp")
    mlp.forward = partial(_gated, mlp)


def _gated(mlp: Any, hidden_states: Tensor) -> Tensor:
    return mlp.down_proj(
        _again(lambda gate, up: mlp.act_fn(gate) * up, mlp.gate_proj(hidden_states), mlp.up_proj(hidden_states))
    )


def _again(run: Callable[..., Tensor], *args: Tensor) -> Tensor:
    return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)
