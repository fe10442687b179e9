"""A small model whose attention tells positions apart, its tokenizer, and texts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lit_pi.data.tokenizer import load_tokenizer

FIELDS = {
    "vocab_size": 264, "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.15, "bos_token_id": 256,
    "eos_token_id": 257,
}  # fmt: skip


@pytest.fixture
def build() -> Callable[[], LlamaForCausalLM]:
    """Makes the same model each time."""

    def make() -> LlamaForCausalLM:
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**FIELDS)).eval()

    return make


@pytest.fixture
def model(build: Callable[[], LlamaForCausalLM]) -> LlamaForCausalLM:
    """Random weights, pre-trained at 64 tokens."""
    return build()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte."""
    return load_tokenizer("bytes")


@pytest.fixture(scope="session")
def documents(texts: Path) -> list[str]:
    """The small corpus' test documents, as strings."""
    return [path.read_text() for path in sorted((texts / "test").glob("*.txt"))]
