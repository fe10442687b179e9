"""Rotating queries and keys with few passes over memory, which CPUs without compiled layers wait for."""

from collections.abc import Iterable
from types import FunctionType, MethodType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lit_pi.models.layers.family import LLAMA_FAMILY

_NAME = "apply_rotary_pos_emb"


def rotate(
    query: Float[Tensor, "batch heads seq head_dim"],
    key: Float[Tensor, "batch kv_heads seq head_dim"],
    cos: Float[Tensor, "rows seq head_dim"],
    sin: Float[Tensor, "rows seq head_dim"],
) -> tuple[Float[Tensor, "batch heads seq head_dim"], Float[Tensor, "batch kv_heads seq head_dim"]]:
    """Queries and keys as transformers' `apply_rotary_pos_emb` rotates them, where both halves have the same angles."""
    cos, sin = cos[:, None], sin[:, None]
    return _Rotation.apply(query, cos, sin), _Rotation.apply(key, cos, sin)


def install_rotation(layers: Iterable[nn.Module]) -> None:
    """Let decoder layers of the LLaMA family call `rotate`; other models in the process stay as they are."""
    for layer in layers:
        if isinstance(layer, LLAMA_FAMILY):
            attention: Any = layer.self_attn
            forward: Any = type(attention).forward
            assert _NAME in forward.__code__.co_names
            own = FunctionType(forward.__code__, forward.__globals__ | {_NAME: rotate}, argdefs=forward.__defaults__)
            attention.forward = MethodType(own, attention)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(states, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradient, cos, -sin), None, None


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned = states * cos
    (first, second), (to_first, to_second) = states.chunk(2, dim=-1), turned.chunk(2, dim=-1)
    sin, _ = sin.chunk(2, dim=-1)
    to_first.addcmul_(second, sin, value=-1)
    to_second.addcmul_(first, sin)
    return turned
