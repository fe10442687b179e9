"""Sharded, adapters are saved whole and learn what they learn in one process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_pi.cli import LitPiCLI
from lit_pi.models import LanguageModel, Pretrained
from lit_pi.positions import Interpolate

pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS = torch.randint(0, 264, (1, 64), generator=torch.Generator().manual_seed(0))


def merged(run: Path) -> torch.Tensor:
    llm, rope = Pretrained(str(run)).build()
    with torch.no_grad():
        return LanguageModel(llm, Interpolate(scale=2), rope).eval().llm(input_ids=TOKENS, use_cache=False).logits


@pytest.mark.long
def test_two_ranks_learn_and_save_one_adapter(tmp_path: Path, tiny: list[str]) -> None:
    """With activation checkpointing there."""
    base = tmp_path / "base"
    LitPiCLI(["fit", *tiny, f"--trainer.default_root_dir={base}", "--trainer.max_steps=1"])
    kept = [word for word in tiny if not word.startswith(("--model", "--data.batch_size"))]
    words = [
        "fit", *kept, "--model.llm=Pretrained", f"--model.llm.path={base}", "--model.adapter=LoRA",
        "--model.position=Interpolate", "--model.position.scale=2", "--model.optimizer=AdamW",
        "--model.optimizer.lr=0.01", "--trainer.limit_val_batches=0",
    ]  # fmt: skip
    single, sharded = tmp_path / "single", tmp_path / "sharded"
    LitPiCLI([*words, f"--trainer.default_root_dir={single}", "--trainer.max_steps=4", "--data.batch_size=4"])

    command = [
        sys.executable, "-m", "lit_pi", *words, f"--trainer.default_root_dir={sharded}", "--data.batch_size=2",
        "--trainer.strategy=FSDP2", "--trainer.strategy.compute_dtype=float32", "--trainer.devices=2",
        "--model.activation_checkpointing.mode=full", "--trainer.strategy.save_distributed_checkpoint=false",
        "--trainer.max_steps=4",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=240, cwd=tmp_path)

    found, expected = (
        torch.load(run / "checkpoints" / "step-000004.ckpt", weights_only=True)["state_dict"]
        for run in (sharded, single)
    )
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert weight.shape == expected[name].shape
        assert weight.count_nonzero() > 0, name
    torch.testing.assert_close(merged(sharded), merged(single), rtol=0, atol=1e-4)
    assert (merged(single) - merged(base)).abs().max() > 0.1
