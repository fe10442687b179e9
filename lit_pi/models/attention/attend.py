"""Attention of a layer under the mask it is given, by the kernel that is fastest for it."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lit_pi.models.attention.explicit import explicit_attention
from lit_pi.models.attention.masks import Lengths, Mask, Window, compiled_on, make_mask
from lit_pi.models.attention.packages import attend_by_lengths
from lit_pi.models.attention.sequence_split import SequenceSplit, ring_attention
from lit_pi.models.attention.windows import window_attention

ATTENTION = "lit_pi"
"""Name of the attention under which models are built."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Mask | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sequence_split: SequenceSplit | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """FlexAttention under blocks, a package's kernels under lengths, else torch's scaled dot product attention.

    Where sequences are split over ranks, keys and values are gathered under a mask, and else passed around in a ring.

    Args:
        module: the attention layer.
        query: `[batch, heads, queries, head_dim]`.
        key: `[batch, kv_heads, keys, head_dim]`.
        value: `[batch, kv_heads, keys, head_dim]`.
        attention_mask: a mask made by `make_mask`, or None for causal attention.
        scaling: factor on the scores.
        dropout: share of the attention weights to drop; none under blocks (see `blocks_are_fastest`) and lengths.
        sequence_split: over ranks, of which each has queries, keys and values of its own positions.
        softcap: scores s become c tanh(s / c) with this c, as in Gemma 2.
        s_aux: `[heads]` scores of a sink, which takes its share of every softmax and gives nothing, as in GPT-OSS.
        kwargs: further arguments that transformers passes, which are not used: what they say of windows is in the mask.

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
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(attention_mask, BlockMask):
        assert not dropout
        return _by_blocks(query, key, value, attention_mask, scaling, softcap, s_aux), None
    if softcap is not None or s_aux is not None:
        assert not isinstance(attention_mask, Window | Lengths)
        return explicit_attention(query, key, value, attention_mask, scaling, softcap, s_aux, dropout), None
    if isinstance(attention_mask, Lengths):
        assert not dropout
        return attend_by_lengths(query, key, value, attention_mask, scaling), None
    if isinstance(attention_mask, Window):
        return window_attention(query, key, value, attention_mask.tokens, scaling, dropout), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling)


def _by_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: BlockMask,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    options: dict[str, Any] = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    if softcap is not None:
        options["score_mod"] = _capped(softcap)
    run = compiled_on(query.device.type, flex_attention)
    if sinks is None:
        return run(query, key, value, block_mask=mask, **options).transpose(1, 2).contiguous()
    output, log_sum = run(query, key, value, block_mask=mask, return_lse=True, **options)
    share = torch.sigmoid(log_sum - sinks.to(log_sum.dtype)[None, :, None])
    return (output * share[..., None].to(output.dtype)).transpose(1, 2).contiguous()


@cache
def _capped(cap: float) -> Callable[..., Tensor]:
    def score(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return score


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, make_mask)
