"""What is exported is what was trained: stock transformers computes the same from it, at every position."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from strategies import STRATEGIES
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from lit_pi.errors import UserError
from lit_pi.export import write_model
from lit_pi.models import FromScratch, LanguageModel, Pretrained
from lit_pi.positions import FromConfig, Interpolate, PositionStrategy

# Weights large enough for attention to tell positions apart.
TINY = {
    "vocab_size": 97, "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 256, "initializer_range": 0.15,
}  # fmt: skip
REFUSED = {"cope": "a frequency of zero", "self-extend": "an attention rule of its own"}

pytestmark = pytest.mark.filterwarnings("ignore")


def built(position: PositionStrategy) -> LanguageModel:
    torch.manual_seed(0)
    llm, rope = FromScratch(config=TINY).build()
    return LanguageModel(llm, position, rope).eval()


@torch.no_grad()
def largest_difference(model: LanguageModel, directory: Path, length: int) -> float:
    """Of all logits at all positions of a context."""
    stock = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokens = torch.randint(97, (1, length), generator=torch.Generator().manual_seed(length))
    model.rotary.context_length = length
    ours = model.llm(tokens, use_cache=False).logits
    assert ours.std() > 0.5
    return float((stock(tokens, use_cache=False).logits - ours).abs().max())


@pytest.mark.parametrize("name", STRATEGIES)
def test_stock_transformers_computes_the_same_at_every_position(name: str, tmp_path: Path) -> None:
    model = built(STRATEGIES[name])
    if name in REFUSED:
        with pytest.raises(UserError, match=rf"{type(model.position).__name__}, which has {REFUSED[name]}"):
            write_model(model, tmp_path)
        return
    config = write_model(model, tmp_path)
    target = model.position.target_context_of(model.rope)
    assert config.max_position_embeddings == (256 if name == "dynamic-ntk" else target)
    tolerance = 1e-3 if config.rope_parameters["rope_type"] == "longrope" else 1e-5
    for length in {255, 256, max(target, 1024)}:
        assert largest_difference(model, tmp_path, length) <= tolerance, length


def test_the_comparison_would_notice_a_factor_that_is_a_little_off(tmp_path: Path) -> None:
    model = built(Interpolate(scale=4))
    write_model(model, tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    for form in ("rope_parameters", "rope_scaling"):
        content[form]["factor"] = 4.001
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert largest_difference(model, tmp_path, 1024) > 1e-3


@pytest.mark.parametrize("name", sorted(STRATEGIES.keys() - REFUSED.keys()))
def test_readers_of_either_form_of_the_config_rotate_to_the_bit_alike(name: str, tmp_path: Path) -> None:
    model = built(STRATEGIES[name])
    write_model(model, tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    stock = AutoModelForCausalLM.from_pretrained(tmp_path).model.rotary_emb
    newer = content.pop("rope_parameters")
    (tmp_path / "config.json").write_text(json.dumps(content))
    older = AutoModelForCausalLM.from_pretrained(tmp_path).model.rotary_emb
    for length in (8, 600, 100_000):
        positions = torch.arange(length - 1, -1, -max(length // 500, 1))[None]
        hidden_states = torch.empty(*positions.shape, 1)
        model.rotary.context_length = length
        ours = model.rotary(hidden_states, positions)
        for rotary in (stock, older):
            for found, expected in zip(rotary(hidden_states, positions), ours, strict=True):
                assert torch.equal(found, expected), length
    scaling = content["rope_scaling"]
    assert content["rope_theta"] == newer["rope_theta"]
    assert newer["rope_type"] == ("default" if scaling is None else scaling["type"])


ARRIVING = {
    "default": {"rope_type": "default", "rope_theta": 5e5},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
    "yarn": {
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64,
        "beta_fast": 16.0, "truncate": True,
    },
    "llama3": {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "original_max_position_embeddings": 64,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ARRIVING)
@pytest.mark.parametrize("architecture", [LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config])
def test_a_directory_comes_back_identical(architecture: type, kind: str, tmp_path: Path) -> None:
    tied = architecture is Qwen2Config
    config = architecture(
        **TINY, num_key_value_heads=1, head_dim=64, tie_word_embeddings=tied, rope_parameters=dict(ARRIVING[kind])
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "given")
    source = Pretrained(str(tmp_path / "given"), original_context=64)
    llm, rope = source.build(keep_dtype=True)
    write_model(LanguageModel(llm, FromConfig(), rope), tmp_path / "back")

    given, back = (load_file(tmp_path / folder / "model.safetensors") for folder in ("given", "back"))
    assert given.keys() == back.keys()
    assert ("lm_head.weight" in given) != tied
    for name, tensor in given.items():
        assert back[name].dtype == torch.bfloat16
        assert torch.equal(back[name], tensor), name
    before, after = (json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("given", "back"))
    for name in ("lit_pi", "rope_theta", "rope_scaling"):
        after.pop(name)
    if architecture is MistralConfig:  # lit_pi attends to everything
        assert before.pop("sliding_window") >= after.pop("sliding_window")
    assert after == before


def test_a_sliding_window_that_lit_pi_does_not_have_is_not_promised(tmp_path: Path) -> None:
    for architecture in (MistralConfig, Qwen2Config):
        config = architecture(
            **TINY, num_key_value_heads=1, head_dim=64, sliding_window=16, use_sliding_window=True, max_window_layers=0
        )
        assert config.sliding_window == 16
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "given")
        llm, rope = Pretrained(str(tmp_path / "given")).build()
        model = LanguageModel(llm, FromConfig(), rope).eval()
        write_model(model, tmp_path / architecture.__name__)
        assert largest_difference(model, tmp_path / architecture.__name__, 200) <= 1e-5
