"""A small config of every architecture that computes as LLaMA does."""

from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

FIELDS = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 64, "max_position_embeddings": 32, "initializer_range": 0.2,
}  # fmt: skip
CONFIGS = [LlamaConfig(**FIELDS), MistralConfig(**FIELDS), Qwen2Config(**FIELDS), Qwen3Config(**FIELDS)]
