"""Strategies of single layers: transformers with the same `rope_parameters` by kind of layer computes the same."""

import inspect
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from transformers import AutoModelForCausalLM, PreTrainedModel
from windowed import BY_KIND, KINDS, WINDOW, windowed

import lit_pi
from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.sources.in_memory import InMemory
from lit_pi.models.sources.provenance import rope_of
from lit_pi.positions import (
    ByLayer,
    DynamicNTK,
    Extrapolate,
    FromConfig,
    Interpolate,
    NoPositions,
    PositionStrategy,
    Rope,
    SelfExtend,
    YaRN,
)
from lit_pi.positions.testing import check_contract
from lit_pi.report import report

pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS = torch.randint(1, 250, (2, 201), generator=torch.Generator().manual_seed(1))
LENGTHS = (WINDOW - 4, 60, 200)
"""Below the window, beyond it, and beyond the context of pre-training."""

OLMO = ByLayer({"full_attention": YaRN(scale=4), "sliding_attention": Extrapolate()})
WHOLE = ByLayer({"full_attention": YaRN(scale=4, truncate=False), "others": Extrapolate()})
PLACES = ByLayer({"every 4": YaRN(scale=4), "others": Extrapolate()})
EXTENDED = {
    "interpolate": Interpolate(scale=2),
    "yarn on full": OLMO,
    "whole ramps": WHOLE,
    "nope on full": ByLayer({"full_attention": NoPositions(), "others": Extrapolate()}),
}


def with_yarn(name: str) -> PreTrainedModel:
    """transformers' own model, with its own YaRN where attention is full."""
    config = windowed(name).config
    parameters = deepcopy(config.rope_parameters)
    parameters["full_attention"] |= {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    return windowed(name, rope_parameters=parameters)


@torch.no_grad()
def losses(stock: PreTrainedModel, length: int) -> torch.Tensor:
    log_probs = stock(TOKENS[:, :length], use_cache=False).logits.log_softmax(-1)
    return -log_probs.gather(-1, TOKENS[:, 1 : length + 1, None])[..., 0]


def built(name: str, position: PositionStrategy) -> LanguageModel:
    llm = windowed(name)
    llm.set_attn_implementation(ATTENTION)
    return LanguageModel(llm, position, rope_of(llm.config)).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", BY_KIND)
def test_a_model_is_what_its_config_says(name: str) -> None:
    model, stock = built(name, FromConfig()), windowed(name)
    for length in LENGTHS:
        found = model(TOKENS[:, :length], TOKENS[:, 1 : length + 1])
        torch.testing.assert_close(found, losses(stock, length), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("position", [OLMO, PLACES, ByLayer({"0-2": Extrapolate(), "3": YaRN(scale=4)})])
@pytest.mark.parametrize("name", BY_KIND)
def test_layers_that_see_everything_rotate_by_yarn_and_no_others(name: str, position: PositionStrategy) -> None:
    model, stock = built(name, position), with_yarn(name)
    for length in LENGTHS:
        found = model(TOKENS[:, :length], TOKENS[:, 1 : length + 1])
        torch.testing.assert_close(found, losses(stock, length), rtol=0, atol=1e-5)
    assert (losses(stock, 200) - losses(windowed(name), 200)).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("position", EXTENDED.values(), ids=EXTENDED)
@pytest.mark.parametrize("name", BY_KIND)
def test_what_extend_saves_is_what_transformers_loads(name: str, position: PositionStrategy, tmp_path: Path) -> None:
    model = lit_pi.extend(windowed(name), position)
    if position is WHOLE and tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 21):
        with pytest.raises(UserError, match=r"cannot be saved: transformers 5[.0-9]+ itself fails on its config at"):
            model.save_pretrained(tmp_path)
        return
    model.save_pretrained(tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(stock.model.rotary_emb).__module__.startswith("transformers.")
    for length in LENGTHS:
        found = model(TOKENS[:, :length], use_cache=False).logits
        torch.testing.assert_close(stock(TOKENS[:, :length], use_cache=False).logits, found, rtol=0, atol=1e-5)
    assert (found - windowed(name)(TOKENS[:, :200]).logits).abs().max() > 0.1
    assert stock.config.sliding_window == WINDOW and stock.config.layer_types == KINDS


@torch.no_grad()
@pytest.mark.parametrize("position", [OLMO, PLACES, ByLayer({"3": DynamicNTK(scale=4), "others": Extrapolate()})])
def test_generating_equals_full_passes(position: PositionStrategy) -> None:
    model = lit_pi.extend(windowed("gemma3"), position)
    done = model.generate(
        TOKENS[:, :40], attention_mask=torch.ones(2, 40), max_new_tokens=40, min_new_tokens=40, do_sample=False,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    whole = built("gemma3", position)
    whole.rotary.context_length = 80
    expected = whole.llm(done.sequences[:, :-1], use_cache=False).logits[:, 39:]
    torch.testing.assert_close(torch.stack(done.logits, dim=1), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_extending_again_leaves_nothing_of_before() -> None:
    """Neither in the model nor in what is measured of it."""
    model = lit_pi.extend(lit_pi.extend(windowed("gemma3"), OLMO), PLACES)
    for position in (PLACES, Interpolate(scale=4), OLMO):
        source = InMemory(model)
        llm, rope = source.build()
        found = LanguageModel(llm, position, rope).eval()(TOKENS[:, :-1], TOKENS[:, 1:])
        assert torch.equal(found, built("gemma3", position)(TOKENS[:, :-1], TOKENS[:, 1:]))
    again = lit_pi.extend(model, Interpolate(scale=4))
    assert torch.equal(again(TOKENS).logits, lit_pi.extend(windowed("gemma3"), Interpolate(scale=4))(TOKENS).logits)


def test_places_are_not_said_by_a_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"by kind of layer, and ByLayer has some for 'every 4'"):
        lit_pi.extend(windowed("olmo3"), PLACES).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"one set of rope_parameters for all layers of a mistral model, and ByLayer"):
        lit_pi.extend(windowed("mistral"), PLACES).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    # Where all layers are of one kind, they have one strategy.
    alike = ByLayer({"sliding_attention": Extrapolate(), "others": YaRN(scale=4)})
    lit_pi.extend(windowed("mistral"), alike).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["rope_parameters"]["rope_type"] == "default"


IN_VAIN = {
    "none of the model's 4 layers": [
        "fulll_attention", "chunked_attention", "every4", "every 9", "every 0", "every -1", "7", "-1", "3-1", "0 - 1",
    ],
    "more than there are of the model's 4 layers": ["0-100", "2-4"],
}  # fmt: skip


@pytest.mark.parametrize(("said", "name"), [(said, name) for said, names in IN_VAIN.items() for name in names])
def test_a_name_that_means_no_layer_is_refused(said: str, name: str) -> None:
    position = ByLayer({name: YaRN(scale=4), "others": Extrapolate()})
    with pytest.raises(UserError, match=f"ByLayer names '{name}', which means {said}, of kind sliding_.*, full_att"):
        lit_pi.extend(windowed("olmo3"), position)


@pytest.mark.parametrize("names", [["others", "full_attention"], ["0-3", "1-2"], ["full_attention", "3", "others"]])
def test_a_name_whose_layers_are_taken_is_refused(names: list[str]) -> None:
    position = ByLayer(dict.fromkeys(names, YaRN(scale=4)))
    with pytest.raises(UserError, match=f"ByLayer names '{names[1]}', whose layers all have .* of a name before it"):
        lit_pi.extend(windowed("olmo3"), position)


def test_names_may_overlap_and_nothing_may_be_left_for_others() -> None:
    for names in (["0-2", "1-3"], ["sliding_attention", "full_attention", "others"]):
        lit_pi.extend(windowed("olmo3"), ByLayer(dict.fromkeys(names, YaRN(scale=4))))


@pytest.mark.parametrize("given", [None, "YaRN"])
def test_what_is_no_strategy_is_refused(given: Any) -> None:
    with pytest.raises(UserError, match=f"ByLayer got {given!r} for others, which is no strategy"):
        inspect.unwrap(ByLayer.__init__)(object.__new__(ByLayer), {"others": given})  # without the tests' type checker


def test_it_runs_and_resumes_by_yaml(tmp_path: Path, tiny: list[str]) -> None:
    base, run = tmp_path / "base", tmp_path / "run"
    windowed("olmo3").save_pretrained(base)
    words = [word for word in tiny if not word.startswith(("--model", "--trainer.default_root_dir"))] + [
        "--model.llm=Pretrained", f"--model.llm.path={base}", f"--trainer.default_root_dir={run}",
        "--trainer.limit_val_batches=0", "--trainer.limit_test_batches=2", "--data.tokenizer=bytes",
    ]  # fmt: skip
    by_layer = "--model.position=configs/position/by_layer.yaml"
    LitPiCLI(["fit", *words, by_layer, "--trainer.max_steps=1"])
    resumed = ["fit", *words, "--trainer.max_steps=2", "--ckpt_path=last"]
    with pytest.raises(UserError, match=r"was trained with .*ByLayer.* the positions asked for are .*NoPositions"):
        LitPiCLI([*resumed, "--model.position=configs/position/windows_rotate.yaml"])
    LitPiCLI([*resumed, by_layer])
    LitPiCLI(["test", *words, by_layer, "--ckpt_path=last"])
    (record,) = json.loads((run / "results.json").read_text())["records"]
    layers = record["protocol"]["position"]["layers"]
    assert (layers["full_attention"]["class"], layers["others"]["class"]) == ("YaRN", "Extrapolate")
    report([run], tmp_path / "report")
    said = (tmp_path / "report" / "report.md").read_text()
    assert "ByLayer (layers full_attention YaRN (scale 4, " in said and "others Extrapolate" in said


@pytest.mark.parametrize("file", ["by_layer", "windows_rotate"])
def test_its_files_are_of_windows_and_full_attention(file: str) -> None:
    named = yaml.safe_load((Path("configs/position") / f"{file}.yaml").read_text())["init_args"]["layers"]
    assert list(named) == ["full_attention", "others"]


def test_the_contract_is_that_of_each_strategy() -> None:
    class Rising(Extrapolate):
        def inv_freq(self, rope: Rope, context_length: int) -> torch.Tensor:
            return rope.inv_freq().flip(0)

    ropes = [Rope(64, 1e6, 64, kinds=(("sliding_attention", Rope(32, 1e4, 64)),))]
    check_contract(OLMO, ropes)
    check_contract(ByLayer({"0": DynamicNTK(scale=4), "others": Extrapolate()}), ropes)
    with pytest.raises(AssertionError, match="frequencies must not rise"):
        check_contract(ByLayer({"full_attention": Extrapolate(), "others": Rising()}), ropes)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({}, "got no layers"),
    "a rule": ({"full_attention": SelfExtend(4, 16)}, "got SelfExtend for full_attention, which is for all layers"),
    "itself": ({"others": OLMO}, "got ByLayer for others"),
    "a kind left out": (
        {"full_attention": YaRN(scale=4)},
        "no strategy for layer 0 .* whose kind is sliding_attention",
    ),
    "others as the config says": ({"others": FromConfig()}, "name one of .*full_attention"),
}


@pytest.mark.parametrize(("layers", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(layers: dict[str, PositionStrategy], said: str) -> None:
    with pytest.raises(UserError, match=said):
        lit_pi.extend(windowed("gemma3"), ByLayer(layers))
