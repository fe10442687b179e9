"""The last layer scores the same when it computes scored positions only."""

import pytest
import torch
from family import CONFIGS
from strategies import IN_MODELS
from transformers import AutoModelForCausalLM, PreTrainedConfig

from lit_pi.models import LanguageModel
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.layers import compilation
from lit_pi.positions import Extrapolate, PositionStrategy, Rope

TOKENS = torch.randint(0, 97, (3, 101), generator=torch.Generator().manual_seed(0))
SCORED = torch.tensor([3, 17, 30, 31, 32, 88, 99])


def scores(config: PreTrainedConfig, position: PositionStrategy) -> tuple[torch.Tensor, torch.Tensor, LanguageModel]:
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    model = LanguageModel(llm.double().eval(), position, Rope(64, 1e4, 32))
    targets = TOKENS[:, 1:][:, SCORED]
    with torch.no_grad():
        pruned = model(TOKENS[:, :-1], targets, scored=SCORED)
        model.prunes = False
        return pruned, model(TOKENS[:, :-1], targets, scored=SCORED), model


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_scores_are_those_of_all_positions(config: PreTrainedConfig) -> None:
    pruned, whole, _ = scores(config, Extrapolate())
    torch.testing.assert_close(pruned, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("position", IN_MODELS.values(), ids=IN_MODELS)
def test_under_every_strategy(position: PositionStrategy) -> None:
    pruned, whole, _ = scores(CONFIGS[0], position)
    torch.testing.assert_close(pruned, whole, rtol=0, atol=1e-10)


def test_only_scored_positions_reach_the_last_feed_forward_layer() -> None:
    _, _, model = scores(CONFIGS[0], Extrapolate())
    seen = []
    for layer in model.decoder_layers:
        layer.mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    model.prunes = True
    with torch.no_grad():
        model(TOKENS[:, :-1], TOKENS[:, 1:][:, SCORED], scored=SCORED)
    model(TOKENS[:, :-1], TOKENS[:, 1:][:, SCORED], scored=SCORED)
    assert seen == [100, len(SCORED), 100, 100]


def test_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    _, whole, model = scores(CONFIGS[0], Extrapolate())
    model.prunes = True
    for layer in model.layer_forwards:
        layer.compiled = True
    torch._dynamo.reset()
    with torch.no_grad():
        found = model(TOKENS[:, :-1], TOKENS[:, 1:][:, SCORED], scored=SCORED)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-10)
