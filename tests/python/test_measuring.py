"""Numbers of a model in memory are those of the command line, to the bit, and the model stays as it is."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import lit_pi
from lit_pi.cli import LitPiCLI
from lit_pi.data.corpora import TextFiles
from lit_pi.errors import UserError
from lit_pi.positions import DynamicNTK, FromConfig, Interpolate, PositionStrategy, SelfExtend, YaRN
from lit_pi.python.results import Result

pytestmark = pytest.mark.filterwarnings("ignore")

NUMBERS = ("curve", "definitions", "context_gain", "positions", "cells", "lengths")


def record_of(run: Path, directory: Path, evaluation: str, *options: str) -> dict[str, Any]:
    """The record of `lit-pi test` on a saved model."""
    LitPiCLI([
        "test", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.logger=false",
        f"--trainer.default_root_dir={run}", "--model.llm=Pretrained", f"--model.llm.path={directory}",
        f"--data.evaluations={evaluation}", "--data.tokenizer=bytes", *options,
    ])  # fmt: skip
    (record,) = json.loads((run / "results.json").read_text())["records"]
    return record


def same_numbers(found: Result, expected: dict[str, Any]) -> bool:
    found_numbers = {name: found.record[name] for name in NUMBERS if name in found.record}
    return found_numbers == {name: expected[name] for name in NUMBERS if name in expected} and bool(found_numbers)


def perplexity_of(texts: Path, **options: Any) -> str:
    corpus = {"class_path": "TextFiles", "init_args": {"test": str(texts / "test")}}
    return json.dumps({"texts": {"class_path": "Perplexity", "init_args": {"corpus": corpus, **options}}})


@pytest.mark.parametrize(
    ("position", "options"),
    [
        (Interpolate(scale=4), ["--model.position=Interpolate", "--model.position.scale=4"]),
        pytest.param(
            DynamicNTK(scale=4), ["--model.position=DynamicNTK", "--model.position.scale=4"], marks=pytest.mark.long
        ),
        pytest.param(
            SelfExtend(4, 16),
            ["--model.position=SelfExtend", "--model.position={group_size: 4, window: 16}"],
            marks=pytest.mark.long,
        ),
    ],
    ids=["interpolate", "dynamic-ntk", "self-extend"],
)
def test_a_curve_is_that_of_lit_pi_test(
    position: PositionStrategy,
    options: list[str],
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    documents: list[str],
    texts: Path,
    tmp_path: Path,
) -> None:
    model.save_pretrained(tmp_path / "model")
    asked: dict[str, Any] = {"context_lengths": [32, 64, 128], "stride": 16, "batch_size": 4, "disjoint": True}
    expected = record_of(tmp_path / "run", tmp_path / "model", perplexity_of(texts, **asked), *options)
    lit_pi.extend(model, position)
    found = lit_pi.perplexity_curve(model, tokenizer, documents, **asked)
    assert same_numbers(found, expected)
    assert found.perplexity == {point["context_length"]: point["perplexity"] for point in expected["curve"]}
    assert found.intervals[64] == (expected["curve"][1]["low"], expected["curve"][1]["high"])
    assert found.protocol["position"] == expected["protocol"]["position"]
    # The same without extending, and of a corpus instead of strings.
    corpus = TextFiles(test=str(texts / "test"))
    assert lit_pi.perplexity_curve(model, tokenizer, corpus, **asked, position=position).perplexity == found.perplexity


def test_a_sample_of_windows_in_bfloat16_too(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    documents: list[str],
    texts: Path,
    tmp_path: Path,
) -> None:
    lit_pi.extend(model.to(torch.bfloat16), YaRN(scale=4)).save_pretrained(tmp_path / "model")
    asked: dict[str, Any] = {"context_lengths": [32, 128], "stride": 8, "num_windows": 40, "max_documents": 4}
    expected = record_of(
        tmp_path / "run", tmp_path / "model", perplexity_of(texts, **asked), "--model.position=FromConfig",
        "--trainer.precision=bf16-true",
    )  # fmt: skip
    found = lit_pi.perplexity_curve(model, tokenizer, documents, **asked)
    assert same_numbers(found, expected)
    assert found.protocol["sampling"] == expected["protocol"]["sampling"]


@pytest.mark.parametrize("score", ["teacher_forced", "generate"])
def test_passkeys_are_those_of_lit_pi_test(
    score: Any, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    lit_pi.extend(model, Interpolate(scale=8)).save_pretrained(tmp_path / "model")
    asked: dict[str, Any] = {"context_lengths": [340, 380], "mode": "grid", "depths": 2, "trials": 2, "score": score}
    evaluation = json.dumps({"passkey": {"class_path": "PasskeyRetrieval", "init_args": asked}})
    expected = record_of(tmp_path / "run", tmp_path / "model", evaluation, "--model.position=FromConfig")
    found = lit_pi.passkey(model, tokenizer, **asked)
    assert same_numbers(found, expected)
    assert found.accuracy == {entry["context_length"]: entry["accuracy"] for entry in expected["lengths"]}
    by_hand = lit_pi.measure(model, tokenizer, lit_pi.PasskeyRetrieval(**asked), name="passkey")
    assert by_hand.record["cells"] == expected["cells"]


def test_measuring_changes_neither_the_model_nor_the_process(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    documents: list[str],
    capfd: pytest.CaptureFixture,
) -> None:
    lit_pi.extend(model.train(), SelfExtend(4, 16))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = model(torch.arange(100)[None]).logits
    forwards = [layer.__dict__.get("forward") for layer in model.modules()]
    random = torch.get_rng_state()
    capfd.readouterr()
    lit_pi.perplexity_curve(model, tokenizer, documents, [64], stride=32)
    lit_pi.generate(model, tokenizer, "the position", max_new_tokens=4)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [layer.__dict__.get("forward") for layer in model.modules()] == forwards
    assert model.config._attn_implementation == "lit_pi_late"
    assert torch.equal(model(torch.arange(100)[None]).logits, logits)


def test_a_result_shows_itself(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, documents: list[str]
) -> None:
    found = lit_pi.perplexity_curve(model, tokenizer, documents, [32, 64], stride=16, position=Interpolate(scale=2))
    assert f"{found.perplexity[64]:.3f}" in repr(found) and "model: Interpolate" in repr(found)
    assert f"<td>{found.perplexity[64]:.3f}</td>" in found._repr_html_()
    assert 'src="data:image/png;base64,iVBOR' in found._repr_html_()
    (axes,) = found.figure().axes
    assert list(axes.lines[0].get_ydata()) == list(found.perplexity.values())
    keys = lit_pi.passkey(model, tokenizer, [340], distances=2, trials=1)
    last = ["340", "2", "0.0", "(0.0", "to", "65.8)", "0", "0", "0", "170", "none"]
    (row,) = (line.split() for line in repr(keys).splitlines() if "model:" in line)
    assert row == ["model:", "Extrapolate", *last]
    assert keys.k_max == {340: 0} and keys.figure().axes


def test_mistakes_are_named(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="no document of texts, test, fills a window of 2048 tokens"):
        lit_pi.perplexity_curve(model, tokenizer, "short")
    with pytest.raises(UserError, match="text 1 is a int: give a list of strings"):
        lit_pi.perplexity_curve(model, tokenizer, ["a", 1])  # type: ignore[list-item]
    with pytest.raises(UserError, match="the tokenizer is a str: give one"):
        lit_pi.perplexity_curve(model, "bytes", ["a"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the model is a str: give a causal language model"):
        lit_pi.passkey("model", tokenizer)  # type: ignore[arg-type]


def test_generating_is_lit_pi_predict(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "model")
    prompts = ["the position of a token", "turns", "by an angle that grows"]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"text": prompt}) + "\n" for prompt in prompts))
    decoding = {"max_new_tokens": 60, "temperature": 0.9, "top_p": 0.9, "seed": 3}
    words = [f"--data.predict.{name}={value}" for name, value in decoding.items()]
    LitPiCLI([
        "predict", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.logger=false",
        f"--trainer.default_root_dir={tmp_path / 'run'}", "--model.llm=Pretrained",
        f"--model.llm.path={tmp_path / 'model'}", "--model.position=DynamicNTK", "--model.position.scale=4",
        "--data.tokenizer=bytes", f"--data.predict.files={tmp_path / 'prompts.jsonl'}", *words,
    ])  # fmt: skip
    lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    expected = [json.loads(line)["completion"] for line in lines]
    lit_pi.extend(model, DynamicNTK(scale=4))
    assert lit_pi.generate(model, tokenizer, prompts, batch_size=2, **decoding) == expected
    assert lit_pi.generate(model, tokenizer, prompts[0], **decoding) == expected[0]
    with pytest.raises(UserError, match="max_new_tokens of generate is 0"):
        lit_pi.generate(model, tokenizer, "a", 0)


def test_from_config_is_the_default(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, documents: list[str]
) -> None:
    stock = lit_pi.perplexity_curve(model, tokenizer, documents, [64], stride=32)
    assert stock.protocol["position"]["class"] == "Extrapolate"
    lit_pi.extend(model, FromConfig())
    assert lit_pi.perplexity_curve(model, tokenizer, documents, [64], stride=32).perplexity == stock.perplexity
