"""`lit-pi export`, from the checkpoint of a run to what transformers loads."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from strategies import BY_LAYER, STRATEGIES
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, MistralConfig
from windowed import windowed

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.export import command, model_card, stock, verification, writing
from lit_pi.export.origin import rebuilt
from lit_pi.positions import Interpolate, PositionStrategy, Rope
from lit_pi.seal import NAME as SEAL

pytestmark = pytest.mark.filterwarnings("ignore")

YARN = ["--model.position=YaRN", "--model.position.scale=4"]


def export(*words: object) -> None:
    with pytest.raises(SystemExit) as done:
        LitPiCLI(["export", *map(str, words)])
    assert done.value.code in (0, None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """Two steps with YaRN, tested."""
    run = tmp_path_factory.mktemp("run")
    words = [*tiny, *YARN, f"--trainer.default_root_dir={run}"]
    LitPiCLI(["fit", *words, "--trainer.max_steps=2", "--trainer.limit_val_batches=0"])
    LitPiCLI(["test", *words, "--ckpt_path=last", "--trainer.limit_test_batches=2"])
    return run


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported, and verified in a process of its own."""
    output = tmp_path_factory.mktemp("exported") / "tiny-256"
    export(f"--checkpoint={run}", f"--output={output}")
    return output


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock transformers without the seconds a fresh process takes."""

    def here(words: list, **_: Any) -> subprocess.CompletedProcess:
        stock.main(*map(str, words[-3:]))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(verification.subprocess, "run", here)


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """A directory to spoil."""
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_it_holds_the_trained_weights_the_tokenizer_and_the_positions(run: Path, exported: Path) -> None:
    trained = torch.load(run / "checkpoints" / "step-000002.ckpt", weights_only=True)["state_dict"]
    weights = load_file(exported / "model.safetensors")
    assert weights.keys() == {name.removeprefix("model.llm.") for name in trained}
    assert all(torch.equal(tensor, trained[f"model.llm.{name}"]) for name, tensor in weights.items())
    config = AutoConfig.from_pretrained(exported)
    assert (config.max_position_embeddings, config.bos_token_id, config.eos_token_id) == (256, 256, 257)
    assert config.rope_parameters["rope_type"] == "yarn"
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert tokenizer.model_max_length == 256
    assert tokenizer("é", add_special_tokens=False).input_ids == [0xC3, 0xA9]


def test_the_model_card_says_what_was_done(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    for said in (
        "# tiny-256", "contexts of 256 tokens", "`YaRN(scale=4.0, ", "| context of pre-training | 64 tokens",
        "| data | TextFiles, tokenizer `bytes` |", "| steps | 2 |", "| sequences | 64 tokens, packed |",
        "| all weights | 2 | 256 | 2e-05 | 0 |",
        "Perplexity on texts, of a part of the batches:", "vllm serve tiny-256 --max-model-len 256",
        "at the ends of contexts of 32, 64, 256 tokens",
    ):  # fmt: skip
        assert said in card, said


@pytest.mark.usefixtures("in_this_process")
def test_what_was_exported_passes_again(copied: Path, capsys: pytest.CaptureFixture) -> None:
    export(f"--check={copied}")
    assert f"{copied} is what was exported" in capsys.readouterr().out


def edit(directory: Path, change: Callable[[dict], Any]) -> None:
    content = json.loads((directory / "config.json").read_text())
    change(content)
    (directory / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["rope_parameters"].update(factor=4.01), r"config\.json says rope_scaling"),
        (lambda c: c["rope_scaling"].update(factor=8.0), r"config\.json says rope_scaling"),
        (lambda c: c.update(rope_theta=5e5), r"says rope_theta 500000\.0, and 10000\.0 was exported"),
        (lambda c: c.update(max_position_embeddings=4096), "says max_position_embeddings 4096, and 256 was exported"),
        (lambda c: [c[form].update(factor=4.01) for form in ("rope_parameters", "rope_scaling")], "rotates otherwise"),
        (lambda c: [c[form].pop("attention_factor") and c[form].update(attention_factor=1.13)
                    for form in ("rope_parameters", "rope_scaling")], "rotates otherwise"),
        (lambda c: c.update(rms_norm_eps=1e-3), "computes other logits"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("in_this_process")
def test_a_config_edited_by_hand_is_caught(change: Callable[[dict], Any], said: str, copied: Path) -> None:
    (copied / SEAL).unlink()
    edit(copied, change)
    with pytest.raises(UserError, match=said):
        command.export(check=copied)


@pytest.mark.usefixtures("in_this_process")
def test_other_weights_are_caught(copied: Path) -> None:
    (copied / SEAL).unlink()
    weights = load_file(copied / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] += 0.1
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="computes other logits"):
        command.export(check=copied)


def test_a_directory_that_transformers_cannot_load_is_one_sentence(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = copied / "failing.py"
    failing.write_text("raise ValueError('header too large')")
    monkeypatch.setattr(stock, "__file__", str(failing))
    with pytest.raises(UserError, match=r"cannot compute .* \(ValueError: header too large\): export it again"):
        command.export(check=copied)


@pytest.mark.usefixtures("in_this_process")
def test_results_that_lack_what_the_card_says_are_told() -> None:
    with pytest.raises(UserError, match="the run's results of texts lack 'curve': test again"):
        model_card._measured({"kind": "perplexity_curve", "evaluation": "texts", "partial": False, "protocol": {}})


@pytest.mark.parametrize("other", ["strategy", "step"])
def test_the_model_card_does_not_take_over_what_something_else_reached(other: str, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    if other == "step":
        (copy / "checkpoints" / "step-000002.ckpt").rename(copy / "checkpoints" / "step-000003.ckpt")
    command.export(str(copy), tmp_path / "out", Interpolate(scale=4) if other == "strategy" else None)
    assert "The run has no result of this model with this strategy." in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.usefixtures("in_this_process")
def test_a_run_is_for_what_it_trained_at_in_the_dtype_it_has(tmp_path: Path, tiny: list[str]) -> None:
    run = tmp_path / "run"
    words = [*tiny, "--data.context_length=128", f"--trainer.default_root_dir={run}", "--trainer.max_steps=1"]
    LitPiCLI(["fit", *words, "--trainer.limit_val_batches=0", "--trainer.precision=bf16-true"])
    for context, dtype, options in (
        (128, torch.bfloat16, {}),
        (512, torch.float32, {"target_context": 512, "dtype": "float32"}),
    ):
        output = tmp_path / str(context)
        command.export(str(run), output, **options)
        config = AutoConfig.from_pretrained(output)
        assert (config.max_position_embeddings, config.dtype) == (context, dtype)
        assert {tensor.dtype for tensor in load_file(output / "model.safetensors").values()} == {dtype}


@pytest.mark.usefixtures("in_this_process")
def test_positions_by_layer_stand_in_the_model_card(tmp_path: Path) -> None:
    windowed("gemma3").save_pretrained(tmp_path / "given")
    layers = "{full_attention: {class_path: YaRN, init_args: {scale: 4}}, others: Extrapolate}"
    export(
        f"--checkpoint={tmp_path / 'given'}", f"--output={tmp_path / 'out'}", "--position=ByLayer",
        f"--position.layers={layers}",
    )  # fmt: skip
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "`ByLayer(layers={full_attention: YaRN(scale=4.0, ", "others: Extrapolate()})`",
        "rope_theta 1e+06 (full_attention), 10000 (sliding_attention)",
        "rope_type `yarn` (full_attention)", "rope_type `default` (sliding_attention)",
    ):  # fmt: skip
        assert said in card, said


@pytest.mark.usefixtures("in_this_process")
def test_a_directory_of_somebody_else_is_extended(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = MistralConfig(
        vocab_size=97, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, sliding_window=32,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "given")
    export(f"--checkpoint={tmp_path / 'given'}", f"--output={tmp_path / 'out'}", "--position=Interpolate",
           "--position.scale=4")  # fmt: skip
    said = capsys.readouterr().out
    assert "There is no tokenizer to export" in said
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.rope_parameters["factor"], config.sliding_window) == (4.0, 32)
    assert "/given`, unchanged." in (tmp_path / "out" / "README.md").read_text()


def test_what_cannot_be_exported_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = f"--output={tmp_path / 'out'}"
    with pytest.raises(UserError, match="no rope type for SelfExtend, which has an attention rule"):
        LitPiCLI(["export", f"--checkpoint={run}", output, "--position=configs/position/self_extend.yaml"])
    assert not list(tmp_path.iterdir())

    def wrong(directory: Path) -> None:
        raise UserError(f"{directory} computes other logits")

    monkeypatch.setattr(writing, "verify", wrong)
    with pytest.raises(UserError, match="other logits"):
        LitPiCLI(["export", f"--checkpoint={run}", output])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("position", STRATEGIES.values(), ids=STRATEGIES)
def test_a_checkpoint_says_enough_to_build_its_strategy_again(position: PositionStrategy) -> None:
    again = rebuilt(json.loads(json.dumps(position.describe())))
    assert type(again) is type(position)
    assert again.describe() == position.describe()
    rope = Rope(64, 10_000.0, 256)
    assert torch.equal(again.inv_freq(rope, 1024), position.inv_freq(rope, 1024))


@pytest.mark.parametrize("position", BY_LAYER.values(), ids=BY_LAYER)
def test_so_it_does_of_the_strategies_of_layers(position: PositionStrategy) -> None:
    again = rebuilt(json.loads(json.dumps(position.describe())))
    assert again.describe() == position.describe()
    assert again.of_layer(0, "full_attention").describe() == position.of_layer(0, "full_attention").describe()


def test_a_strategy_from_elsewhere_has_to_be_named() -> None:
    with pytest.raises(UserError, match=r"trained with Halfway, which is not .* name it in `position`"):
        rebuilt({"class": "Halfway", "scale": 3})


def test_mistakes_are_named(run: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(tmp_path / "model")
    for words, said in (
        ([], "needs the `checkpoint` and the `output`"),
        ([f"--checkpoint={run}"], "needs the `checkpoint` and the `output`"),
        ([f"--checkpoint={run}", f"--output={tmp_path}"], "is there already"),
        ([f"--checkpoint={run}", f"--check={tmp_path}"], "`check` beside"),
        ([f"--check={tmp_path / 'model'}"], "is no directory that `lit-pi export` wrote"),
        ([f"--checkpoint={tmp_path / 'none'}", f"--output={tmp_path / 'out'}"], "no model at"),
    ):
        with pytest.raises(UserError, match=said):
            LitPiCLI(["export", *words])
