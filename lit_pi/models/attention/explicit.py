"""Attention whose scores are changed on their way to the softmax, block of queries after block."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import dropout as drop
from transformers.models.llama.modeling_llama import repeat_kv

QUERIES = 512
"""Queries whose scores stand in memory at once."""


def explicit_attention(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch kv_heads keys head_dim"],
    value: Float[Tensor, "batch kv_heads keys value_dim"],
    mask: Bool[Tensor, "rows 1 queries keys"] | None,
    scaling: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch queries heads value_dim"]:
    """Attention with scores that are capped, or beside a sink; exact, without a kernel of its own.

    Args:
        query: the queries, the last of as many tokens as there are keys.
        key: the keys.
        value: the values.
        mask: who sees whom; None for all before.
        scaling: factor on the scores.
        softcap: scores s become c tanh(s / c) with this c.
        sinks: scores of a sink that gives nothing, for each head.
        dropout: share of the attention weights to drop.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    keys = torch.arange(key.shape[2], device=key.device)
    past = key.shape[2] - query.shape[2]
    output = []
    for start in range(0, query.shape[2], QUERIES):
        rows = slice(start, min(start + QUERIES, query.shape[2]))
        seen = slice(0, rows.stop + past) if mask is None else slice(None)
        scores = query[:, :, rows] @ key[:, :, seen].mT * scaling
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        allowed = keys[past + rows.start : past + rows.stop, None] >= keys[seen] if mask is None else mask[:, :, rows]
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        if sinks is not None:
            sink = sinks.to(scores.dtype)[None, :, None, None].expand(len(scores), -1, scores.shape[2], 1)
            scores = torch.cat((scores, sink), dim=-1)
        wide = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(-1, dtype=wide)
        if sinks is not None:
            weights = weights[..., :-1]
        output.append(drop(weights, dropout).to(value.dtype) @ value[:, :, seen])
    return torch.cat(output, dim=2).transpose(1, 2).contiguous()
