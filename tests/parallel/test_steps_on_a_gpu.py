"""Steps of training on a GPU, where there is one."""

from pathlib import Path

import pytest
import torch

from lit_pi.cli import LitPiCLI
from lit_pi.module import LitLlama

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore"),
]

CUTS = {
    "micro-batches": ["--trainer.accumulate_grad_batches=3"],
    "bfloat16": ["--trainer.precision=bf16-true"],
    "pose": ["--model.train_positions=PoSE", "--model.train_positions.target_context=256"],
    "sharded": ["--trainer.strategy=fsdp2", "--trainer.devices=1", "--trainer.accumulate_grad_batches=2"],
}


@pytest.mark.parametrize("options", CUTS.values(), ids=CUTS)
def test_no_step_waits_for_the_gpu(
    tmp_path: Path, tiny: list[str], options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    heard = []

    def listen(module: LitLlama, batch: object, batch_idx: int) -> None:
        if module.global_step >= 6:  # the first compile
            torch.cuda.set_sync_debug_mode("error")
            heard.append(batch_idx)

    def stop(*_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(LitLlama, "on_train_batch_start", listen)
    monkeypatch.setattr(LitLlama, "on_train_batch_end", stop)
    words = [word.replace("heads: 4", "heads: 2") for word in tiny if "accelerator" not in word]
    words += ["--trainer.accelerator=gpu", f"--trainer.default_root_dir={tmp_path}", *options]
    words += ["--trainer.max_steps=12", "--trainer.limit_val_batches=0", "--trainer.gradient_clip_val=1.0"]
    # Layers are compiled anew for another mode, and for rows of several documents.
    words += ["--model.activation_checkpointing.mode=none", "--data.packing=concatenated"]
    words += ["--trainer.log_every_n_steps=100"]  # to write a number is to wait for it
    try:
        LitPiCLI(["fit", *words, "--data.batch_size=1"])
    finally:
        stop()
    assert heard
