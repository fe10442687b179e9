"""Who may attend to whom, and the kernel that computes it."""

import warnings
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lit_pi.models.attention.sequence_split import SequenceSplit, ring_attention

ATTENTION = "lit_pi"
"""Name of the attention under which models are built.

transformers makes no mask for a name without a registered mask function, and so guesses no documents out of
`position_ids`: what `document_mask` says is all there is.
"""

FLEX_ATTENTION = "flex_attention"
"""Name of the kernel that isolates packed documents on GPUs, beside those of `kernel_in_use`."""

BLOCK = 128
"""Queries and keys of a block of FlexAttention's."""

HEAD_DIMS = range(16, 257)
"""Dimensions of a head for FlexAttention on GPUs: its kernels refuse fewer, and more are not trusted untried."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sequence_split: SequenceSplit | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """FlexAttention under a block mask, else torch's scaled dot product attention.

    Where sequences are split over ranks, keys and values are gathered under a mask, and else passed around in a ring.

    Args:
        module: the attention layer.
        query: `[batch, heads, queries, head_dim]`.
        key: `[batch, kv_heads, keys, head_dim]`.
        value: `[batch, kv_heads, keys, head_dim]`.
        attention_mask: a mask made by `document_mask`, or None for causal attention.
        scaling: factor on the scores.
        dropout: share of the attention weights to drop; there is none under a block mask (see `blocks_are_fastest`).
        sequence_split: over ranks, of which each has queries, keys and values of its own positions.
        kwargs: further arguments that transformers passes, which are not used.

    Returns:
        `[batch, queries, heads, head_dim]`, and no weights.
    """
    device = query.device.type
    if torch.is_autocast_enabled(device):
        # As autocast does for scaled dot product attention: rotated queries and keys may be wider than values.
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if sequence_split is not None:
        if attention_mask is None:
            output = ring_attention(query, key, value, sequence_split.mesh, dropout, scaling)
            return output.transpose(1, 2).contiguous(), None
        key, value = sequence_split.gather(key, dim=2), sequence_split.gather(value, dim=2)
    if not isinstance(attention_mask, BlockMask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    assert not dropout
    grouped = query.shape[1] != key.shape[1]
    output = _on(device, flex_attention)(
        query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=grouped
    )
    return output.transpose(1, 2).contiguous(), None


def document_mask(
    document_ids: Int[Tensor, "batch seq"], blocks: bool, places: Int[Tensor, " queries"] | None = None
) -> Bool[Tensor, "batch 1 queries seq"] | BlockMask:
    """Causal attention inside each document; rows of one document need no mask beside the kernels' own.

    Args:
        document_ids: tokens with equal ids are of one document.
        blocks: make blocks of queries and keys that see each other, so that others cost nothing; else a matrix.
        places: places of the queries in the sequence, ascending; all by default.
    """
    # For fewer queries than a block, FlexAttention takes its kernel for decoding, which cannot learn.
    queries = document_ids.shape[1] if places is None else len(places)
    if not blocks or queries < BLOCK:
        own_ids = document_ids if places is None else document_ids[:, places]
        same_document = own_ids[:, None, :, None] == document_ids[:, None, None, :]
        if places is None:
            return same_document.tril()
        return same_document & (places[:, None] >= torch.arange(document_ids.shape[1], device=places.device))
    ids = document_ids.int()  # read by the kernel for every pair of a block at a document's edge

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        place = query if places is None else places[query]
        return (place >= key) & (ids[batch, place] == ids[batch, key])

    rows, seq = ids.shape
    create = _on(ids.device.type, create_block_mask)
    return create(visible, rows, None, queries, seq, device=ids.device, BLOCK_SIZE=BLOCK)


def blocks_are_fastest(device: torch.device, dtype: torch.dtype, head_dim: int, dropout: float = 0.0) -> bool:
    """Whether FlexAttention isolates documents: on GPUs, with a warning where it cannot there.

    Args:
        device: where the model runs.
        dtype: dtype of its weights.
        head_dim: dimensions of a head.
        dropout: share of the attention weights to drop.
    """
    # Without a GPU it has no backward. Its GPU kernels sum in float32 whatever the inputs are: who asks for float64
    # asks for more.
    if device.type != "cuda" or dtype == torch.float64:
        return False
    missing = {f"heads of {head_dim} dimensions": head_dim not in HEAD_DIMS, "dropout of attention weights": dropout}
    for reason, applies in missing.items():
        if applies:
            warnings.warn(
                f"FlexAttention has no {reason}: packed documents are isolated by a dense mask, whose memory and "
                "time grow with the square of the context length",
                stacklevel=2,
            )
            return False
    return True


def _on(device: str, function: Any) -> Any:
    """FlexAttention's function as the device needs it: compiled on a GPU, unless the caller is being compiled."""
    return function if device != "cuda" or torch.compiler.is_compiling() else _compiled(function)


@cache
def _compiled(function: Any) -> Any:
    # Shared by all layers. Without `fullgraph`, exceeding Dynamo's limit of variants would silently run FlexAttention
    # uncompiled, which holds all scores in memory.
    return torch.compile(function, dynamic=False, fullgraph=True)


AttentionInterface.register(ATTENTION, attend)
