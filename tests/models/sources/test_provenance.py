"""What a config says of positions is what transformers reads there, before and after a strategy was put in effect."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Phi3Config, PreTrainedModel
from windowed import BY_KIND, windowed

import lit_pi
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel, Pretrained
from lit_pi.models.sources.checkpoint import model_record
from lit_pi.models.sources.in_memory import InMemory
from lit_pi.models.sources.provenance import KEY, config_in_effect, rope_of
from lit_pi.positions import DynamicNTK, FromConfig, Interpolate, LongRoPE, NTKByParts, PositionStrategy, Rope, YaRN

TOKENS = torch.randint(1, 250, (1, 200), generator=torch.Generator().manual_seed(1))
LENGTHS = (40, 64, 65, 200)
"""Within the context of pre-training, and beyond it."""

LONGROPE = {
    "original_max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.5] * 8},
}
STRATEGIES = {
    "yarn": YaRN(scale=4),
    "interpolate": Interpolate(scale=4),
    "by parts": NTKByParts(scale=4),
    "longrope": LongRoPE([2.0 + j for j in range(8)], [1.0 + j / 10 for j in range(8)], scale=4),
}


def phi3(**fields: Any) -> PreTrainedModel:
    """Phi-3, whose config takes no types but `longrope`, and the original context beside `rope_parameters`."""
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=264, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, initializer_range=0.2, **deepcopy(fields),
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("fields", [{}, LONGROPE], ids=["plain", "longrope"])
def test_a_config_that_takes_few_types_says_any_strategy_by_factors(
    fields: dict[str, Any], name: str, tmp_path: Path
) -> None:
    position = STRATEGIES[name]
    model = lit_pi.extend(phi3(**fields), position)
    model.save_pretrained(tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(stock.model.rotary_emb).__module__.startswith("transformers.")
    assert stock.config.rope_parameters["rope_type"] == "longrope" and stock.config.max_position_embeddings == 256
    own = phi3(**fields)
    expected = LanguageModel(InMemory(own).build()[0], position, rope_of(own.config)).eval()
    for length in LENGTHS:
        logits = stock(TOKENS[:, :length], use_cache=False).logits
        torch.testing.assert_close(model(TOKENS[:, :length], use_cache=False).logits, logits, rtol=0, atol=3e-4)
        nll = -logits[:, :-1].log_softmax(-1).gather(-1, TOKENS[:, 1:length, None])[..., 0]
        found = expected(TOKENS[:, : length - 1], TOKENS[:, 1:length], context_length=length)
        torch.testing.assert_close(found, nll, rtol=0, atol=3e-4)


@pytest.mark.parametrize("position", [*STRATEGIES.values(), DynamicNTK(scale=4)])
def test_its_checkpoints_are_read_and_extended_again(position: PositionStrategy, tmp_path: Path) -> None:
    llm, rope = InMemory(phi3()).build()
    model = LanguageModel(llm, position, rope)
    weights = {f"model.{name}": weight for name, weight in model.state_dict().items()}
    torch.save({KEY: model_record(model), "global_step": 1, "state_dict": weights}, tmp_path / "a.ckpt")
    read, again = Pretrained(str(tmp_path / "a.ckpt")).build()
    assert again == rope == Rope(16, 10_000.0, 64)
    assert LanguageModel(read, YaRN(scale=8), again).rotations.target_context == 512


def test_what_it_cannot_say_is_refused_by_its_name() -> None:
    said = config_in_effect(phi3().config, DynamicNTK(scale=4), Rope(16, 10_000.0, 64))
    assert "Phi3Config of transformers does not take the rope_parameters of DynamicNTK" in said.lit_pi["refusal"]
    assert said.rope_parameters["rope_type"] == "default"


@torch.no_grad()
@pytest.mark.parametrize("name", BY_KIND)
def test_fields_beside_kinds_of_layers_are_left_unread(name: str) -> None:
    stock = windowed(name)
    plain = stock.config.rope_parameters
    # As newer versions of transformers keep a set for all layers that such a config has.
    stock.config.rope_parameters = {"rope_type": "yarn", "rope_theta": 7.0, "factor": 4.0, **deepcopy(plain)}
    assert rope_of(stock.config) == rope_of(windowed(name).config)
    found = LanguageModel(InMemory(stock).build()[0], FromConfig(), rope_of(stock.config)).eval()
    stock = AutoModelForCausalLM.from_config(stock.config).eval().requires_grad_(False)
    stock.load_state_dict(found.llm.state_dict())
    nll = -stock(TOKENS[:, :-1]).logits.log_softmax(-1).gather(-1, TOKENS[:, 1:, None])[..., 0]
    torch.testing.assert_close(found(TOKENS[:, :-1], TOKENS[:, 1:]), nll, rtol=0, atol=1e-5)
    assert {*config_in_effect(stock.config, YaRN(scale=4), rope_of(stock.config)).rope_parameters} == {*plain}


LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}


def test_nobody_is_asked_from_where_a_config_stretches_until_a_strategy_counts_from_there(tmp_path: Path) -> None:
    stock = windowed("mistral", rope_parameters=dict(LINEAR))
    stock.save_pretrained(tmp_path)
    place = str(tmp_path)
    llm, rope = Pretrained(place).build()
    assert rope == Rope(32, 10_000.0, 16, assumed=True)
    own = LanguageModel(llm, FromConfig(), rope)
    assert own.position.describe() == Interpolate(scale=4).describe()
    with torch.no_grad():
        nll = -stock(TOKENS[:, :-1]).logits.log_softmax(-1).gather(-1, TOKENS[:, 1:, None])[..., 0]
        torch.testing.assert_close(own(TOKENS[:, :-1], TOKENS[:, 1:]), nll, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="give `original_context`"):
        LanguageModel(Pretrained(place).build()[0], YaRN(scale=4), rope)
    with pytest.raises(UserError, match="give `original_context`"):
        lit_pi.extend(windowed("mistral", rope_parameters=dict(LINEAR)), YaRN(scale=4))
    llm, rope = Pretrained(place, original_context=32).build()
    assert LanguageModel(llm, YaRN(scale=4), rope).rotations.target_context == 128
    # A run on it knows as little, and can be told as much.
    said = config_in_effect(own.llm.config, own.position, own.rope)
    assert rope_of(said).assumed and rope_of(said, 32) == Rope(32, 10_000.0, 32)


@pytest.mark.parametrize("theta", [None, 0, "10000", float("nan")])
def test_a_base_that_is_no_number_is_named(theta: object) -> None:
    config = phi3().config
    config.rope_parameters["rope_theta"] = theta
    with pytest.raises(UserError, match=r"the config of the phi3 model has rope_theta .*: it must be a positive"):
        rope_of(config)
