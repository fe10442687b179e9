"""Cross-entropy of a linear layer's logits, of which only a chunk is in memory at once."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from lit_pi.batches import IGNORE
from lit_pi.errors import UserError
from lit_pi.models.layers.compilation import run_compiled

LOGITS = 2**27
"""How many logits are in memory at once: those of 4,096 positions with LLaMA's vocabulary of 32,000."""

_OWN_WAYS = ("final_logit_softcapping", "logits_scaling", "logit_scale")


def output_weight(llm: PreTrainedModel) -> Float[Tensor, "vocab hidden"]:
    """The matrix that makes logits of hidden states, which may be that of the input embeddings.

    Raises:
        UserError: the model's logits are not just its product with hidden states.
    """
    head = llm.get_output_embeddings()
    own = [name for name in _OWN_WAYS if getattr(llm.config, name, None) not in (None, 1.0)]
    if not isinstance(head, torch.nn.Linear) or head.bias is not None or own:
        raise UserError(
            f"{type(llm).__name__} makes its logits in a way of its own ({', '.join(own) or type(head).__name__}): "
            "lit_pi extends decoders of the LLaMA family, whose output layer is a matrix"
        )
    return head.weight


def linear_cross_entropy(
    hidden_states: Float[Tensor, "batch seq hidden"],
    weight: Float[Tensor, "vocab hidden"],
    targets: Int[Tensor, "batch seq"],
    ranked: bool = False,
) -> tuple[Float[Tensor, "batch seq"], Int[Tensor, "batch seq"] | None]:
    """Negative log-likelihood of each target in nats, float32 or wider, and its rank: both 0 where it is ignored.

    Equal to `F.cross_entropy` of all logits. Those of several chunks are computed again in the backward pass; the
    gradient of `weight` is summed over chunks in float32.

    Args:
        hidden_states: output of the last layer, normalised.
        weight: the output layer's matrix.
        targets: token ids, or -100 (torch's `ignore_index`).
        ranked: give the number of tokens with strictly larger logits too, else None.
    """
    device = hidden_states.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden_states, weight = hidden_states.to(dtype), weight.to(dtype)
    with torch.autocast(device, enabled=False):
        return _LinearCrossEntropy.apply(hidden_states.flatten(0, 1), weight, targets, ranked)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_states: Tensor, weight: Tensor, targets: Tensor, ranked: bool
    ) -> tuple[Tensor, Tensor | None]:
        fuse = hidden_states.is_cuda and any(ctx.needs_input_grad) and not ranked
        positions = _positions(weight)
        # Not views: FSDP2's hooks on what the model returns would be lost with them.
        token_nll = targets.new_empty(targets.shape, dtype=torch.promote_types(weight.dtype, torch.float32))
        token_rank = targets.new_empty(targets.shape) if ranked else None
        targets, products = targets.flatten(), None
        for start in range(0, len(targets), positions):
            rows = slice(start, start + positions)
            products, wanted = hidden_states[rows] @ weight.mT, targets[rows]
            if fuse:
                token_nll.view(-1)[rows] = run_compiled(_nll, products, wanted)
                continue
            logits = _wide(products)
            token_nll.view(-1)[rows] = _nll(logits, wanted)
            if token_rank is not None:
                own = logits.gather(-1, wanted.clamp(min=0)[:, None])
                # Not `>`: of logits that are not numbers, none is a first choice.
                token_rank.view(-1)[rows] = (~(logits <= own)).sum(dim=-1).masked_fill(wanted == IGNORE, 0)
        # A chunk that is alone stays: the backward pass begins with it.
        ctx.save_for_backward(hidden_states, weight, targets, products if len(targets) <= positions else None)
        if token_rank is not None:
            ctx.mark_non_differentiable(token_rank)
        return token_nll, token_rank

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nll: Tensor, grad_rank: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_states, weight, targets, kept = ctx.saved_tensors
        gradient = partial(run_compiled, _grad_logits) if hidden_states.is_cuda else _grad_logits
        positions, grad_nll = _positions(weight), grad_nll.flatten()
        wide = torch.promote_types(weight.dtype, torch.float32)
        grad_hidden = torch.empty_like(hidden_states) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if ctx.needs_input_grad[1] else None
        for start in range(0, len(targets), positions):
            rows = slice(start, start + positions)
            states = hidden_states[rows]
            products = states @ weight.mT if kept is None else kept
            grad_logits = gradient(products, targets[rows], grad_nll[rows])
            if grad_hidden is not None:
                grad_hidden[rows] = grad_logits @ weight
            if grad_weight is not None:
                grad_weight += grad_logits.mT @ states
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None


def _positions(weight: Tensor) -> int:
    return max(LOGITS // len(weight), 1)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _nll(logits: Tensor, wanted: Tensor) -> Tensor:
    return F.cross_entropy(_wide(logits), wanted, reduction="none")


def _grad_logits(logits: Tensor, wanted: Tensor, grad_nll: Tensor) -> Tensor:
    gradient = _wide(logits).softmax(dim=-1)
    gradient.scatter_add_(-1, wanted.clamp(min=0)[:, None], gradient.new_full((len(wanted), 1), -1.0))
    gradient *= grad_nll.masked_fill(wanted == IGNORE, 0)[:, None]
    return gradient.to(logits.dtype)
