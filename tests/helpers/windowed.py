"""Tiny models with windows: Mistral's on every layer, OLMo 3's and Gemma 3's beside layers that see everything."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, MistralConfig, Olmo3Config, PreTrainedModel

WINDOW = 16
FIELDS: dict[str, Any] = {
    "vocab_size": 264, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 64, "initializer_range": 0.2,
    "sliding_window": WINDOW, "pad_token_id": 0, "bos_token_id": 256, "eos_token_id": 257,
}  # fmt: skip
KINDS = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
CONFIGS = {
    "mistral": lambda **changed: MistralConfig(**FIELDS | changed),
    "olmo3": lambda **changed: Olmo3Config(**FIELDS | changed, layer_types=KINDS),
    "gemma3": lambda **changed: Gemma3TextConfig(**FIELDS | changed, layer_types=KINDS, query_pre_attn_scalar=32),
}
BY_KIND = ["olmo3", "gemma3"]


def windowed(name: str, **changed: Any) -> PreTrainedModel:
    """The same random weights each time, whatever else of the config is changed."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name](**changed), dtype=torch.float32).eval()
