"""Attention under a rule that changes which distance a query sees."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.models.llama.modeling_llama import repeat_kv, rotate_half

from lit_pi.errors import UserError
from lit_pi.models.attention.masks import make_mask
from lit_pi.models.attention.sequence_split import SequenceSplit
from lit_pi.models.rotary import RotaryEmbedding
from lit_pi.models.sources.provenance import head_dim_of

RULE_ATTENTION = "lit_pi_rule"
"""Name of the attention under which models with a rule run."""

QUERIES = 512
"""Queries whose scores stand in memory at once."""

_ROTARY = "rule_rotary"


def rule_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch kv_heads keys head_dim"],
    value: Float[Tensor, "batch kv_heads keys head_dim"],
    attention_mask: Bool[Tensor, "batch 1 queries keys"] | None,
    scaling: float,
    sequence_split: SequenceSplit | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch queries heads head_dim"], None]:
    """Scores of every pass, each pair's taken from its own, in one softmax: exact, block of queries after block.

    Queries and keys arrive without rotation, so a key that generation keeps in its cache serves every later query.
    """
    rotary: RotaryEmbedding = getattr(module, _ROTARY)
    assert rotary.position_ids is not None
    groups = query.shape[1] // key.shape[1]
    query_positions, key_positions = rotary.position_ids, rotary.key_position_ids
    past = key.shape[2] - query.shape[2]
    if sequence_split is None:
        places = torch.arange(past, key.shape[2], device=key.device)
    else:
        key, value = sequence_split.gather(key, dim=2), sequence_split.gather(value, dim=2)
        places, key_positions = sequence_split.places, sequence_split.key_position_ids
    if key_positions is None:
        key_positions = query_positions
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    output = []
    for start in range(0, query.shape[2], QUERIES):
        rows = slice(start, start + QUERIES)
        stop = min(rows.stop, query.shape[2])
        seen = slice(0, stop + past if sequence_split is None else sequence_split.seen_by(stop))
        scores = rule_scores(
            rotary, query[:, :, rows], key[:, :, seen], query_positions[:, rows], key_positions[:, seen]
        )
        allowed = _allowed(attention_mask, rows, seen, places[rows])
        weights = (scores * scaling).masked_fill(~allowed, -torch.inf)
        wide = torch.promote_types(weights.dtype, torch.float32)
        output.append(weights.softmax(-1, dtype=wide).to(value.dtype) @ value[:, :, seen])
    return torch.cat(output, dim=2).transpose(1, 2), None


def rule_scores(
    rotary: RotaryEmbedding,
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    query_positions: Int[Tensor, "rows queries"],
    key_positions: Int[Tensor, "rows keys"],
) -> Float[Tensor, "batch heads queries keys"]:
    """Scores, not yet scaled, of queries and keys without rotation, as the strategy with or without a rule has them."""
    rule = rotary.position.attention_rule
    if rule is None:
        return _rotate(query, rotary, query_positions) @ _rotate(key, rotary, key_positions).mT
    passes = rule.passes(query_positions, key_positions)
    pass_of = rule.pass_of(query_positions, key_positions)[:, None]
    scores = query.new_zeros(())
    for index, each in enumerate(passes):
        own = _rotate(query, rotary, each.query_positions) @ _rotate(key, rotary, each.key_positions).mT
        scores = torch.where(pass_of == index, own, scores)
    return scores


def check_rule(llm: PreTrainedModel, rotary: RotaryEmbedding) -> None:
    """Check that attention can follow a rule in this model.

    Raises:
        UserError: it does not rotate queries and keys as LLaMA does.
    """
    if reason := unlike_llama(llm, rotary):
        raise UserError(
            f"{type(rotary.position).__name__} has an attention rule, which lit_pi computes as in LLaMA, and this "
            f"{llm.config.model_type} model {reason}: choose a strategy without a rule"
        )


def unlike_llama(llm: PreTrainedModel, rotary: RotaryEmbedding) -> str | None:
    """In which way a model rotates queries and keys or scores them otherwise than LLaMA does, if in any."""
    config = llm.config
    head_dim = head_dim_of(config)
    reasons = {
        "rotates by kind of layer": bool(rotary.rope.kinds) or len(rotary.rotations.distinct) > 1,
        "rotates pairs of neighbours": rotary.layout != "halves",
        f"rotates {rotary.rope.head_dim} of {head_dim} dimensions": rotary.rope.head_dim != head_dim,
        "caps its scores": caps_scores(config),
        "has attention sinks": has_sinks(llm),
        "has layers without positions": 0 in (getattr(config, "no_rope_layers", None) or []),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def caps_scores(config: PreTrainedConfig) -> bool:
    """Whether attention of a config caps its scores before the softmax, as Gemma 2's does."""
    return getattr(config, "attn_logit_softcapping", None) is not None


def has_sinks(llm: PreTrainedModel) -> bool:
    """Whether attention of a model has learnt sinks in its softmax, as GPT-OSS has."""
    return any(name.endswith("sinks") for name, _ in llm.named_parameters())


def install_rule(llm: PreTrainedModel, rotary: RotaryEmbedding, attention: str = RULE_ATTENTION) -> None:
    """Make the model's attention follow the rule of the rotary embedding's strategy.

    Args:
        llm: whose attention is replaced.
        rotary: rotates queries and keys in attention.
        attention: name of what computes it.
    """
    llm.set_attn_implementation(attention)
    for module in llm.modules():
        if hasattr(module, "k_proj"):
            object.__setattr__(module, _ROTARY, rotary)  # not as a submodule of every layer


def _rotate(
    states: Float[Tensor, "batch heads seq head_dim"], rotary: RotaryEmbedding, positions: Int[Tensor, "rows seq"]
) -> Float[Tensor, "batch heads seq head_dim"]:
    cos, sin = (phase[:, None] for phase in rotary.phases(positions, states.dtype))
    return states * cos + rotate_half(states) * sin


def _allowed(
    mask: Bool[Tensor, "batch 1 queries keys"] | None, rows: slice, seen: slice, places: Int[Tensor, " queries"]
) -> Bool[Tensor, "rows 1 queries keys"]:
    """The mask's part, or causal attention of queries at these places."""
    if mask is not None:
        return mask[:, :, rows, seen]
    return (places[:, None] >= torch.arange(seen.stop, device=places.device))[None, None]


AttentionInterface.register(RULE_ATTENTION, rule_attention)
AttentionMaskInterface.register(RULE_ATTENTION, make_mask)
