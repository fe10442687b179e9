"""Weights that are not those of the config are refused by name, at once and module by module; others are read."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stored_models import WAYS, WEIGHT, Weights, at_once, by_module, rewritten, save_checkpoint
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from lit_pi.errors import UserError
from lit_pi.models import LoRA, Pretrained

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Load = Callable[[Path], PreTrainedModel]

both_ways = pytest.mark.parametrize("load", WAYS)


def each_name(change: Callable[[str], str]) -> Callable[[Weights], Weights]:
    return lambda weights: {change(name): weight for name, weight in weights.items()}


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: weight for name, weight in weights.items() if part not in name}


def one(change: Callable[[Tensor], Tensor]) -> Callable[[Weights], Weights]:
    return lambda weights: weights | {WEIGHT: change(weights[WEIGHT])}


def same(found: PreTrainedModel, expected: Path) -> None:
    stock = AutoModelForCausalLM.from_pretrained(expected).state_dict()
    assert found.state_dict().keys() == stock.keys()
    for name, weight in found.state_dict().items():
        assert torch.equal(weight, stock[name].float()), name


@both_ways
@pytest.mark.parametrize("model", ["plain", "shards", "tied", "experts"])
def test_what_is_right_is_read_as_stock_transformers_reads_it(load: Load, model: str, models: Path) -> None:
    same(load(models / model), models / model)


READ: dict[str, tuple[str, Callable[[Weights], Weights]]] = {
    "bfloat16": ("plain", lambda weights: {name: weight.bfloat16() for name, weight in weights.items()}),
    "tied weights twice": ("tied", lambda weights: weights | {HEAD: weights[EMBEDDING].clone()}),
    "the other of tied weights": ("tied", each_name(lambda name: HEAD if name == EMBEDDING else name)),
    "names of the model without its head": ("tied", each_name(lambda name: name.removeprefix("model."))),
    "buffers of old checkpoints": (
        "plain",
        lambda weights: weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4, dtype=torch.int8)},
    ),
}


@both_ways
@pytest.mark.parametrize("case", READ)
def test_what_transformers_reads_rightly_is_read(load: Load, case: str, models: Path, tmp_path: Path) -> None:
    model, change = READ[case]
    same(load(rewritten(models / model, tmp_path / "m", change)), tmp_path / "m")


WRAPPED: dict[str, tuple[str, Callable[[str], str], str]] = {
    "compiled": ("plain", lambda name: f"_orig_mod.{name}", r"without _orig_mod\.,"),
    "nested": (
        "tied",
        lambda name: f"module._orig_mod.base_model.model.{name}",
        r"_orig_mod\., base_model\.model\., mo",
    ),
    "layers": ("plain", lambda name: name.replace("self_attn", "_orig_mod.self_attn"), r"without _orig_mod\.,"),
    "converted": ("experts", lambda name: f"_orig_mod.{name}", r"without _orig_mod\.,"),
}


@both_ways
@pytest.mark.parametrize("case", WRAPPED)
def test_names_of_wrapped_models_are_recognised(
    load: Load, case: str, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, rename, said = WRAPPED[case]
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        llm = load(rewritten(models / model, tmp_path / "m", each_name(rename)))
    same(llm, models / model)
    (record,) = caplog.records
    assert re.search(said, record.getMessage())
    llm.save_pretrained(tmp_path / "saved")
    assert load_file(tmp_path / "saved" / "model.safetensors").keys() == (
        load_file(models / model / "model.safetensors").keys()
    )


REFUSED: dict[str, tuple[str, Callable[[Weights], Weights], str]] = {
    "the output layer is missing": ("plain", without(HEAD), rf"\(missing: {HEAD}\)"),
    "tied weights are missing": ("tied", without(EMBEDDING), rf"missing: {HEAD}, {EMBEDDING}"),
    "a layer is missing": ("plain", without("layers.0."), r"missing: model.layers.0.input_layernorm.weight, .* 6 more"),
    "a converted layer is missing": ("experts", without("layers.0."), r"missing: .*layers.0.mlp.experts.down_proj, "),
    "an expert is missing": ("experts", without("layers.1.block_sparse_moe.experts.2."), r"3 x 16 x 24 instead of 4 x"),
    "a wrapped one is missing": (
        "plain",
        lambda weights: each_name(lambda name: f"_orig_mod.{name}")(without(HEAD)(weights)),
        rf"\(missing: {HEAD}\)",
    ),
    "one is renamed": (
        "plain",
        each_name(lambda name: name.replace("1.mlp.up", "1.mlp.op")),
        rf"missing: {WEIGHT}, left over: model.layers.1.mlp.op_proj.weight",
    ),
    "an adapter is left over": (
        "plain",
        lambda weights: weights | {"model.norm.lora_A.default.weight": torch.ones(2)},
        r"left over: model.norm.lora_A",
    ),
    "one is there twice": (
        "plain",
        lambda weights: weights | {f"_orig_mod.{WEIGHT}": weights[WEIGHT].clone()},
        rf"twice, as _orig_mod.{WEIGHT} and as {WEIGHT}",
    ),
    "one is there without its prefix": (
        "plain",
        lambda weights: weights | {WEIGHT.removeprefix("model."): weights[WEIGHT] + 1},
        r"left over: layers.1.mlp.up_proj.weight",
    ),
    "tied weights differ": (
        "tied",
        lambda weights: weights | {HEAD: weights[EMBEDDING] + 1},
        rf"{EMBEDDING} and {HEAD}, which differ",
    ),
    "one is transposed": (
        "plain",
        one(lambda weight: weight.T.contiguous()),
        rf"{WEIGHT} is 16 x 24 instead of 24 x 16",
    ),
    "one would be broadcast": ("plain", one(lambda weight: weight[:1].clone()), rf"{WEIGHT} is 1 x 16 instead of"),
    "one is of integers": ("plain", one(lambda weight: weight.to(torch.int8)), rf"{WEIGHT} \(int8\)"),
    "one is of eight bits": (
        "plain",
        one(lambda weight: weight.to(torch.float8_e4m3fn)),
        rf"{WEIGHT} \(float8_e4m3fn\)",
    ),
    "one is complex": ("plain", one(lambda weight: weight.to(torch.complex64)), rf"{WEIGHT} as C64"),
    "one is NaN in a place": (
        "plain",
        one(lambda weight: weight.index_fill(0, torch.tensor(3), torch.nan)),
        rf"not finite.*float32: {WEIGHT};",
    ),
    "one is infinite in bfloat16": ("plain", one(lambda weight: (weight / 0).bfloat16()), rf"not finite.*: {WEIGHT};"),
}


@both_ways
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(load: Load, case: str, models: Path, tmp_path: Path) -> None:
    model, change, said = REFUSED[case]
    place = rewritten(models / model, tmp_path / "m", change)
    with pytest.raises(UserError, match=said) as refusal:
        load(place)
    assert str(place) in str(refusal.value)


@both_ways
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_hidden_layers": 1}, "left over: model.layers.1.input_layernorm.weight"),
        ({"num_hidden_layers": 3}, "missing: model.layers.2.input_layernorm.weight"),
        ({"vocab_size": 10**12}, f"{HEAD} is 32 x 16 instead of 1000000000000 x 16"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantised \(gptq\)"),
        ({"quantization_config": {"load_in_8bit": True}}, r"quantised \(bitsandbytes\)"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}, "code of its own"),
        ({"model_type": "nothing"}, "does not recognize this architecture"),
        ({"hidden_act": "nothing"}, "KeyError: 'nothing'"),
        ({"num_attention_heads": 0}, "nothing that transformers can read is in this directory"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_configs_of_another_model_are_refused(
    load: Load, fields: dict[str, object], said: str, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        load(rewritten(models / "plain", tmp_path / "m", **fields))


IN_CHECKPOINTS: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "missing": (without(WEIGHT), rf"missing: {WEIGHT}\)"),
    "left over": (lambda weights: weights | {"model.llm.more": torch.ones(2)}, r"left over: more\)"),
    "beside the model": (lambda weights: weights | {WEIGHT: torch.zeros(24, 16)}, rf"left over: {WEIGHT}\)"),
    "under another name": (
        each_name(lambda name: name.replace("llm.model.", "llm.")),
        f"missing: {EMBEDDING}, .* more",
    ),
    "of another shape": (
        lambda weights: weights | {f"model.llm.{WEIGHT}": torch.ones(1, 16)},
        rf"{WEIGHT} is 1 x 16 instead of 24 x 16",
    ),
    "not finite": (lambda weights: weights | {f"model.llm.{WEIGHT}": torch.full((24, 16), torch.inf)}, rf": {WEIGHT};"),
}


@both_ways
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("case", IN_CHECKPOINTS)
def test_so_it_is_with_checkpoints(load: Load, sharded: bool, case: str, tmp_path: Path) -> None:
    change, said = IN_CHECKPOINTS[case]
    place = save_checkpoint(tmp_path / "model.ckpt", change, sharded)
    with pytest.raises(UserError, match=said) as refusal:
        load(place)
    assert str(place) in str(refusal.value)


@both_ways
def test_checkpoints_of_compiled_models_are_read(load: Load, tmp_path: Path) -> None:
    expected = load(save_checkpoint(tmp_path / "plain.ckpt")).state_dict()
    compiled = each_name(lambda name: name.replace("layers.", "_orig_mod.layers."))
    found = load(save_checkpoint(tmp_path / "compiled.ckpt", compiled)).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in found.items())


def test_numbers_too_large_for_float16_are_not_finite_in_it(models: Path, tmp_path: Path) -> None:
    place = rewritten(models / "plain", tmp_path / "m", one(lambda weight: weight + 1e6))
    torch.set_default_dtype(torch.float16)
    try:
        for load in (at_once, by_module):
            with pytest.raises(UserError, match=rf"infinity as float16: {WEIGHT}"):
                load(place)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_spoilt_adapter_names_what_does_not_fit(models: Path) -> None:
    llm, _ = Pretrained(str(models / "plain")).build()
    with pytest.raises(UserError, match=r"missing: .*lora_A.default.weight.* left over: lora_A"):
        LoRA(train_embeddings=False, train_norms=False).merge(llm, {"lora_A": torch.ones(2)})
