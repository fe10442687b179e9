"""Models and tokenizers come from directories and runs, and go back verified."""

from pathlib import Path

import pytest
import torch
from architectures import CASES, stock_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

import lit_pi
from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.positions import Interpolate, NoPositions, SelfExtend, YaRN

pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS = torch.randint(1, 250, (1, 300), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_what_is_saved_was_verified_and_comes_back(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    lit_pi.extend(model.to(torch.bfloat16), YaRN(scale=4))
    output = lit_pi.save(model, tokenizer, tmp_path / "extended")
    assert model.dtype == torch.bfloat16 and tokenizer.model_max_length > 256
    assert "computed the same as lit_pi at the ends of contexts of 32, 64, 256" in (output / "README.md").read_text()
    stock = AutoModelForCausalLM.from_pretrained(output).eval()
    assert AutoTokenizer.from_pretrained(output)("é", add_special_tokens=False).input_ids == [0xC3, 0xA9]
    again, _ = lit_pi.load(output)
    more, _ = lit_pi.load(output, Interpolate(scale=8), dtype=torch.float32)
    assert (again.dtype, more.dtype) == (torch.bfloat16, torch.float32)
    assert more.config.max_position_embeddings == 512  # from pre-training, not from 256
    for length in (20, 64, 300):
        expected = model(TOKENS[:, :length]).logits
        assert torch.equal(stock(TOKENS[:, :length]).logits, expected)
        assert torch.equal(again(TOKENS[:, :length]).logits, expected)


@torch.no_grad()
@pytest.mark.parametrize("name", ["Gemma 2", "GPT-OSS"])
def test_attention_is_what_the_model_can_do(name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Soft caps and sinks, which torch's own attention has not."""
    stock = stock_model(CASES[name].config())
    stock.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    stock.set_attn_implementation("eager")
    model, _ = lit_pi.load(tmp_path)
    torch.testing.assert_close(model(TOKENS[:, :60]).logits, stock(TOKENS[:, :60]).logits, rtol=0, atol=1e-5)


def test_what_transformers_cannot_say_leaves_nothing(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no rope type for SelfExtend, which has an attention rule"):
        lit_pi.save(lit_pi.extend(model, SelfExtend(4, 16)), tokenizer, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="is there already"):
        lit_pi.save(lit_pi.extend(model, NoPositions()), tokenizer, tmp_path)


@torch.no_grad()
def test_a_run_brings_its_strategy_and_its_tokenizer(tiny: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--model.position=SelfExtend", "--model.position={group_size: 4, window: 16}", "--trainer.max_steps=1"]
    LitPiCLI(["fit", *tiny, *words, f"--trainer.default_root_dir={run}", "--trainer.limit_val_batches=0"])
    model, tokenizer = lit_pi.load(run)
    assert tokenizer.name_or_path == "bytes"
    assert lit_pi.perplexity_curve(model, tokenizer, "the angle " * 30, [64], 32).protocol["position"] == {
        "class": "SelfExtend", "group_size": 4, "window": 16,
    }  # fmt: skip
    with pytest.raises(UserError, match="cannot be saved"):
        model.save_pretrained(tmp_path / "out")
    assert torch.isfinite(model(TOKENS).logits).all()


def test_mistakes_are_named(model: LlamaForCausalLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=r"there is no tokenizer in .*model: name one in `tokenizer`"):
        lit_pi.load(tmp_path / "model")
    with pytest.raises(UserError, match="no model at"):
        lit_pi.load(tmp_path / "none")
