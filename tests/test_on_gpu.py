"""The same numbers on a GPU as on the CPU, where there is one."""

import json
from pathlib import Path

import pytest
import torch
from strategies import STRATEGIES
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pi.cli import LitPiCLI
from lit_pi.models import LanguageModel
from lit_pi.models.attention import ATTENTION
from lit_pi.positions import PositionStrategy, Rope, SelfExtend

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore"),
]

TOKENS = torch.randint(0, 97, (2, 301), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("position", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.bfloat16, 0.1)])
def test_scores_are_those_of_the_cpu(position: PositionStrategy, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    llm = LlamaForCausalLM._from_config(config, attn_implementation=ATTENTION)
    model = LanguageModel(llm.double().eval(), position, Rope(64, 1e4, 64))
    with torch.no_grad():
        expected = model(TOKENS[:, :-1], TOKENS[:, 1:])
        model.to("cuda", dtype)
        found = model(TOKENS[:, :-1].cuda(), TOKENS[:, 1:].cuda())
    torch.testing.assert_close(found.double().cpu(), expected, rtol=0, atol=tolerance)


def test_generation_with_an_attention_rule() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    llm = LlamaForCausalLM._from_config(config, attn_implementation=ATTENTION)
    model = LanguageModel(llm.double().eval(), SelfExtend(4, 16), Rope(64, 1e4, 64))
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(TOKENS[:, :50], 100, **options)
    assert torch.equal(model.cuda().generate(TOKENS[:, :50].cuda(), 100, **options).cpu(), expected)


@pytest.mark.parametrize(
    "precision",
    [
        ["--trainer.precision=bf16-true"],
        ["--trainer.precision=bf16-mixed"],
        ["--trainer.strategy=fsdp2", "--trainer.devices=1"],
    ],
    ids=["bf16-true", "bf16-mixed", "fsdp2"],
)
def test_training_and_testing_run_there(tmp_path: Path, tiny: list[str], precision: list[str]) -> None:
    words = [word for word in tiny if "accelerator" not in word]
    words += ["--trainer.accelerator=gpu", f"--trainer.default_root_dir={tmp_path}", *precision]
    LitPiCLI(["fit", *words, "--trainer.max_steps=20", "--trainer.limit_val_batches=0"])
    LitPiCLI(["test", *words, "--ckpt_path=last", "--trainer.callbacks+=AttentionBounds"])
    records = json.loads((tmp_path / "results.json").read_text())["records"]
    assert {record["kind"] for record in records} == {"perplexity_curve", "attention_bounds"}
    assert records[0]["protocol"]["compute_dtype"] == "bfloat16"
