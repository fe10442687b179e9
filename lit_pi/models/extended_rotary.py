"""A rotary embedding inside a stock transformers model, which then generates, trains and is saved as such."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from lit_pi.models.attention.rules import check_rule, install_rule, rule_attention
from lit_pi.models.language_model import decoder_of
from lit_pi.models.rotary import (
    Layout,
    Phases,
    RotaryEmbedding,
    install_by_layer,
    install_rotary,
    layout_of,
    stock_rotary,
)
from lit_pi.models.sources.provenance import layer_kinds
from lit_pi.positions import PositionStrategy, Rope

LATE_ATTENTION = "lit_pi_late"
"""Name of the attention that follows a rule while transformers runs the model."""


class ExtendedRotary(RotaryEmbedding):
    """A strategy's rotary embedding for a model that transformers runs.

    Keys are rotated before they are cached, as transformers does. Under an attention rule they are cached without
    rotation and rotated in attention, at each step anew: where a key stands depends on the query that looks at it.

    Args:
        position: the strategy in effect.
        rope: what the model was pre-trained with.
        kinds: the kind of each layer, in order.
        layout: how the model wants its angles.
        stock: class of the rotary embedding that transformers makes of the model's config.
        attention: name of the attention that the model had.

    Attributes:
        settled: tokens of context for strategies whose angles depend on it, while a text is generated; otherwise each
            forward counts its own, as transformers' `dynamic` and `longrope` types do.
    """

    def __init__(
        self,
        position: PositionStrategy,
        rope: Rope,
        kinds: Sequence[str],
        layout: Layout,
        stock: type[nn.Module],
        attention: str,
    ) -> None:
        super().__init__(position, rope, kinds, layout)
        self.stock = stock
        self.attention = attention
        self.settled: int | None = None

    @torch.no_grad()
    def forward(
        self,
        hidden_states: Float[Tensor, "batch seq hidden"],
        position_ids: Int[Tensor, "rows seq"],
        layer_type: str | None = None,
    ) -> Phases:
        """Cosine and sine in the dtype of `hidden_states`; none under an attention rule, which rotates itself."""
        if not self.position.prefix_consistent:
            self.context_length = self.settled or int(position_ids.max()) + 1
        return super().forward(hidden_states, position_ids, layer_type)


def rotary_of(llm: PreTrainedModel) -> ExtendedRotary | None:
    """The rotary embedding of a model that was extended before."""
    return next((module for module in llm.modules() if isinstance(module, ExtendedRotary)), None)


def install_extended(llm: PreTrainedModel, position: PositionStrategy, rope: Rope) -> None:
    """Let a model that transformers runs rotate by a strategy, whatever it rotated by before.

    Raises:
        UserError: it is not a RoPE model this adapter understands.
    """
    before, kinds = rotary_of(llm), layer_kinds(llm.config)
    if before is None:
        stock, attention = stock_rotary(llm), llm.config._attn_implementation
    else:
        stock, attention = before.stock, before.attention
    rotary = ExtendedRotary(position, rope, kinds, layout_of(stock, llm.config), stock, attention)
    if position.attention_rule is not None:
        check_rule(llm, rotary)
    install_rotary(llm, rotary)
    install_by_layer(decoder_of(llm).get_submodule("layers").children(), rotary)
    if position.attention_rule is not None:
        install_rule(llm, rotary, LATE_ATTENTION)
    elif llm.config._attn_implementation != rotary.attention:
        llm.set_attn_implementation(rotary.attention)


def late_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch kv_heads keys head_dim"],
    value: Float[Tensor, "batch kv_heads keys head_dim"],
    attention_mask: Bool[Tensor, "rows 1 queries keys"] | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch queries heads head_dim"], None]:
    """Attention of queries and keys that are not rotated yet, wherever in a cache and beside whatever padding."""
    rotary: RotaryEmbedding = module.rule_rotary  # type: ignore[assignment]
    assert rotary.position_ids is not None
    rotary.position_ids = rotary.position_ids.expand(len(query), -1)
    rotary.key_position_ids = key_positions(rotary.position_ids, key.shape[2], attention_mask)
    if attention_mask is not None:
        # Padding that sees nothing would become what is no number, and so would whoever has it in a cache.
        attention_mask = attention_mask | ~attention_mask.any(dim=-1, keepdim=True)
    try:
        return rule_attention(module, query, key, value, attention_mask, scaling)
    finally:
        rotary.key_position_ids = None


def key_positions(
    query_positions: Int[Tensor, "rows queries"], keys: int, mask: Bool[Tensor, "batch 1 queries keys"] | None
) -> Int[Tensor, "batch keys"]:
    """Where keys stand: from the first query back over the tokens that it sees, and on as the queries do.

    Padding, which nobody sees, stands anywhere.

    Args:
        query_positions: places of the queries, in tokens.
        keys: keys of the cache, with those of the queries and any that are still empty.
        mask: who sees whom; None where the keys are those of the queries.
    """
    if mask is None:
        return query_positions
    queries = query_positions.shape[1]
    seen = mask[:, 0, 0].long()
    after = seen.flip(1).cumsum(1).flip(1)  # tokens from a key to the first query, both counted
    places = query_positions[:, :1] + 1 - after
    # Columns of the queries themselves: the same in every row, as caches have them.
    start = min(int(seen.shape[1] - seen.any(dim=0).long().flip(0).argmax()) - 1, keys - queries)
    places[:, start : start + queries] = query_positions
    return places.clamp(min=0)


def late_mask(
    *, q_length: int, kv_length: int, allow_is_causal_skip: bool = True, **kwargs: Any
) -> Bool[Tensor, "rows 1 queries keys"] | None:
    """Transformers' mask, left out only where the keys are those of the queries: elsewhere it says where keys stand."""
    skip = allow_is_causal_skip and q_length == kv_length
    return sdpa_mask(q_length=q_length, kv_length=kv_length, allow_is_causal_skip=skip, **kwargs)


AttentionInterface.register(LATE_ATTENTION, late_attention)
AttentionMaskInterface.register(LATE_ATTENTION, late_mask)
