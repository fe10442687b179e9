"""Queries and keys rotate as transformers rotates them."""

from itertools import pairwise

import pytest
import torch
from family import CONFIGS
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from lit_pi.models.layers import rotation


@pytest.mark.parametrize(
    ("dtype", "phase_dtype", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-14),
        (torch.float32, torch.float32, 1e-6),
        (torch.bfloat16, torch.float32, 1e-6),
        (torch.bfloat16, torch.bfloat16, 0.05),
    ],
)
def test_values_and_gradients(dtype: torch.dtype, phase_dtype: torch.dtype, tolerance: float) -> None:
    draw = torch.Generator().manual_seed(0)
    states = [torch.randn(2, heads, 7, 16, generator=draw).to(dtype).requires_grad_() for heads in (4, 2)]
    angles = torch.randn(2, 7, 8, generator=draw).repeat(1, 1, 2)
    phases = angles.cos().to(phase_dtype), angles.sin().to(phase_dtype)
    both = []
    for function in (rotation.rotate, apply_rotary_pos_emb):
        turned = function(*states, *phases)
        weights = [torch.arange(part.numel()).view_as(part).to(part.dtype) / part.numel() for part in turned]
        both.append([*turned, *torch.autograd.grad(turned, states, weights)])
    for ours, theirs in zip(*both, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=max(tolerance, 0.01 * (theirs.dtype == torch.bfloat16)))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_a_model_computes_the_same_and_others_stay_as_they_are(
    config: PreTrainedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    stock = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").double()
    ours = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").double()
    ours.load_state_dict(stock.state_dict())
    calls = []
    monkeypatch.setattr(rotation, "rotate", lambda *args, real=rotation.rotate: calls.append(1) or real(*args))
    rotation.install_rotation(ours.model.layers)
    tokens = torch.randint(0, 97, (2, 31))
    losses, gradients = [], []
    for model in (stock, ours):
        losses.append(model(input_ids=tokens, labels=tokens).loss)
        gradients.append(torch.autograd.grad(losses[-1], model.parameters()))
    assert len(calls) == config.num_hidden_layers
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=1e-10)
    for one, other in pairwise(gradients):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
