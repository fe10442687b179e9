"""What is exported is what was trained: stock transformers computes the same from it, at every position."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from strategies import STRATEGIES
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    GlmConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from windowed import windowed

from lit_pi.errors import UserError
from lit_pi.export import stock, verification, write_model
from lit_pi.export.verification import verify
from lit_pi.export.writing import write_files
from lit_pi.models import FromScratch, LanguageModel, Pretrained
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.sources.provenance import rope_of
from lit_pi.positions import AdjustedBase, ByLayer, Extrapolate, FromConfig, Interpolate, PositionStrategy, YaRN

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
    assert after == before


@pytest.mark.parametrize("position", [FromConfig(), Interpolate(scale=4)], ids=["config", "interpolate"])
@pytest.mark.parametrize("architecture", [MistralConfig, Qwen2Config])
def test_a_window_of_the_model_stays(architecture: type, position: PositionStrategy, tmp_path: Path) -> None:
    fields = {"num_key_value_heads": 1, "head_dim": 64, "sliding_window": 16}
    config = architecture(**TINY, **fields, use_sliding_window=True, max_window_layers=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "given")
    llm, rope = Pretrained(str(tmp_path / "given")).build()
    model = LanguageModel(llm, position, rope).eval()
    written = write_model(model, tmp_path / "out")
    assert (written.sliding_window, getattr(written, "layer_types", None)) == (16, getattr(config, "layer_types", None))
    assert largest_difference(model, tmp_path / "out", 200) <= 1e-5
    content = json.loads((tmp_path / "out" / "config.json").read_text()) | {"use_sliding_window": False}
    without = {name: value for name, value in content.items() if name != "layer_types"} | {"sliding_window": None}
    (tmp_path / "out" / "config.json").write_text(json.dumps(without))
    assert largest_difference(model, tmp_path / "out", 200) > 1e-2


LAYOUTS: dict[str, tuple[type, dict[str, Any]]] = {
    "pairs": (CohereConfig, {"num_key_value_heads": 1}),
    "a part of pairs": (GlmConfig, {"num_key_value_heads": 1, "head_dim": 64, "partial_rotary_factor": 0.5}),
    "complex": (
        Llama4TextConfig,
        {
            "num_key_value_heads": 1, "head_dim": 64, "num_local_experts": 2, "intermediate_size_mlp": 64,
            "attention_chunk_size": 48, "no_rope_layers": [1, 0], "moe_layers": [], "interleave_moe_layer_step": 1,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_layout_of_the_phases_is_verified(layout: str, tmp_path: Path) -> None:
    architecture, fields = LAYOUTS[layout]
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(architecture(**TINY, **fields, pad_token_id=0))
    content = verified_in(tmp_path, llm, Interpolate(scale=2))
    tokens = torch.arange(1, 90)[None]
    expected = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(tokens).logits
    content.pop("rope_parameters")
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path).eval()(tokens).logits, expected)


def verified_in(directory: Path, llm: PreTrainedModel, position: PositionStrategy) -> dict[str, Any]:
    """Written as `lit-pi export` does, and compared in this process; the config as written."""
    llm.set_attn_implementation(ATTENTION)
    model = LanguageModel(llm, position, rope_of(llm.config)).eval()
    write_files(model, None, directory, None, None, "5GB")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification.subprocess, "run", in_this_process)
        assert verify(directory).difference <= 1e-5
    return json.loads((directory / "config.json").read_text())


def in_this_process(words: list, **_: Any) -> subprocess.CompletedProcess:
    stock.main(*map(str, words[-3:]))
    return subprocess.CompletedProcess(words, 0, "", "")


BY_LAYER = ByLayer({"full_attention": YaRN(scale=4), "others": Extrapolate()})


def test_readers_of_either_form_have_positions_by_kind_of_layer(tmp_path: Path) -> None:
    """As transformers 4 has Gemma 3: one base and scaling where attention is full, another base under windows."""
    content = verified_in(tmp_path, windowed("gemma3"), BY_LAYER)
    assert (content["rope_theta"], content["rope_local_base_freq"]) == (1e6, 1e4)
    assert content["rope_scaling"]["type"] == "yarn"
    expected = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    content.pop("rope_parameters")
    (tmp_path / "config.json").write_text(json.dumps(content))
    older = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = torch.arange(1, 201)[None]
    assert torch.equal(older(tokens).logits, expected(tokens).logits)


def test_the_older_form_is_left_out_where_it_cannot_say_it(tmp_path: Path) -> None:
    for number, position in enumerate([Interpolate(scale=4), ByLayer({"others": AdjustedBase(1e5)})]):
        content = verified_in(tmp_path / str(number), windowed("olmo3"), position)
        assert not content.keys() & {"rope_theta", "rope_scaling", "rope_local_base_freq"}
    theta = windowed("olmo3").config.default_theta
    content = verified_in(tmp_path / "yarn", windowed("olmo3"), BY_LAYER)
    assert (content["rope_theta"], content["rope_scaling"]["rope_type"]) == (theta, "yarn")


@pytest.mark.parametrize("field", ["sliding_window", "layer_types"])
def test_a_window_edited_by_hand_is_caught(field: str, tmp_path: Path) -> None:
    content = verified_in(tmp_path, windowed("olmo3", sliding_window=5000), Extrapolate())
    content[field] = {"sliding_window": 4096, "layer_types": ["full_attention"] * 4}[field]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"says {field} "):
        verify(tmp_path)


def test_all_files_are_for_whom_the_umask_says(tmp_path: Path) -> None:
    model = built(FromConfig())
    before = os.umask(0o027)
    try:
        write_model(model, tmp_path, max_shard_size="100KB")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert sum(name.endswith(".safetensors") for name in modes) > 1
    assert set(modes.values()) == {0o640}, modes


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_length", -1, "is -1, and must be a whole number, 1 or more: mend or remove it"),
        ("temperature", "hot", "is 'hot', and must be a number, 0 or more"),
        ("temperature", float("nan"), "is nan, and must be a number, 0 or more"),
        ("eos_token_id", [2, "x"], r"is \[2, 'x'\], and must be the number of a token, 0 or more"),
        ("do_sample", "yes", "is 'yes', and must be true or false: mend"),
        ("num_beams", True, "is True, and must be a whole number, 1 or more"),
    ],
)
def test_settings_of_generation_that_are_none_are_not_copied(name: str, value: Any, said: str, tmp_path: Path) -> None:
    model = built(FromConfig())
    setattr(model.llm.generation_config, name, value)
    with pytest.raises(UserError, match=f"{name} in the generation_config.json of .* {said}"):
        write_model(model, tmp_path)
    assert not list(tmp_path.iterdir())
