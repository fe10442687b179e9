"""Operations of a step, against torch's own counter on stock transformers."""

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pi.models import LanguageModel
from lit_pi.models.training.flop import Flop
from lit_pi.models.training.lora import LoRA
from lit_pi.positions import Extrapolate, Rope

HEAD_DIM, HEADS, LAYERS, BATCH, SEQ = 16, 4, 3, 2, 24


def stock(tied: bool = False) -> LlamaForCausalLM:
    """Eager attention multiplies every query with every key, also those that it must not see."""
    config = LlamaConfig(
        vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=2, head_dim=HEAD_DIM, max_position_embeddings=32, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM._from_config(config, attn_implementation="eager").train()


def counted(llm: LlamaForCausalLM) -> tuple[int, int]:
    """Operations of products with weights, and of those of activations, in a forward and a backward pass."""
    tokens = torch.randint(97, (BATCH, SEQ), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        llm(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    found = counter.get_flop_counts()["Global"]
    assert found.keys() <= {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm}
    return sum(found.values()) - found[torch.ops.aten.bmm], found[torch.ops.aten.bmm]


def all_trains(llm: LlamaForCausalLM) -> None:
    pass


def layers_frozen(llm: LlamaForCausalLM) -> None:
    llm.model.layers.requires_grad_(False)


def half_frozen(llm: LlamaForCausalLM) -> None:
    llm.model.layers[0].mlp.requires_grad_(False)
    llm.lm_head.requires_grad_(False)


@pytest.mark.parametrize("freeze", [all_trains, layers_frozen, half_frozen])
def test_products_with_weights(freeze: Callable[[LlamaForCausalLM], None]) -> None:
    llm = stock()
    freeze(llm)
    products, _ = counted(llm)
    assert Flop(LanguageModel(llm, Extrapolate(), Rope(HEAD_DIM, 1e4, 32))).step(BATCH * SEQ, 0) == products


def test_products_where_embeddings_are_tied() -> None:
    llm = stock(tied=True)
    products, _ = counted(llm)
    assert Flop(LanguageModel(llm, Extrapolate(), Rope(HEAD_DIM, 1e4, 32))).step(BATCH * SEQ, 0) == products


def test_products_of_an_adapter() -> None:
    model = LanguageModel(stock(), Extrapolate(), Rope(HEAD_DIM, 1e4, 32))
    LoRA(rank=4).install(model)
    products, _ = counted(model.llm)
    assert Flop(model).step(BATCH * SEQ, 0) == products


def test_attention() -> None:
    llm = stock()
    _, attention = counted(llm)
    with FlopCounterMode(display=False) as angles:  # which stock transformers may multiply too
        llm.model.rotary_emb(torch.empty(1), torch.arange(SEQ)[None])
    attention -= angles.get_total_flops()
    flop = Flop(LanguageModel(llm, Extrapolate(), Rope(HEAD_DIM, 1e4, 32)))
    assert flop.step(0, BATCH * SEQ * SEQ) == attention
    # Queries and keys, weights and values, and two products each backward; a causal query sees those up to itself.
    seen = BATCH * sum(place + 1 for place in range(SEQ))
    assert flop.step(0, seen) == LAYERS * 6 * 2 * HEADS * HEAD_DIM * BATCH * SEQ * (SEQ + 1) // 2
