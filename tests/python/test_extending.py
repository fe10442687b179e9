"""An extended model in memory: it computes what lit_pi does, generates rightly, and is saved as what it is."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from strategies import STRATEGIES
from transformers import AutoModelForCausalLM, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.modeling_utils import PreTrainedModel

import lit_pi
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.positions import (
    DynamicNTK,
    Extrapolate,
    FromConfig,
    Interpolate,
    NTKAware,
    PositionStrategy,
    Rope,
    SelfExtend,
    YaRN,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ROPE = Rope(64, 10_000.0, 64)
TOKENS = torch.randint(1, 250, (2, 300), generator=torch.Generator().manual_seed(1))
REFUSED = {"cope": "a frequency of zero", "self-extend": "an attention rule"}
Build = Callable[[], LlamaForCausalLM]


@torch.no_grad()
def expected_logits(
    llm: PreTrainedModel, position: PositionStrategy, tokens: torch.Tensor, length: int
) -> torch.Tensor:
    """Of the model as lit_pi's own loops run it, in one pass, at the angles of a context length."""
    model = LanguageModel(llm, position, ROPE).eval()
    model.rotary.context_length = length
    return model.llm(tokens, use_cache=False).logits


@torch.no_grad()
@pytest.mark.parametrize("name", STRATEGIES)
def test_it_computes_what_the_strategy_says(name: str, build: Build) -> None:
    model = lit_pi.extend(build(), STRATEGIES[name])
    for length in (40, 300):
        found = model(TOKENS[:, :length]).logits
        torch.testing.assert_close(found, expected_logits(build(), STRATEGIES[name], TOKENS[:, :length], length))
    if name not in ("extrapolate", "prope"):
        assert (found - build()(TOKENS).logits).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "cache"), [*((name, None) for name in STRATEGIES), ("yarn", "static"), ("self-extend", "static")]
)
def test_generating_with_a_cache_equals_a_full_pass(name: str, cache: str | None, build: Build) -> None:
    model = lit_pi.extend(build(), STRATEGIES[name])
    prompt, new = TOKENS[:, :60], 12
    options = {} if cache is None else {"cache_implementation": cache, "disable_compile": True}
    done = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, min_new_tokens=new, do_sample=False,
        output_logits=True, return_dict_in_generate=True, pad_token_id=0, **options,
    )  # fmt: skip
    found = torch.stack(done.logits, dim=1)
    whole = expected_logits(build(), STRATEGIES[name], done.sequences[:, :-1], 60 + new)
    torch.testing.assert_close(found, whole[:, 59:], rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["interpolate", "self-extend", "dynamic-ntk"])
def test_a_prompt_with_padding_on_the_left_is_continued_as_alone(name: str, build: Build) -> None:
    model = lit_pi.extend(build(), STRATEGIES[name])
    options = {"min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    padding = torch.zeros(1, 7, dtype=torch.long)
    short = TOKENS[:1, :50]
    batch = torch.cat((torch.cat((padding, short), dim=1), TOKENS[1:, :57]))
    mask = torch.ones_like(batch)
    mask[0, :7] = 0
    # Angles that depend on the length are those of the longest text for all.
    alone = model.generate(short, attention_mask=torch.ones_like(short), max_length=65, **options)
    together = model.generate(batch, attention_mask=mask, max_new_tokens=8, **options)
    assert torch.equal(together[0, 7:], alone[0, :58])


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - set(REFUSED)))
def test_stock_transformers_loads_what_it_saves(name: str, build: Build, tmp_path: Path) -> None:
    model = lit_pi.extend(build(), STRATEGIES[name])
    model.save_pretrained(tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert not hasattr(stock.model.rotary_emb, "position")
    for length in (20, 64, 300):
        found = stock(TOKENS[:, :length], use_cache=False).logits
        torch.testing.assert_close(found, model(TOKENS[:, :length]).logits, rtol=0, atol=0)
    assert stock.config.max_position_embeddings == model.config.max_position_embeddings


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_config_cannot_say_is_not_saved(name: str, build: Build, tmp_path: Path) -> None:
    model = lit_pi.extend(build(), STRATEGIES[name])
    with pytest.raises(UserError, match=rf"cannot be saved for transformers: .* which has {REFUSED[name]}"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    lit_pi.extend(model, YaRN(scale=4)).save_pretrained(tmp_path)
    assert (tmp_path / "config.json").is_file()


def test_a_config_that_no_longer_says_it_is_not_saved(build: Build, tmp_path: Path) -> None:
    model = lit_pi.extend(build(), DynamicNTK(scale=4))
    model.config.max_position_embeddings = 256  # transformers would count from there
    with pytest.raises(UserError, match=r"rotates by DynamicNTK, and its config was changed since"):
        model.save_pretrained(tmp_path)
    model = lit_pi.extend(build(), Interpolate(scale=4))
    model.config.rope_parameters = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(UserError, match=r"call lit_pi\.extend again"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_extending_again_starts_from_pre_training(build: Build, tmp_path: Path) -> None:
    once = lit_pi.extend(build(), NTKAware(scale=2))
    for position in (SelfExtend(4, 16), DynamicNTK(scale=4)):
        lit_pi.extend(once, position)
    model = lit_pi.extend(lit_pi.extend(build(), Interpolate(scale=8)), YaRN(scale=4))
    model.save_pretrained(tmp_path)
    stored = lit_pi.extend(AutoModelForCausalLM.from_pretrained(tmp_path).eval(), YaRN(target_context=256))
    fresh = lit_pi.extend(build(), YaRN(scale=4))
    for again in (lit_pi.extend(once, YaRN(scale=4)), model, stored):
        assert again.config._attn_implementation == "sdpa"
        assert again.config.max_position_embeddings == 256
        assert torch.equal(again(TOKENS).logits, fresh(TOKENS).logits)
        assert "generate" not in vars(again)


@torch.no_grad()
@pytest.mark.parametrize("position", [Interpolate(scale=4), SelfExtend(4, 16), DynamicNTK(scale=4)])
def test_in_bfloat16_angles_stay_float32(position: PositionStrategy, build: Build) -> None:
    model = lit_pi.extend(build().to(torch.bfloat16), position)
    other = lit_pi.extend(build(), position).to(torch.bfloat16)
    assert torch.equal(model(TOKENS).logits, other(TOKENS).logits)
    exact = lit_pi.extend(model.float(), position)(TOKENS).logits
    # bfloat16 angles would be whole radians off.
    difference = (other(TOKENS).logits.float() - exact).abs().mean() / exact.std()
    assert difference < 0.03


def test_it_trains_and_is_copied_as_before(model: LlamaForCausalLM) -> None:
    lit_pi.extend(model, DynamicNTK(scale=4))
    copied = copy.deepcopy(model)
    lit_pi.extend(copied, Extrapolate())
    assert type(model.model.rotary_emb.position) is DynamicNTK
    renamed = hasattr(model, "activation_checkpointing_enable")  # in transformers 5.23
    model.activation_checkpointing_enable() if renamed else model.gradient_checkpointing_enable()
    model.train()(TOKENS, labels=TOKENS).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert sum(1 for name in model.state_dict() if "rotary" in name) == 0


def test_what_is_no_such_model_is_refused(model: LlamaForCausalLM) -> None:
    with pytest.raises(UserError, match="the model is a Linear: give a causal language model"):
        lit_pi.extend(torch.nn.Linear(2, 2), Interpolate(scale=4))  # type: ignore[type-var]
    with pytest.raises(UserError, match="the model is a LlamaModel"):
        lit_pi.extend(model.model, Interpolate(scale=4))
    lit_pi.extend(model, Interpolate(scale=4))
    with pytest.raises(UserError, match="was extended from 64 tokens before, and original_context is 128"):
        lit_pi.extend(model, Interpolate(scale=4), original_context=128)


@torch.no_grad()
def test_a_window_of_the_model_s_own_stays(tmp_path: Path) -> None:
    config = MistralConfig(
        vocab_size=97, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, sliding_window=16, initializer_range=0.2,
    )  # fmt: skip
    model = lit_pi.extend(MistralForCausalLM(config).eval(), FromConfig(), target_context=128)
    tokens = TOKENS[:, :120] % 97
    model.save_pretrained(tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert stock.config.max_position_embeddings == 128
    assert torch.equal(stock(tokens).logits, model(tokens).logits)
