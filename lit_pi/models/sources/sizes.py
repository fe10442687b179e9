"""Published LLaMA sizes, and one that trains on a laptop.

7B to 65B: Touvron et al. 2023, arXiv 2302.13971, table 2. 8B: Llama 3, Grattafiori et al. 2024, arXiv 2407.21783,
table 3.
"""

from typing import Any, Literal

Size = Literal["2m", "7b", "8b", "13b", "33b", "65b"]

_LLAMA = {"vocab_size": 32_000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6}

LLAMA_SIZES: dict[Size, dict[str, Any]] = {
    "2m": {
        **_LLAMA,
        "vocab_size": 264,  # 256 bytes, begin and end of document, rounded up to a multiple of 8
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "initializer_range": 0.06,  # near 1 / sqrt(hidden_size); 0.02 is for large models and starts this one slowly
    },
    "7b": {
        **_LLAMA,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "8b": {
        "vocab_size": 128_256,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "13b": {
        **_LLAMA,
        "hidden_size": 5120,
        "intermediate_size": 13_824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
    "33b": {
        **_LLAMA,
        "hidden_size": 6656,
        "intermediate_size": 17_920,
        "num_hidden_layers": 60,
        "num_attention_heads": 52,
    },
    "65b": {
        **_LLAMA,
        "hidden_size": 8192,
        "intermediate_size": 22_016,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
}
"""Fields of transformers' `LlamaConfig` by size."""
