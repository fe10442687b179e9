"""The adapted model against stock transformers."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from lit_pi.errors import UserError
from lit_pi.models import FromScratch, LanguageModel, Pretrained
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.sources.provenance import rope_of
from lit_pi.positions import Extrapolate, Interpolate, PositionStrategy, Rope

TINY = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def adapted(config: PreTrainedConfig, position: PositionStrategy) -> LanguageModel:
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    return LanguageModel(llm.eval(), position, rope_of(config))


def log_likelihoods(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


@pytest.mark.parametrize("architecture", [LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config])
@pytest.mark.parametrize("position", [Extrapolate(), Interpolate(scale=2)])
def test_scores_equal_stock_transformers(architecture: type, position: PositionStrategy) -> None:
    config = architecture(**TINY)
    model = adapted(config, position)
    tokens = torch.randint(0, 97, (2, 129))
    torch.manual_seed(0)
    stock_config = architecture(**TINY, rope_parameters=position.rope_parameters(model.rope))
    stock = AutoModelForCausalLM.from_config(stock_config).eval()
    stock.load_state_dict(model.llm.state_dict())
    with torch.no_grad():
        expected = -log_likelihoods(stock(tokens[:, :-1]).logits, tokens[:, 1:])
        torch.testing.assert_close(model(tokens[:, :-1], tokens[:, 1:]), expected, rtol=0, atol=2e-6)


def test_only_the_scored_positions_cost_logits_and_their_values_are_the_same() -> None:
    model = adapted(LlamaConfig(**TINY), Extrapolate())
    tokens = torch.randint(0, 97, (2, 65))
    scored = torch.tensor([3, 4, 40, 63])
    with torch.no_grad():
        everything = model(tokens[:, :-1], tokens[:, 1:])
        some = model(tokens[:, :-1], tokens[:, 1:][:, scored], scored=scored)
    torch.testing.assert_close(some, everything[:, scored], rtol=0, atol=1e-6)


def test_documents_in_one_row_do_not_see_each_other_and_the_rest_is_as_alone() -> None:
    model = adapted(LlamaConfig(**TINY), Extrapolate())
    first, second = torch.randint(0, 97, (1, 20)), torch.randint(0, 97, (1, 30))
    row, targets = torch.cat((first, second), 1), torch.randint(0, 97, (1, 50))
    with torch.no_grad():
        packed = model(
            row,
            targets,
            position_ids=torch.cat((torch.arange(20), torch.arange(30)))[None],
            document_ids=torch.tensor([0] * 20 + [1] * 30)[None],
        )
        alone = torch.cat((model(first, targets[:, :20]), model(second, targets[:, 20:])), 1)
    torch.testing.assert_close(packed, alone, rtol=0, atol=2e-6)


def test_skipped_positions_do_not_cut_a_document_apart() -> None:
    """Transformers would read two documents out of the jump in `position_ids`."""
    model = adapted(LlamaConfig(**TINY), Extrapolate())
    row, targets = torch.randint(1, 97, (1, 40)), torch.randint(0, 97, (1, 40))
    skip = torch.cat((torch.arange(20), torch.arange(60, 80)))[None]
    changed = row.clone()
    changed[0, 3] = 0
    with torch.no_grad():
        before, after = (model(ids, targets, position_ids=skip) for ids in (row, changed))
    assert (before[:, 20:] != after[:, 20:]).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_angles_stay_float32_whatever_the_weights_are(dtype: torch.dtype) -> None:
    model = adapted(LlamaConfig(**TINY), Interpolate(scale=16)).to(dtype)
    positions = torch.arange(0, 32_768, 97)[None]
    exact = positions[..., None].double() / 16 * 10_000.0 ** (-torch.arange(0, 8, 2).double() / 8)
    hidden = torch.empty(1, positions.shape[1], 1)
    cos, sin = model.rotary(hidden, positions)
    torch.testing.assert_close(cos[..., :4].double(), exact.cos(), rtol=0, atol=1e-3)
    torch.testing.assert_close(sin[..., 4:].double(), exact.sin(), rtol=0, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.rotary(hidden, positions)[0], cos)
    assert not list(model.rotary.buffers())


def test_meta_initialisation_loses_nothing_of_the_positions() -> None:
    with torch.device("meta"):
        model = adapted(LlamaConfig(**TINY), Interpolate(scale=2))
    model = model.to_empty(device="cpu")
    real = adapted(LlamaConfig(**TINY), Interpolate(scale=2))
    positions = torch.arange(128)[None]
    hidden = torch.empty(1, 128, 1)
    assert torch.equal(model.rotary(hidden, positions)[0], real.rotary(hidden, positions)[0])


def test_pretrained_reads_a_hugging_face_directory(tmp_path) -> None:
    config = LlamaConfig(**TINY)
    stock = AutoModelForCausalLM.from_config(config)
    stock.save_pretrained(tmp_path)
    llm, rope = Pretrained(str(tmp_path)).build()
    assert rope == Rope(8, 10_000.0, 64)
    for name, tensor in stock.state_dict().items():
        assert torch.equal(llm.state_dict()[name], tensor), name


@pytest.mark.parametrize("path", ["/nowhere/model", "runs/x/checkpoints/last.ckpt", "nobody/no-such-model"])
def test_a_missing_model_is_named(path: str) -> None:
    with pytest.raises(UserError, match=path):
        Pretrained(path).build()


def test_from_scratch_refuses_what_is_no_field() -> None:
    with pytest.raises(UserError, match="hidden_sise"):
        FromScratch(config={"hidden_sise": 32})
    with pytest.raises(UserError, match="size"):
        FromScratch()
