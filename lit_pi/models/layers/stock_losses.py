"""Losses of a model that transformers runs, for comparison."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel


@torch.no_grad()
def stock_losses(
    llm: PreTrainedModel,
    input_ids: Int[Tensor, "batch seq"],
    targets: Int[Tensor, "batch seq"],
    position_ids: Int[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, "batch seq"]:
    """Losses in nats of a model as transformers runs it."""
    logits = llm(
        input_ids=input_ids,
        position_ids=position_ids,
        # Without a mask, transformers would read documents out of jumps in the positions.
        attention_mask=torch.ones_like(input_ids),
        use_cache=False,
    ).logits
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(wide.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
