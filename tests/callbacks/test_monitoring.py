"""Callbacks and schedulers of stock Lightning that monitor an evaluation, by YAML and the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError

MONITOR = "texts/perplexity/64"


def fitted(folder: Path, tiny: list[str], *words: str, steps: int = 12) -> LitPiCLI:
    """Train with a validation every second step, of which every second one measures."""
    evaluations = (word.replace("stride: 16", "stride: 16, every_n_steps: 4") for word in tiny)
    return LitPiCLI(
        ["fit", *evaluations, f"--trainer.max_steps={steps}", "--trainer.val_check_interval=2", *words,
         f"--trainer.default_root_dir={folder}"]
    )  # fmt: skip


def measured(folder: Path) -> list[int]:
    return [record["step"] for record in json.loads((folder / "results.json").read_text())["records"]]


@pytest.mark.filterwarnings("ignore")
def test_patience_counts_measurements(tmp_path: Path, tiny: list[str]) -> None:
    stopping = {"monitor": MONITOR, "patience": 2, "min_delta": 1000}
    options = json.dumps([{"class_path": "EarlyStopping", "init_args": stopping}])
    cli = fitted(tmp_path, tiny, f"--trainer.callbacks={options}", steps=40)
    # The first is the best; the two after it count, and not the validations between them.
    assert cli.trainer.global_step == 12 and measured(tmp_path) == [4, 8, 12]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_a_plateau_is_one_of_measurements(tmp_path: Path, tiny: list[str]) -> None:
    class_path = "--model.scheduler=lightning.pytorch.cli.ReduceLROnPlateau"
    options = {"monitor": MONITOR, "patience": 0, "factor": 0.5, "threshold": 0.9}
    words = [f"--model.scheduler.{key}={value}" for key, value in options.items()]
    cli = fitted(tmp_path, tiny, class_path, *words)
    # The first of three measurements is the best, each later one halves: 5 validations alone would halve more often.
    assert [group["lr"] for group in cli.trainer.optimizers[0].param_groups] == [2e-5 / 4]
    with pytest.raises(UserError, match=r"monitors texts/perplexity/63, which is not measured: there are .*/64"):
        fitted(tmp_path / "b", tiny, class_path, "--model.scheduler.monitor=texts/perplexity/63", steps=4)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_the_learning_rate_that_is_found_is_the_one_in_use(tmp_path: Path, tiny: list[str]) -> None:
    finder = json.dumps(
        [{"class_path": "LearningRateFinder", "init_args": {"num_training_steps": 30, "max_lr": 0.1, "min_lr": 1e-4}}]
    )
    cli = fitted(tmp_path, tiny, f"--trainer.callbacks={finder}", "--model.scheduler.total_iters=4", steps=8)
    found = cli.model.lr
    assert found is not None and found != 2e-5
    # Warm-up is over, so the rate is what was found, and not its start's multiple.
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(found)


@pytest.mark.filterwarnings("ignore")
def test_the_best_checkpoint_is_of_a_measured_step(tmp_path: Path, tiny: list[str]) -> None:
    best = json.dumps([{"class_path": "ModelCheckpoint", "init_args": {
        "monitor": MONITOR, "dirpath": str(tmp_path / "best"), "filename": "{step}", "every_n_epochs": 1,
        "save_on_train_epoch_end": False,
    }}])  # fmt: skip
    fitted(tmp_path, tiny, f"--trainer.callbacks={best}")
    (saved,) = (tmp_path / "best").iterdir()
    assert saved.name in {"step=4.ckpt", "step=8.ckpt", "step=12.ckpt"}


@pytest.mark.filterwarnings("ignore")
def test_scalars_are_what_a_test_returns(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli = LitPiCLI(["test", *tiny, f"--trainer.default_root_dir={tmp_path}"])
    (record,) = json.loads((tmp_path / "results.json").read_text())["records"]
    for point in record["curve"]:
        found = cli.trainer.callback_metrics[f"texts/perplexity/{point['context_length']}"]
        assert float(found) == pytest.approx(point["perplexity"], rel=1e-6)
    assert "Test metric" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("words", [["--trainer.barebones=true"], ["--trainer.enable_checkpointing=false"]])
def test_without_checkpoints_or_anything(words: list[str], tmp_path: Path, tiny: list[str]) -> None:
    own: Any = [word for word in tiny if "enable_progress_bar" not in word] if "barebones" in words[0] else tiny
    cli = LitPiCLI(["fit", *own, *words, "--trainer.max_steps=2", f"--trainer.default_root_dir={tmp_path}"])
    assert cli.trainer.global_step == 2 and not (tmp_path / "checkpoints").exists()
    assert (tmp_path / "fit.yaml").exists() and torch.isfinite(next(cli.model.parameters())).all()


@pytest.mark.filterwarnings("ignore")
def test_default_callbacks_are_replaced_and_left_out(tmp_path: Path, tiny: list[str]) -> None:
    words = ["--trainer.callbacks=IsolationProbe", "--without=[Throughput, RopeGuard]", "--trainer.max_steps=1"]
    cli = LitPiCLI(["fit", *tiny, *words, f"--trainer.default_root_dir={tmp_path}"])
    names = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert names.count("IsolationProbe") == 1 and {"Throughput", "RopeGuard"}.isdisjoint(names)
    assert {"Measurements", "Predictions", "Checkpoint"} <= set(names)
    with pytest.raises(UserError, match="without"):
        LitPiCLI(["fit", *tiny, "--without=[Nothing]"])
