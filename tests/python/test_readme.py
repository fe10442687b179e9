"""README's lines of Python run, and do what they say."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.filterwarnings("ignore")
def test_the_lines_from_python(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(import lit_pi.*?|from pathlib.*?)```", README.read_text(), re.DOTALL)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=264, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=256,
    ))  # fmt: skip
    # What the lines start from: a model in the place of the demo's, and a folder of texts.
    model.save_pretrained(tmp_path / "runs" / "demo" / "pretrain")
    tokenizer.save_pretrained(tmp_path / "runs" / "demo" / "pretrain")
    (tmp_path / "texts").mkdir()
    for number in range(2):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"text {number} of some length " * 60)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    before, after = names["before"], names["after"]
    assert list(after.perplexity) == [256, 512, 1024]
    assert before.perplexity != after.perplexity
    assert after.protocol["position"]["class"] == "Interpolate"
    stock = AutoModelForCausalLM.from_pretrained("extended")
    tokens = torch.arange(100)[None]
    assert torch.equal(stock(tokens).logits, names["model"](tokens).logits)
    assert stock.config.rope_parameters["factor"] == 4.0
