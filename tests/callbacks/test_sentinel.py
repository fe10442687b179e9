"""A loss, a gradient or a weight that is no number ends a run where it happens, and spoils no checkpoint."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_pi.batches import TrainingBatch
from lit_pi.cli import LitPiCLI
from lit_pi.errors import RunError, UserError
from lit_pi.models.sources.checkpoint import newest_checkpoint
from lit_pi.module import LitLlama
from lit_pi.runs.status import read_status

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = ["--trainer.max_steps=12", "--checkpoint.every_n_train_steps=2", "--trainer.limit_val_batches=0"]
STEP = LitLlama.training_step


def breaking(monkeypatch: pytest.MonkeyPatch, *steps: int, factor: float = float("nan")) -> None:
    """Multiply the loss of some steps, counted from 1."""

    def step(self: LitLlama, batch: TrainingBatch, batch_idx: int) -> Tensor:
        loss = STEP(self, batch, batch_idx)
        return loss * factor if self.global_step + 1 in steps else loss

    monkeypatch.setattr(LitLlama, "training_step", step)


def overflowing(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Let one gradient of a step be infinite, where the loss is a number."""

    def spoil(self: LitLlama) -> None:
        if self.global_step + 1 == at and self._is_last:
            next(self.parameters()).grad.view(-1)[7] = torch.inf

    monkeypatch.setattr(
        LitLlama, "on_after_backward", lambda self: (super(LitLlama, self).on_after_backward(), spoil(self))
    )


def fit(run: Path, tiny: list[str], *words: str) -> LitPiCLI:
    return LitPiCLI(["fit", *tiny, *STEPS, f"--trainer.default_root_dir={run}", *words])


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_the_run_ends_at_the_step_with_its_documents_and_the_last_good_checkpoint(
    kind: str, tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "gradient":
        overflowing(monkeypatch, 6)
    else:
        monkeypatch.setattr(LitLlama, "learn", spoilt(LitLlama.learn, at=6))
    what = "gradients are" if kind == "gradient" else "the loss is"
    good = tmp_path / "checkpoints" / "step-000004.ckpt"
    said = (
        rf"^{what} not finite at step 6, in the documents \d\d\.txt(, \d\d\.txt)*; the last good checkpoint is {good}$"
    )
    with pytest.raises(RunError, match=said):
        fit(tmp_path, tiny)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000004.ckpt"]
    status = read_status(tmp_path)
    assert (status["state"], status["step"], status["checkpoint"]) == ("failed", 6, str(good))
    assert "not finite at step 6" in status["reason"]


def spoilt(learn, at: int):
    def learnt(self: LitLlama, batch: TrainingBatch, root=None) -> Tensor:
        found = learn(self, batch, root)
        return found * float("inf") if self.trainer.training and self.global_step + 1 == at else found

    return learnt


def test_the_documents_are_those_of_the_step(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two micro-batches of two sequences, found in the training files by their text."""
    rows = []

    def learnt(self: LitLlama, batch: TrainingBatch, root=None) -> Tensor:
        found = LEARN(self, batch, root)
        bad = self.trainer.training and self.global_step + 1 == 3
        rows.extend(batch.input_ids.tolist() if bad else ())
        return found * float("nan") if bad else found

    monkeypatch.setattr(LitLlama, "learn", learnt)
    words = ["--trainer.accumulate_grad_batches=2", "--data.packing=concatenated", "--without=[IsolationProbe]"]
    with pytest.raises(RunError) as error:
        fit(tmp_path, tiny, *words)
    (folder,) = (Path(word.partition("train=")[2]) for word in tiny if "train.train=" in word)
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    named = set(str(error.value).partition("documents ")[2].partition(";")[0].split(", "))
    assert len(rows) == 4
    for row in rows:
        pieces = bytes(token for token in row if token < 256).decode()
        owners = {
            name for name, text in texts.items() if any(pieces[k : k + 24] in text for k in (0, len(pieces) - 24))
        }
        assert owners & named


LEARN = LitLlama.learn


def test_a_skipped_step_changes_nothing_and_training_goes_on(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, 5)
    every = "--checkpoint.every_n_train_steps=1", "--checkpoint.save_top_k=-1"
    with pytest.warns(UserWarning, match=r"Step 5 was skipped, 1 until now: .* not finite at step 5, in the documents"):
        cli = fit(tmp_path, tiny, "--sentinel.on_nonfinite=skip", *every)
    assert cli.trainer.global_step == 12
    saved = [torch.load(path, weights_only=True) for path in sorted((tmp_path / "checkpoints").iterdir())]
    before, skipped, after = saved[3:6]
    for name, weight in before["state_dict"].items():
        assert torch.equal(weight, skipped["state_dict"][name])
    states = [each["optimizer_states"][0]["state"] for each in (before, skipped, after)]
    for number, state in states[0].items():
        assert all(torch.equal(value, states[1][number][name]) for name, value in state.items())
    assert not torch.equal(*(each["state_dict"]["model.llm.lm_head.weight"] for each in (skipped, after)))
    assert all(weight.isfinite().all() for weight in saved[-1]["state_dict"].values())


def test_skipping_ends_after_so_many_in_a_row(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    breaking(monkeypatch, 3, 5, 6, 7)
    with pytest.raises(RunError, match=r"at step 7, in the documents .*, after 2 others in a row; the last good"):
        fit(tmp_path, tiny, "--sentinel.on_nonfinite=skip", "--sentinel.give_up_after=3")


def test_weights_that_are_no_numbers_are_not_saved(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: LitLlama, *rest: object) -> None:
        OPTIMIZE(self, *rest)
        if self.global_step == 5:  # not counted yet
            next(self.parameters()).data[3, 3] = torch.nan

    monkeypatch.setattr(LitLlama, "optimizer_step", step)
    with pytest.raises(RunError, match=r"weights are not finite after step 6; the last good checkpoint is .*000004"):
        fit(tmp_path, tiny)
    assert newest_checkpoint(tmp_path).name == "step-000004.ckpt"


OPTIMIZE = LitLlama.optimizer_step


def test_a_spike_of_the_loss_is_reported(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_pi.callbacks.sentinel.RECENT", 20)
    monkeypatch.setattr(LitLlama, "learn", spiking)
    with pytest.warns(
        UserWarning, match=r"The loss of step 30 is \d+\.\d+, where the 20 before it are .*: look at the doc"
    ):
        fit(tmp_path, tiny, "--trainer.max_steps=32")


def spiking(self: LitLlama, batch: TrainingBatch, root=None) -> Tensor:
    return LEARN(self, batch, root) * (3 if self.trainer.training and self.global_step + 1 == 30 else 1)


def test_a_count_of_none_is_refused(tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(UserError, match=r"give_up_after of Sentinel is 0: it must be 1 or more"):
        fit(tmp_path, tiny, "--sentinel.give_up_after=0")
