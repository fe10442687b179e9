"""Weights that come module by module are those of a model built at once, and no more are there than asked for."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from lit_pi.models import FromScratch, Pretrained

CONFIG = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip


def numbers(llm: PreTrainedModel) -> int:
    """That are in memory, each counted once."""
    storages = {weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes() for weight in llm.parameters()}
    return sum(storages.values()) // 4


@pytest.mark.parametrize("tied", [False, True])
def test_filled_models_are_built_ones(tied: bool, tmp_path: Path) -> None:
    """Random weights to the bit, and stored ones in several files."""
    source = FromScratch(config=CONFIG | {"tie_word_embeddings": tied})
    torch.manual_seed(3)
    built, rope = source.build()
    built.save_pretrained(tmp_path, max_shard_size="20KB")
    for lazy in (source, Pretrained(str(tmp_path))):
        torch.manual_seed(3)
        llm, found, fill = lazy.lazily(torch.device("cpu"))
        assert found == rope
        assert numbers(llm) == len(list(llm.parameters()))
        llm.model.embed_tokens.apply(fill)
        llm.model.layers[0].apply(fill)
        filled = sum(
            weight.numel() for part in (llm.model.embed_tokens, llm.model.layers[0]) for weight in part.parameters()
        )
        assert filled <= numbers(llm) < filled + len(list(llm.parameters()))
        for part in (*llm.model.layers[1:], llm.model.norm, llm.lm_head):
            part.apply(fill)
        assert (llm.lm_head.weight is llm.model.embed_tokens.weight) == tied
        for name, weight in built.named_parameters():
            assert torch.equal(llm.get_parameter(name), weight), name


def test_weights_are_made_where_they_will_be(tmp_path: Path) -> None:
    source = FromScratch(config=CONFIG)
    source.build()[0].save_pretrained(tmp_path)
    for lazy in (source, Pretrained(str(tmp_path))):
        llm, _, fill = lazy.lazily(torch.device("meta"))
        assert {weight.device.type for weight in llm.apply(fill).parameters()} == {"meta"}
