"""What compiled layers are planned to keep is what they keep."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from lit_pi.models import LanguageModel, compilation
from lit_pi.models.attention import ATTENTION
from lit_pi.planning.compiled import keep_as_compiled
from lit_pi.positions import Extrapolate, Rope

HIDDEN, TOKENS, LAYERS = 128, 512, 2
FAMILY = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}


def built(architecture: str, dtype: torch.dtype) -> LanguageModel:
    config, model = FAMILY[architecture]
    torch.manual_seed(0)
    llm = model._from_config(
        config(
            vocab_size=97, hidden_size=HIDDEN, intermediate_size=448, num_hidden_layers=LAYERS, num_attention_heads=2,
            num_key_value_heads=1, head_dim=64, max_position_embeddings=32,
        ),
        attn_implementation=ATTENTION,
    )  # fmt: skip
    return LanguageModel(llm.to(dtype), Extrapolate(), Rope(64, 1e4, 32)).train()


def run(model: LanguageModel) -> tuple[float, list[torch.Tensor]]:
    """Values that autograd keeps for each of a hidden state, weights and phases aside, and gradients."""
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    dtype = next(model.parameters()).dtype
    start = torch.randn(1, TOKENS, HIDDEN, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    phases = model.rotary(start, torch.arange(TOKENS)[None])
    hidden_states = start
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        for layer in model.decoder_layers:
            hidden_states = layer(hidden_states, position_embeddings=phases)
    others = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *phases)}
    kept = sum(storage.nbytes() for place, storage in storages.items() if place not in others)
    hidden_states.square().mean().backward()
    return kept / (LAYERS * start.nbytes), [start.grad, *(each.grad for each in model.decoder_layers.parameters())]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("architecture", FAMILY)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch reads it while it traces
def test_it_is_what_torchs_compiler_keeps(
    architecture: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncompiled, compiled, planned = (built(architecture, dtype) for _ in range(3))
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")  # which keeps what inductor keeps
    torch._dynamo.reset()
    for forward, layer in zip(compiled.layer_forwards, planned.decoder_layers, strict=True):
        forward.compiled = True
        keep_as_compiled(layer)
    (everything, wanted), (kept, _), (expected, found) = run(uncompiled), run(compiled), run(planned)
    torch._dynamo.reset()
    assert expected == pytest.approx(kept, rel=0.02)
    assert everything > 1.3 * kept
    for gradient, other in zip(found, wanted, strict=True):
        assert torch.equal(gradient, other)


def test_layers_of_other_families_stay_as_they_are() -> None:
    layer = nn.TransformerEncoderLayer(8, 2)
    keep_as_compiled(layer)
    assert all("forward" not in vars(module) for module in layer.modules())
