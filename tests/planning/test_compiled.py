"""What compiled layers are planned to keep is what they keep."""

import pytest
import torch
from family import CONFIGS, FIELDS
from saved import saving
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from lit_pi.models import LanguageModel
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.layers import compilation
from lit_pi.planning.compiled import keep_as_compiled
from lit_pi.positions import Extrapolate, Rope

TOKENS = 512
SHAPED = [type(each)(**{**FIELDS, "hidden_size": 128, "intermediate_size": 448}) for each in CONFIGS]
"""As models are: queries as wide as hidden states, a gate of 3.5 times that."""


def built(config: PretrainedConfig, dtype: torch.dtype) -> LanguageModel:
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    return LanguageModel(llm.to(dtype), Extrapolate(), Rope(64, 1e4, 32)).train()


def run(model: LanguageModel) -> tuple[float, list[torch.Tensor]]:
    """Values that autograd keeps for each of a hidden state, weights and phases aside, and gradients."""
    config, dtype = model.llm.config, model.llm.dtype
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(1, TOKENS, config.hidden_size, generator=draws).to(dtype).requires_grad_()
    phases = model.rotary(start, torch.arange(TOKENS)[None])
    hidden_states = start
    with saving() as saved:
        for layer in model.decoder_layers:
            hidden_states = layer(hidden_states, position_embeddings=phases)
    kept = saved.bytes_beside((*model.parameters(), *phases)) / (config.num_hidden_layers * start.nbytes)
    hidden_states.square().mean().backward()
    return kept, [start.grad, *(each.grad for each in model.decoder_layers.parameters())]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("config", SHAPED, ids=lambda config: config.model_type)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch reads it while it traces
def test_it_is_what_torchs_compiler_keeps(
    config: PretrainedConfig, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncompiled, compiled, planned = (built(config, dtype) for _ in range(3))
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
