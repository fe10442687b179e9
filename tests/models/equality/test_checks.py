"""A model that is not what stock transformers computes is refused, and says by what it differs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    Olmo3Config,
    PreTrainedConfig,
    Qwen3Config,
    SmolLM3Config,
)

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.attention import masks
from lit_pi.models.equality import blame, checks
from lit_pi.models.equality.twin import WINDOW, twin_of
from lit_pi.positions import SelfExtend

LARGE: dict[str, Any] = {
    "vocab_size": 32_000, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32_768,
}  # fmt: skip


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    checks._check_kind.cache_clear()


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**LARGE, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
                                              "original_max_position_embeddings": 8192}),
        MistralConfig(**LARGE, sliding_window=4096),
        Qwen3Config(**LARGE, head_dim=128, use_sliding_window=True, sliding_window=4096, max_window_layers=20),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_a_large_model_is_proven_by_a_small_twin(config: PreTrainedConfig) -> None:
    found = checks.check_kind(config)
    assert found.holds and found.difference < 2e-5
    twin = twin_of(config)
    assert twin.num_parameters() < 10_000_000
    assert twin.config.head_dim == config.head_dim
    assert twin.config.rope_parameters == config.rope_parameters
    assert getattr(twin.config, "sliding_window", None) in (None, WINDOW)
    kinds = getattr(config, "layer_types", None)
    assert kinds is None or set(twin.config.layer_types) == set(kinds)


def test_a_window_that_is_dropped_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "window_of", lambda function: 10**6)
    with pytest.raises(UserError, match=r"a mistral model .* by .* nats a token; to blame is `sliding_w.* \(4096\)"):
        checks.check_kind(MistralConfig(**LARGE, sliding_window=4096))


def test_a_field_that_lit_pi_cannot_honour_is_named() -> None:
    """Temperatures of Llama 4 count places in a row, whatever documents are in it."""
    config = Llama4TextConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, intermediate_size_mlp=64, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_local_experts=2, floor_scale=16,
        attention_chunk_size=32, no_rope_layers=[1, 1, 1, 0],
    )  # fmt: skip
    with pytest.raises(UserError, match=r"llama4_text model .* to blame is `attn_temperature_tuning`"):
        checks.check_kind(config)


def test_looking_for_the_field_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = iter(range(0, 1000, 4)), []
    monkeypatch.setattr(blame.time, "monotonic", lambda: next(now))
    config = MistralConfig(**LARGE, sliding_window=4096)
    assert blame.fields_to_blame(config, lambda changed: asked.append(changed) or False).startswith("one of the fields")
    assert len(asked) == 2  # of 4 seconds each, after which the third would begin too late


def test_positions_of_each_kind_are_blamed_at_once() -> None:
    parameters = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 16}
    config = Olmo3Config(**LARGE, rope_parameters={"full_attention": parameters, "sliding_attention": {**parameters}})
    asked = []

    def is_equal(changed: PreTrainedConfig) -> bool:
        asked.append(changed)
        return {each["rope_type"] for each in changed.rope_parameters.values()} == {"default"}

    assert blame.fields_to_blame(config, is_equal).startswith("`rope_parameters`")
    assert len(asked) == 1


def test_a_rule_does_not_rotate_layers_that_have_no_positions() -> None:
    config = SmolLM3Config(**LARGE, no_rope_layers=[1, 1, 1, 0] * 6, pad_token_id=0)
    assert checks.check_kind(config).unrotated == (3,)
    with pytest.raises(UserError, match=r"SelfExtend has an attention rule, .* layer 3 of this smollm3 model has n"):
        checks.check_kind(config, SelfExtend(4, 16))


def halved(layer: Any) -> None:
    layer.mlp.forward = lambda states: type(layer.mlp).forward(layer.mlp, states) / 2


def shifted(layer: Any) -> None:
    layer.self_attn.o_proj.register_forward_hook(lambda module, given, output: output * 1.01)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("tamper", "stops"), [(halved, True), (shifted, False)])
def test_what_is_put_over_a_layer_is_noticed(
    tamper: Callable[[Any], None], stops: bool, tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What transformers' own run has too, as a hook on a module, is part of the model."""
    made = LanguageModel.__init__

    def tampered(self: LanguageModel, *arguments: Any) -> None:
        made(self, *arguments)
        tamper(self.decoder_layers[-1])

    monkeypatch.setattr("lit_pi.module.LanguageModel.__init__", tampered)
    monkeypatch.setattr("lit_pi.module.check_kind", lambda *arguments: checks.Equality([1], 0.0, 1e-4, "float32"))
    words = ["test", *tiny, f"--trainer.default_root_dir={tmp_path}"]
    if stops:
        with pytest.raises(UserError, match="computes otherwise than stock transformers from the same weights"):
            LitPiCLI(words)
    else:
        LitPiCLI(words)


@pytest.mark.filterwarnings("ignore")
def test_results_say_how_far_the_model_is_from_stock(tmp_path: Path, tiny: list[str]) -> None:
    LitPiCLI(["test", *tiny, f"--trainer.default_root_dir={tmp_path}"])
    protocol = json.loads((tmp_path / "results.json").read_text())["records"][0]["protocol"]
    for found in (protocol["equal_to_stock"]["twin"], protocol["equal_to_stock"]["weights"]):
        assert 0 <= found["difference"] <= found["tolerance"] == 1e-4 and found["dtype"] == "float32"
