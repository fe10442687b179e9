"""Cross-entropy of a linear layer's logits, of which only a chunk is in memory at once."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_pi.batches import IGNORE
from lit_pi.models.layers.compilation import run_compiled
from lit_pi.models.layers.logits import Logits

LOGITS = 2**27
"""How many logits are in memory at once: those of 4,096 positions with LLaMA's vocabulary of 32,000."""


def linear_cross_entropy(
    hidden_states: Float[Tensor, "batch seq hidden"],
    logits: Logits,
    targets: Int[Tensor, "batch seq"],
    ranked: bool = False,
) -> tuple[Float[Tensor, "batch seq"], Int[Tensor, "batch seq"] | None]:
    """Negative log-likelihood of each target in nats, float32 or wider, and its rank: both 0 where it is ignored.

    Equal to `F.cross_entropy` of all logits. Those of several chunks are computed again in the backward pass; the
    gradients of the output layer are summed over chunks in float32.

    Args:
        hidden_states: output of the last layer, normalised.
        logits: how they become logits.
        targets: token ids, or -100 (torch's `ignore_index`).
        ranked: give the number of tokens with strictly larger logits too, else None.
    """
    weight, bias, scale, cap = logits
    device = hidden_states.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden_states, weight = hidden_states.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    with torch.autocast(device, enabled=False):
        return _LinearCrossEntropy.apply(hidden_states.flatten(0, 1), weight, bias, targets, scale, cap, ranked)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        scale: float,
        cap: float | None,
        ranked: bool,
    ) -> tuple[Tensor, Tensor | None]:
        fuse = hidden_states.is_cuda and any(ctx.needs_input_grad) and not ranked
        positions = _positions(weight)
        # Not views: FSDP2's hooks on what the model returns would be lost with them.
        token_nll = targets.new_empty(targets.shape, dtype=torch.promote_types(weight.dtype, torch.float32))
        token_rank = targets.new_empty(targets.shape) if ranked else None
        targets, products = targets.flatten(), None
        for start in range(0, len(targets), positions):
            rows = slice(start, start + positions)
            products, wanted = _products(hidden_states[rows], weight, bias), targets[rows]
            if fuse:
                token_nll.view(-1)[rows] = run_compiled(_nll, products, wanted, scale, cap)
                continue
            logits = _logits(products, scale, cap)
            token_nll.view(-1)[rows] = F.cross_entropy(logits, wanted, reduction="none")
            if token_rank is not None:
                token_rank.view(-1)[rows] = _ranks(logits, wanted.clamp(min=0)).masked_fill(wanted == IGNORE, 0)
        # A chunk that is alone stays: the backward pass begins with it.
        ctx.save_for_backward(hidden_states, weight, bias, targets, products if len(targets) <= positions else None)
        ctx.scale, ctx.cap = scale, cap
        if token_rank is not None:
            ctx.mark_non_differentiable(token_rank)
        return token_nll, token_rank

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nll: Tensor, grad_rank: Any) -> tuple[Tensor | None, ...]:
        hidden_states, weight, bias, targets, kept = ctx.saved_tensors
        gradient = partial(run_compiled, _grad_products) if hidden_states.is_cuda else _grad_products
        positions, grad_nll = _positions(weight), grad_nll.flatten()
        wide = torch.promote_types(weight.dtype, torch.float32)
        grad_hidden = torch.empty_like(hidden_states) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if ctx.needs_input_grad[2] else None
        for start in range(0, len(targets), positions):
            rows = slice(start, start + positions)
            states = hidden_states[rows]
            products = _products(states, weight, bias) if kept is None else kept
            grad_products = gradient(products, targets[rows], grad_nll[rows], ctx.scale, ctx.cap)
            if grad_hidden is not None:
                grad_hidden[rows] = grad_products @ weight
            if grad_weight is not None:
                grad_weight += grad_products.mT @ states
            if grad_bias is not None:
                grad_bias += grad_products.sum(dim=0, dtype=wide)
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        grad_bias = None if grad_bias is None else grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def _positions(weight: Tensor) -> int:
    return max(LOGITS // len(weight), 1)


def _products(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return states @ weight.mT if bias is None else F.linear(states, weight, bias)


def _logits(products: Tensor, scale: float, cap: float | None) -> Tensor:
    logits = products.to(torch.promote_types(products.dtype, torch.float32))
    logits = logits if scale == 1 else logits * scale
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _nll(products: Tensor, wanted: Tensor, scale: float, cap: float | None) -> Tensor:
    return F.cross_entropy(_logits(products, scale, cap), wanted, reduction="none")


def _ranks(logits: Tensor, wanted: Tensor) -> Tensor:
    """How many tokens greedy decoding would take before those that are wanted."""
    own = logits.gather(-1, wanted[:, None])
    earlier = torch.arange(logits.shape[-1], device=logits.device) < wanted[:, None]
    # Not `>`: of logits that are not numbers, none is a first choice.
    return (~(logits <= own) | ((logits == own) & earlier)).sum(dim=-1)


def _grad_products(products: Tensor, wanted: Tensor, grad_nll: Tensor, scale: float, cap: float | None) -> Tensor:
    logits = _logits(products, scale, cap)
    gradient = logits.softmax(dim=-1)
    gradient.scatter_add_(-1, wanted.clamp(min=0)[:, None], gradient.new_full((len(wanted), 1), -1.0))
    gradient *= grad_nll.masked_fill(wanted == IGNORE, 0)[:, None]
    if cap is not None:
        gradient *= 1 - (logits / cap) ** 2
    return (gradient if scale == 1 else gradient * scale).to(products.dtype)
