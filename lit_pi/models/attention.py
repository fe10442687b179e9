"""Who may attend to whom, and the kernel that computes it."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.attention import SDPBackend
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ATTENTION = "lit_pi"
"""Name of the attention under which models are built.

transformers makes no mask for a name without a registered mask function, and so guesses no documents out of
`position_ids`: what `document_mask` says is all there is.
"""

AttentionInterface.register(ATTENTION, sdpa_attention_forward)


def document_mask(document_ids: Int[Tensor, "batch seq"] | None) -> Bool[Tensor, "batch 1 seq seq"] | None:
    """Causal attention inside each document; None, the kernels' own causal mask, where a row is one document."""
    if document_ids is None:
        return None
    same_document = document_ids[:, None, :, None] == document_ids[:, None, None, :]
    return same_document.tril()


def attention_kernel(device: torch.device, dtype: torch.dtype, head_dim: int, context_length: int) -> str:
    """Name of the kernel that torch picks for causal self-attention, for example `flash_attention`."""
    query = torch.empty(1, 1, context_length, head_dim, device=device, dtype=dtype)
    choice = torch._fused_sdp_choice(query, query, query, is_causal=True)
    return SDPBackend(choice).name.lower()
