"""Steps of training on a GPU, where there is one."""

from pathlib import Path

import pytest
import torch

from lit_pi.batches import TrainingBatch
from lit_pi.cli import LitPiCLI
from lit_pi.errors import RunError, UserError
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


def breaking(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    step = LitLlama.training_step

    def broken(self: LitLlama, batch: TrainingBatch, batch_idx: int) -> torch.Tensor:
        return step(self, batch, batch_idx) * (float("nan") if self.global_step + 1 == at else 1)

    monkeypatch.setattr(LitLlama, "training_step", broken)


def words_of(run: Path, tiny: list[str]) -> list[str]:
    words = [word.replace("heads: 4", "heads: 2") for word in tiny if "accelerator" not in word]
    words += ["--trainer.accelerator=gpu", f"--trainer.default_root_dir={run}", "--trainer.max_steps=8"]
    return ["fit", *words, "--trainer.limit_val_batches=0", "--checkpoint.every_n_train_steps=1"]


def test_a_run_ends_where_gradients_are_no_numbers(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, 5)
    with pytest.raises(RunError, match=r"gradients are not finite at step 5, .*; the last good checkpoint is .*000004"):
        LitPiCLI([*words_of(tmp_path, tiny), "--checkpoint.every_n_train_steps=4"])


def test_a_step_that_is_skipped_changes_nothing(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, 5)
    skip = ["--sentinel.on_nonfinite=skip", "--checkpoint.save_top_k=-1", "--model.optimizer=AdamW"]
    LitPiCLI([*words_of(tmp_path, tiny), *skip, "--model.optimizer.fused=true"])
    saved = [torch.load(path, weights_only=True) for path in sorted((tmp_path / "checkpoints").iterdir())]
    for name, weight in saved[3]["state_dict"].items():
        assert torch.equal(weight, saved[4]["state_dict"][name])
        assert saved[7]["state_dict"][name].isfinite().all()
    states = [each["optimizer_states"][0]["state"] for each in saved[3:5]]
    for number, state in states[0].items():
        assert all(torch.equal(value, states[1][number][name]) for name, value in state.items())


def test_an_optimizer_that_cannot_skip_there_is_refused(tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(UserError, match=r"AdamW cannot skip a step on a GPU: give it `fused: true`"):
        LitPiCLI([*words_of(tmp_path, tiny), "--sentinel.on_nonfinite=skip"])
