"""Models out of GGUF files are the models that were written there, or refused in a sentence."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf_models import CONFIG, write_gguf
from stored_models import POINTER
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import lit_pi
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel, Pretrained
from lit_pi.models.sources.llama_cpp.loading import gguf_config
from lit_pi.positions import FromConfig

TOKENS = torch.randint(2, 280, (1, 100), generator=torch.Generator().manual_seed(1))
F32, F16, Q4_1, Q8_0 = (gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "Q4_1", "Q8_0"))

pytestmark = pytest.mark.filterwarnings("ignore")


def made(**fields: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig.from_dict(CONFIG.to_dict() | fields)).eval()


@pytest.fixture(scope="module")
def llm() -> LlamaForCausalLM:
    return made()


@torch.no_grad()
@pytest.mark.parametrize("quantised", [F32, F16, Q8_0, Q4_1], ids=lambda kind: kind.name)
def test_weights_are_those_that_were_written(
    quantised: gguf.GGMLQuantizationType, llm: LlamaForCausalLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_gguf(tmp_path / "model.gguf", llm, quantised=quantised)
    source = Pretrained(str(path))
    with caplog.at_level(logging.INFO):
        found, rope = source.build()
    assert (rope.head_dim, rope.rope_theta, rope.original_context) == (16, 50_000.0, 128)
    assert (f"{quantised.name} weights of {path}, dequantised to float32" in caplog.text) == (quantised in (Q8_0, Q4_1))
    for name, weight in llm.state_dict().items():
        if quantised in (F32, F16) or weight.ndim == 1:
            expected = weight if quantised == F32 or weight.ndim == 1 else weight.half().float()
        elif "q_proj" in name or "k_proj" in name:
            continue  # in blocks of another order: seen in the logits
        else:
            expected = torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), quantised), quantised))
        assert torch.equal(found.get_parameter(name), expected), name
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    logits = found.set_attn_implementation("sdpa") or found(TOKENS).logits
    torch.testing.assert_close(logits, stock(TOKENS).logits, rtol=0, atol=1e-5)
    if quantised == F32:
        torch.testing.assert_close(logits, llm(TOKENS).logits, rtol=0, atol=1e-5)
    assert source.describe()["weights"] == quantised.name
    assert source.build(keep_dtype=True)[0].dtype == (torch.float16 if quantised == F16 else torch.float32)


ANY = np.linspace(1, 5, 8).astype(np.float32)
LLAMA_3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
"""Within the model's 128."""
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32}
LONG = {"rope_factors_long.weight": ANY, "rope_factors_short.weight": ANY / 2}


def llama_3() -> np.ndarray:
    """What llama.cpp's converter writes for Llama 3's rotation: plain frequencies over scaled ones."""
    config = LlamaConfig.from_dict(CONFIG.to_dict() | {"rope_parameters": {"rope_type": "llama3", **BASE, **LLAMA_3}})
    return (50_000 ** -(np.arange(8) / 8) / ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()).astype(np.float32)


BASE = {"rope_theta": 50_000.0}
LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 32, "attention_factor": 1.25}
ROTATIONS: dict[str, tuple[dict[str, Any], Callable[[], dict], dict[str, Any]]] = {
    "another base": ({"rope.freq_base": 1e6}, dict, {"rope_type": "default", "rope_theta": 1e6}),
    "no base": ({"rope.freq_base": None}, dict, {"rope_type": "default", "rope_theta": 1e4}),
    "linear": ({**YARN, "rope.scaling.type": "linear"}, dict, {"rope_type": "linear", "factor": 4.0}),
    "yarn": (YARN, dict, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    "yarn with its factors": (
        YARN | {"rope.scaling.attn_factor": 0.5, "rope.scaling.yarn_beta_fast": 16.0}, dict,
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0,
         "attention_factor": 0.5 * (1 + 0.1 * math.log(4))},
    ),
    "llama3": ({}, lambda: {"rope_freqs.weight": llama_3()}, {"rope_type": "llama3", **LLAMA_3}),
    "any divisors": (
        {}, lambda: {"rope_freqs.weight": ANY},
        {**LONGROPE, "long_factor": ANY.tolist(), "short_factor": ANY.tolist(), "attention_factor": 1.0},
    ),
    "longrope": (
        {"rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.25}, lambda: LONG,
        {**LONGROPE, "long_factor": ANY.tolist(), "short_factor": (ANY / 2).tolist()},
    ),
}  # fmt: skip
"""Keys and tensors of a file, and what transformers calls the same rotation."""


@torch.no_grad()
@pytest.mark.parametrize("case", ROTATIONS)
def test_it_rotates_as_the_file_says(case: str, llm: LlamaForCausalLM, tmp_path: Path) -> None:
    said, tensors, rope_parameters = ROTATIONS[case]
    stock = made(rope_parameters=BASE | rope_parameters)
    stock.load_state_dict(llm.state_dict())
    found, rope = Pretrained(str(write_gguf(tmp_path / "model.gguf", llm, said=said, tensors=tensors()))).build()
    model = LanguageModel(found, FromConfig(), rope).eval()
    for length in (20, 100):
        expected = cross_entropy(stock(TOKENS[:, :length]).logits[0, :-1], TOKENS[0, 1:length], reduction="none")
        nll = model(TOKENS[:, : length - 1], TOKENS[:, 1:length])[0]
        assert (nll - expected).abs().max() < 1e-5
    if "original_max_position_embeddings" in rope_parameters and case != "any divisors":
        assert rope.original_context == rope_parameters["original_max_position_embeddings"]


HEAD_256 = {"attention.key_length": 256, "attention.value_length": 256, "rope.dimension_count": 256}

REFUSED = {
    "of key-value heads": ({"said": {"attention.head_count_kv": None}}, r"does not say `llama.attention.head_count_kv"),
    "a scale": ({"said": {"attention.scale": 0.5}}, r"says `llama.attention.scale` 0.5, which transformers does not"),
    "experts": ({"said": {"expert_count": 8}}, r"says `llama.expert_count` 8"),
    "a kind of scaling": ({"said": {**YARN, "rope.scaling.type": "su"}}, r"scales its positions by"),
    "half a head": ({"said": {"rope.dimension_count": 8, "attention.key_length": 16}}, r"turns 8 of the 16 numbers"),
    "a bias": ({"tensors": {"blk.1.attn_q.bias": np.ones(64, np.float32)}}, r"has blk.1.attn_q.bias, which"),
    "a weight less": ({"tensors": {"blk.1.ffn_up.weight": None}}, r"lacks model.layers.1.mlp.up_proj.weight"),
    "an architecture": ({"architecture": "rwkv6"}, r"cannot read the model of architecture rwkv6 in"),
    "another shape": (
        {"said": {"feed_forward_length": 64}},
        r"has a model.layers.0.mlp.down_proj.weight of \[64, 96\] numbers, and by .* sizes that has \[64, 64\]",
    ),
    "a part": ({"said": {}}, r"is a part of a model: join all parts"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_left_out_is_refused(
    case: str, llm: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, message = REFUSED[case]
    if case == "a part":
        begin = gguf.GGUFWriter.add_file_type
        monkeypatch.setattr(
            gguf.GGUFWriter, "add_file_type", lambda self, kind: begin(self, kind) or self.add_uint16("split.count", 3)
        )
    path = write_gguf(tmp_path / "model.gguf", llm, **written)
    with pytest.raises(UserError, match=message) as refusal:
        Pretrained(str(path)).build()
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_windows_and_caps_stay(llm: LlamaForCausalLM, tmp_path: Path) -> None:
    path, window = tmp_path / "model.gguf", {"attention.sliding_window": 16}
    for architecture, said, expected in (
        ("phi3", window | {"rope.dimension_count": 8}, {"sliding_window": 16, "partial_rotary_factor": 0.5}),
        ("phi3", {}, {"sliding_window": None, "partial_rotary_factor": 1.0}),
        ("gemma2", {**HEAD_256, **window, "final_logit_softcapping": 20.0},
         {"sliding_window": 16, "final_logit_softcapping": 20.0}),
    ):  # fmt: skip
        config = gguf_config(write_gguf(path, llm, said=said, architecture=architecture))
        assert expected.items() <= (vars(config) | config.rope_parameters).items()
    with pytest.raises(UserError, match=r"says `qwen2.attention.sliding_window` 16, which transformers does not read"):
        gguf_config(write_gguf(path, llm, said=window, architecture="qwen2"))


def test_damaged_files_are_called_that(
    llm: LlamaForCausalLM, words_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    whole = write_gguf(path, llm, words_tokenizer).read_bytes()
    for length in (0, 3, 20, 300, 5000, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        for load in (Pretrained(str(path)).build, lambda: load_tokenizer(str(path))):
            with pytest.raises(UserError, match=r"is no whole GGUF file|is cut short") as told:
                load()
            assert "unpack" not in str(told.value) and "codec" not in str(told.value)
    path.write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"no whole GGUF file \(it ends before all that its header announces\): bring"):
        Pretrained(str(path)).build()
    path.write_bytes(POINTER)
    for load in (Pretrained(str(path)).build, lambda: load_tokenizer(str(path))):
        with pytest.raises(UserError, match=r"model.gguf is a Git LFS pointer .* `git lfs pull`"):
            load()
    path.write_bytes(b"x" * 5000)
    with pytest.raises(UserError, match="is no whole GGUF file"):
        Pretrained(str(path)).skeleton()
    with pytest.raises(UserError, match="there is no GGUF file"):
        Pretrained(str(tmp_path / "other.gguf")).build()


def test_the_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").touch()
    monkeypatch.setattr("lit_pi.gguf_file.is_gguf_available", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'lit_pi\[gguf\]'"):
        Pretrained(str(tmp_path / "model.gguf")).build()


def test_sharding_builds_it_at_once(llm: LlamaForCausalLM, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", llm)
    found, rope, fill = Pretrained(str(path)).lazily(torch.device("cpu"))
    assert rope.original_context == 128
    for name, weight in found.apply(fill).named_parameters():
        assert torch.equal(weight, llm.get_parameter(name)), name


@torch.no_grad()
def test_python_loads_measures_extends_and_saves_it(
    llm: LlamaForCausalLM, words_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "model.gguf", llm, words_tokenizer, Q8_0)
    model, tokenizer = lit_pi.load(path)
    text = "it was the best of times <s> it was the worst of times é " * 6
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert ids == words_tokenizer(text, add_special_tokens=False, split_special_tokens=True, truncation=False).input_ids
    assert tokenizer.name_or_path == str(path) and (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert len(tokenizer) == len(words_tokenizer)
    result = lit_pi.perplexity_curve(model, tokenizer, text, [len(ids) + 1], 16)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    expected = cross_entropy(stock(torch.tensor([[0, *ids[:-1]]])).logits[0], torch.tensor(ids))
    assert math.log(result.perplexity[len(ids) + 1]) == pytest.approx(expected.item(), abs=1e-6)
    assert result.record["bits_per_byte_left_out"] is None  # the bytes of its tokens are those of the text
    lit_pi.extend(model, lit_pi.Interpolate(scale=2))
    model.save_pretrained(tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(again(TOKENS).logits, model(TOKENS).logits)
    assert again.config.max_position_embeddings == 256 and not hasattr(again.config, "quantization_config")
