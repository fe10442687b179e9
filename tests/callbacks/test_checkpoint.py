"""Which checkpoints a run keeps."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_pi.cli import LitPiCLI
from lit_pi.parallel import checkpoint_io
from lit_pi.parallel.checkpoint_io import AtomicCheckpointIO

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_best_of_an_evaluation_and_the_newest_are_kept(tmp_path: Path, tiny: list[str]) -> None:
    """The learning rate is so high that the model gets worse again."""
    LitPiCLI([
        "fit", *tiny, f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=8",
        "--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null",
        "--checkpoint.every_n_train_steps=1", "--checkpoint.in_background=true", "--model.optimizer=AdamW",
        "--model.optimizer.lr=0.3", "--trainer.callbacks+=BestCheckpoint",
        "--trainer.callbacks.monitor=texts/perplexity/64", "--trainer.limit_val_batches=4",
    ])  # fmt: skip
    found = {
        record["step"]: point["value"]
        for record in json.loads((tmp_path / "results.json").read_text())["records"]
        for point in record["definitions"]["token_weighted"]
        if point["context_length"] == 64
    }
    best = min(found, key=lambda step: found[step])
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {f"best-{best:06d}.ckpt", "step-000008.ckpt"}


def test_a_name_that_no_evaluation_has_is_one_sentence(tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(Exception, match=r"monitor='texts/perplexity/63'.* could not find the monitored key"):
        LitPiCLI([
            "fit", *tiny, f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=1",
            "--trainer.val_check_interval=1", "--trainer.check_val_every_n_epoch=null",
            "--trainer.callbacks+=BestCheckpoint", "--trainer.callbacks.monitor=texts/perplexity/63",
            "--trainer.limit_val_batches=1",
        ])  # fmt: skip


def test_what_was_trained_is_kept_though_nothing_that_is_monitored_was_measured(
    tmp_path: Path, tiny: list[str]
) -> None:
    words = ["--trainer.max_steps=2", "--trainer.limit_val_batches=0", "--checkpoint.monitor=nothing"]
    with pytest.warns(UserWarning, match="checkpoint.monitor is nothing, which was not measured at the last step"):
        LitPiCLI(["fit", *tiny, f"--trainer.default_root_dir={tmp_path}", *words])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000002.ckpt"]


def test_what_is_written_in_the_background_is_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and states that training changes meanwhile are copied, and what goes wrong is told."""

    def slowly(*arguments: Any, save: Any = torch.save) -> None:
        time.sleep(0.3)
        save(*arguments)

    monkeypatch.setattr(checkpoint_io.torch, "save", slowly)
    saver, weight, progress = AtomicCheckpointIO(in_background=True), torch.zeros(2), {"step": 1}
    saver.save_checkpoint({"weight": weight, "progress": progress}, tmp_path / "a.ckpt")
    weight += 1
    progress["step"] = 2
    assert not (tmp_path / "a.ckpt").exists()
    saver.teardown()
    found = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(found["weight"], torch.zeros(2)) and found["progress"] == {"step": 1}
    (tmp_path / "file").touch()
    saver.save_checkpoint({"weight": weight}, tmp_path / "file" / "b.ckpt")
    with pytest.raises(OSError):
        saver.teardown()
