"""Attention to the last tokens only, in work that grows with the window and not with the square of the sequence."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention


def window_attention(
    query: Float[Tensor, "batch heads seq head_dim"],
    key: Float[Tensor, "batch kv_heads seq head_dim"],
    value: Float[Tensor, "batch kv_heads seq value_dim"],
    window: int,
    scaling: float,
    dropout: float = 0.0,
) -> Float[Tensor, "batch seq heads value_dim"]:
    """Attention in which each token sees the last `window` tokens, itself included.

    The sequence is cut into blocks as long as the window: a block's queries see keys of their own block and of the
    one before, and no others.

    Args:
        query: the queries.
        key: the keys.
        value: the values.
        window: tokens that each token sees.
        scaling: factor on the scores.
        dropout: share of the attention weights to drop.
    """
    batch, _, seq, _ = query.shape
    missing = -seq % window
    blocks = (seq + missing) // window

    def cut(states: Tensor) -> Tensor:
        return pad(states, (0, 0, 0, missing)).unflatten(2, (blocks, window)).transpose(1, 2)

    def with_the_one_before(states: Tensor) -> Tensor:
        own = cut(states)
        return torch.cat((pad(own, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1], own), dim=3).flatten(0, 1)

    places = torch.arange(window, device=query.device)
    keys = torch.arange(-window, window, device=query.device)
    visible = (places[:, None] >= keys) & (places[:, None] - keys < window)
    # Before the first block there is nobody.
    by_block = visible.repeat(blocks, 1, 1)
    by_block[0, :, :window] = False
    mask = by_block.repeat(batch, 1, 1)[:, None]
    output = scaled_dot_product_attention(
        cut(query).flatten(0, 1),
        with_the_one_before(key),
        with_the_one_before(value),
        mask,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.unflatten(0, (batch, blocks)).transpose(2, 3).flatten(1, 2)[:, :seq].contiguous()
